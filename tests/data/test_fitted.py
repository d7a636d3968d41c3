"""Media as they are stored: every field survives, and they are never resized twice."""

import dataclasses

import numpy as np
import pytest

from hulu_jax.data import compression as compression_lib
from hulu_jax.data import resize
from hulu_jax.data import shards
from hulu_jax.data import vision
from hulu_jax.media.types import Media


def test_every_field_of_a_medium_survives():
  medium = vision.Fitted(
    kind="volume",
    frames=np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1),
    modality="CT",
    plane="axial",
    oblique_degrees=0.1 + 0.2,
    spacing_mm=(1.0, 0.3, 1 / 3),
    affine=np.linspace(0, 1, 16).reshape(4, 4) / 3,
    axis_codes="IPL",
    units="HU",
    window=(40.0, 80.0),
    rgb_windows=((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)),
    value_range=(-1.5, 2.5),
    slices=(0, 5),
    fps=2.5,
    timestamps=(0, 0.1),
    provenance={"format": "nifti", "n": 3, "x": 0.5, "yes": True},
    notes=("größer",),
    original=(30, 40),
  )
  named = {f.name for f in dataclasses.fields(Media)} | {"original"}
  assert {name for name in named if vars(medium)[name] is not None} == named
  content = [{"type": "volume", "medium": medium}, {"type": "text", "text": "x"}]
  record = {"id": "a", "messages": [{"role": "user", "content": content}]}
  read = shards.decode(shards.encode(record))["messages"][0]["content"][0]["medium"]
  for name in named:
    got, want = vars(read)[name], vars(medium)[name]
    assert type(got) is type(want)
    np.testing.assert_array_equal(got, want)
  assert read.frames.dtype == np.uint8 and read.affine.dtype == np.float64
  assert type(read.timestamps[0]) is int  # "Time 0s:", not "Time 0.0s:"


def sizes_twice(entries, factors, least, most):
  once = resize.target_sizes(entries, factors, least, most)
  shown = [resize.Entry(*size, e.frames) for size, e in zip(once, entries, strict=True)]
  return once, resize.target_sizes(shown, factors, least, most)


def drawn(seed):
  """A conversation of one to four media; a tenth of the draws have a tight budget."""
  rng = np.random.default_rng(seed)
  count = int(rng.integers(1, 5))
  entries = [
    resize.Entry(*map(int, rng.integers(8, 900, 2)), int(rng.choice([1, 1, 7, 60])))
    for _ in range(count)
  ]
  factors = [int(f) for f in (rng.choice([14, 28], count) if seed % 2 else [28] * count)]
  most = int(rng.choice([40, 400, 4000, 16384]))
  return entries, factors, int(rng.choice([1, 4, 16])), most


def test_sizes_are_final_but_where_the_minimum_wins():
  """So frames are stored with the size they had before: see `vision.Fitted`."""
  tried = changed = 0
  for seed in range(4000):
    entries, factors, least, most = drawn(seed)
    try:
      once, twice = sizes_twice(entries, factors, least, most)
    except ValueError:
      continue  # a side shrinks to nothing
    tried += 1
    for (tall, wide), again in zip(once, twice, strict=True):
      if (tall, wide) != again:
        changed += 1
        share = most * factors[0] ** 2 // sum(e.frames for e in entries)
        assert len(set(factors)) == 1 and tall * wide > share
  assert tried > 2500 and changed


@pytest.mark.parametrize("seed", range(0, 60))
def test_fitting_twice_changes_nothing(seed):
  """Also where the rule of sizes would."""
  rng = np.random.default_rng(seed)
  media = [
    Media(kind=str(kind), frames=rng.integers(0, 256, (frames, *size, 1), dtype=np.uint8))
    for kind, frames, size in zip(
      rng.choice(["image", "volume"], 3), [1, 9, 4], rng.integers(10, 120, (3, 2)), strict=True
    )
    if kind == "volume" or frames == 1
  ]
  policy = vision.Policy(
    patch=14,
    min_tokens=4,
    max_tokens=int(rng.choice([20, 200])),
    merge={"image": 2 if seed % 2 else 1, "volume": 2, "video": 2},
    preset="radiology",
    compression=compression_lib.OFF,
  )
  if not media:
    return
  try:
    want = vision.visuals(media, policy)
  except ValueError:
    return
  once = vision.fit(media, policy)
  for a, b, c in zip(
    vision.visuals(once, policy),
    vision.visuals(vision.fit(once, policy), policy),
    want,
    strict=True,
  ):
    np.testing.assert_array_equal(a.patches, c.patches)
    np.testing.assert_array_equal(b.patches, c.patches)
