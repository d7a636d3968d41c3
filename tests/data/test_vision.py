"""Frames to patches: the order the released weights expect, and what is never compressed."""

import dataclasses

import numpy as np
from PIL import Image
import pytest

from hulu_jax.data import vision
from hulu_jax.data.compression import Compression
from hulu_jax.media.types import Media


def patches_by_loop(frames, merge):
  """The reference's layout, written as loops: frame, block row, block column, row, column."""
  count, height, width, channels = frames.shape
  out, places = [], []
  for t in range(count):
    rows, row_places = [], []
    for block_y in range(height // 14 // merge):
      for block_x in range(width // 14 // merge):
        for y in range(merge):
          for x in range(merge):
            r, c = block_y * merge + y, block_x * merge + x
            square = frames[t, r * 14 : r * 14 + 14, c * 14 : c * 14 + 14]
            rows.append(np.concatenate([square[..., k].ravel() for k in range(channels)]))
            row_places.append((r, c))
    out.append(rows)
    places = row_places
  return np.array(out), np.array(places)


@pytest.mark.parametrize("merge", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_patch_layout(merge, channels):
  rng = np.random.default_rng(merge)
  frames = rng.integers(0, 256, (2, 84, 168, channels), dtype=np.uint8)
  want, places = patches_by_loop(frames, merge)
  got = vision.patchify(frames, 14, merge)
  assert (got.shape, got.dtype) == ((2, 72, 196 * channels), np.uint8)
  np.testing.assert_array_equal(got, want)
  np.testing.assert_array_equal(vision.patch_places((6, 12), merge), places)


def media(kind, frames, size, **fields):
  pixels = np.random.default_rng(frames).integers(0, 256, (frames, *size, 1), dtype=np.uint8)
  return Media(kind=kind, frames=pixels, **fields)


POLICY = dataclasses.replace(vision.HULUMED, compression=Compression(mode="hulumed"))


def test_an_entry_of_each_kind():
  found = vision.visuals(
    [media("image", 1, (70, 98)), media("volume", 5, (112, 84)), media("video", 2, (112, 112))],
    POLICY,
  )
  assert [v.kind for v in found] == ["image", "volume", "video"]
  assert [v.merge for v in found] == [1, 2, 2]
  assert [v.grid for v in found] == [(5, 7), (8, 6), (8, 8)]
  for visual, frames in zip(found, (1, 5, 2), strict=True):
    patches = visual.grid[0] * visual.grid[1]
    assert visual.patches.shape == (frames, patches, 196)
    assert visual.keep.shape == (frames, patches // visual.merge**2)
    assert visual.keep.dtype == bool


def test_pictures_are_never_compressed_and_stacks_are():
  still = np.zeros((1, 56, 56, 1), np.uint8)
  pictures = [Media(kind="image", frames=still) for _ in range(3)]
  policy = dataclasses.replace(POLICY, merge={"image": 1, "volume": 1, "video": 1})
  assert all(v.keep.all() for v in vision.visuals(pictures, policy))
  for kind in ("volume", "video"):
    (stack,) = vision.visuals([Media(kind=kind, frames=still.repeat(3, axis=0))], policy)
    assert stack.keep.sum() == 3


def test_one_entry_is_never_compared_with_another():
  """Two clips of one frame each are whole, though they follow each other and are equal."""
  still = np.zeros((1, 112, 112, 1), np.uint8)
  found = vision.visuals([Media(kind="video", frames=still) for _ in range(2)], POLICY)
  assert all(v.keep.all() for v in found)


def test_a_threshold_in_hu_needs_the_window_that_was_applied():
  """20 HU in a 400 HU window are 12.75 grey levels; in a 2000 HU window 2.55."""
  step = np.zeros((2, 112, 112, 1), np.uint8)
  step[1] = 5
  policy = dataclasses.replace(POLICY, compression=Compression(mode="fixed", grey=12.0, hu=20.0))
  kept = {}
  for width in (400.0, 2000.0):
    scan = Media(kind="volume", frames=step, modality="CT", window=(0.0, width))
    kept[width] = int(vision.visuals([scan], policy)[0].keep[1].sum())
  assert kept == {400.0: 1, 2000.0: 16}


def test_sides_are_exchanged_for_the_kinds_named():
  """Spec 1.3: a picture 640 wide and 480 high is squashed onto 476 x 644 (width x height)."""
  picture, volume = media("image", 1, (480, 640)), media("volume", 2, (480, 640))
  policy = dataclasses.replace(POLICY, merge={"image": 1, "volume": 1, "video": 1})
  grids = {
    (): [(34, 46), (34, 46)],
    ("image",): [(46, 34), (34, 46)],
    ("image", "volume"): [(46, 34), (46, 34)],
  }
  for kinds, want in grids.items():
    swapped = dataclasses.replace(policy, swap_sides=kinds)
    assert [v.grid for v in vision.visuals([picture, volume], swapped)] == want
  (visual,) = vision.visuals([picture], dataclasses.replace(policy, swap_sides=("image",)))
  squashed = Image.fromarray(picture.frames[0, ..., 0]).resize((476, 644), Image.Resampling.BICUBIC)
  want, _ = patches_by_loop(np.asarray(squashed)[None, ..., None], 1)
  np.testing.assert_array_equal(visual.patches, want)
  with pytest.raises(ValueError, match="swap_sides names .'picture'.; there are: image, volume"):
    dataclasses.replace(policy, swap_sides=("picture",))


def test_no_media_is_no_work():
  assert vision.visuals([], POLICY) == ()
