"""The contact sheet: the pixels the encoder gets, dropped tokens shaded, captions beside them."""

import numpy as np
from PIL import Image
import pytest

from hulu_jax.data import overlay
from hulu_jax.data import vision
from hulu_jax.data.compression import OFF
from hulu_jax.data.schema import Visual
from hulu_jax.data.vision import Policy
from hulu_jax.media.types import Media

GREY = 7  # darker than any ink
MARK = (255, 220, 60)  # the letters that name the sides
POLICY = Policy(
  patch=14,
  min_tokens=1,
  max_tokens=10_000,
  merge={"image": 1, "volume": 2, "video": 2},
  preset="radiology",
  compression=OFF,
)


def visual_of(frames: np.ndarray, kind: str = "video") -> Visual:
  return vision.visuals([Media(kind, frames)], POLICY)[0]


def test_only_dropped_tokens_are_shaded():
  frames = np.full((2, 112, 168, 1), GREY, np.uint8)
  keep = np.array([[True] * 6, [True, False, False, False, False, True]])
  visual = Visual(
    kind="video", patches=np.full((2, 24, 196), GREY, np.uint8), grid=(4, 6), merge=2, keep=keep
  )
  sheet = overlay.contact_sheet(Media("video", frames), visual)
  scale = 256 / 84  # frames of 56 x 84 pixels are enlarged until their longer side has 256
  clear = (sheet == GREY).all(axis=-1).sum()
  assert clear == pytest.approx((6 + 2) * (28 * scale) ** 2, rel=0.02)
  shaded = (sheet == [(GREY + 150) // 2, (GREY + 20) // 2, (GREY + 20) // 2]).all(axis=-1).sum()
  assert shaded == pytest.approx(4 * (28 * scale) ** 2, rel=0.02)
  np.testing.assert_array_equal(
    overlay.token_mask(visual, 1), [[True, False, False], [False, False, True]]
  )


def test_dropped_tokens_of_a_red_picture_are_not_red():
  red = np.full((2, 4, 3, 196), [[200], [0], [0]], np.uint8).reshape(2, 4, 588)
  keep = np.array([[True, True], [True, False]])
  patches = np.concatenate([red, red], axis=1)
  visual = Visual(kind="video", patches=patches, grid=(2, 4), merge=2, keep=keep)
  sheet = overlay.contact_sheet(Media("video", np.zeros((2, 28, 56, 3), np.uint8)), visual)
  colours = sheet[(sheet != 255).all(axis=-1)].astype(int)
  reddish = (colours[:, 0] > colours[:, 2] + 50).sum()
  bluish = (colours[:, 2] > colours[:, 0] + 50).sum()
  assert reddish == pytest.approx(3 * bluish, rel=0.02) and bluish > 1000


@pytest.mark.parametrize("channels", (1, 3))
def test_a_frame_is_what_the_encoder_gets(channels):
  # 56 x 84 needs no resizing, so taking the patches apart must give the frame back.
  frames = np.random.default_rng(0).integers(0, 256, (2, 56, 84, channels)).astype(np.uint8)
  seen = np.asarray(overlay.frame_as_seen(visual_of(frames), 1))
  np.testing.assert_array_equal(seen, np.broadcast_to(frames[1], (56, 84, 3)))


def test_a_large_frame_is_shown_at_the_encoders_resolution():
  frames = np.zeros((1, 280, 280, 1), np.uint8)
  visual = visual_of(frames, "image")
  sheet = overlay.contact_sheet(Media("image", frames), visual)
  assert (sheet == 0).all(axis=-1).sum() == 280 * 280


def test_frames_keep_their_aspect():
  frames = np.full((3, 56, 224, 1), GREY, np.uint8)
  sheet = overlay.contact_sheet(Media("video", frames), visual_of(frames))
  rows, columns = np.nonzero((sheet == GREY).all(axis=-1))
  # One above the other: such frames are far wider than tall.
  assert np.ptp(columns) + 1 == 256
  assert len(set(rows)) == 3 * 64


def test_many_frames_are_thinned_and_said_so():
  frames = np.full((200, 28, 28, 1), GREY, np.uint8)
  visual = visual_of(frames)
  media = Media("volume", frames, slices=tuple(range(0, 400, 2)))
  sheet = overlay.contact_sheet(media, visual)
  drawn = (sheet == GREY).all(axis=-1)
  assert drawn.sum() % 64 == 0 and drawn.sum() > 64 * 100 * 100
  # No row holds fewer frames than the others where 64 fill a square.
  assert len({row.sum() for row in drawn if row.any()}) == 1


def ink(sheet: np.ndarray) -> int:
  return int((sheet < 90).all(axis=-1).sum())


def test_captions_and_title_are_written():
  frames = np.full((2, 112, 112, 1), 255, np.uint8)
  visual = visual_of(frames)
  bare = overlay.contact_sheet(Media("video", frames), visual)
  timed = overlay.contact_sheet(
    Media("video", frames, slices=(3, 9), timestamps=(0.1, 0.3)), visual, ("a title", "and more")
  )
  assert timed.shape[0] == bare.shape[0] + 2 * 16
  assert ink(timed) > ink(bare)


def test_a_long_title_is_not_cut():
  frames = np.full((1, 112, 112, 1), 255, np.uint8)
  sheet = overlay.contact_sheet(Media("image", frames), visual_of(frames, "image"), ("word " * 90,))
  assert sheet.shape[1] > 1400 and (sheet[:, -6:] == 255).all()


def test_known_sides_are_named_on_the_first_frame_only():
  frames = np.full((2, 112, 112, 1), GREY, np.uint8)
  visual = visual_of(frames)
  known = overlay.contact_sheet(Media("volume", frames, axis_codes="IPL"), visual)
  unknown = overlay.contact_sheet(Media("volume", frames), visual)
  marked = (known == MARK).all(axis=-1)
  assert not (unknown == MARK).all(axis=-1).any()
  rows, columns = np.nonzero(marked)
  assert len(rows) and columns.max() < known.shape[1] / 2  # two frames stand side by side
  # Left, right, top and bottom of the frame, nothing in its middle.
  assert not marked[60:200, 60:200].any()


def test_sheets_side_by_side_keep_their_pixels():
  one = np.full((40, 30, 3), 10, np.uint8)
  two = np.full((20, 50, 3), 20, np.uint8)
  whole = overlay.beside([one, two])
  assert whole.shape[0] == 40 and whole.shape[1] > 80
  assert (whole == 10).sum() == one.size and (whole == 20).sum() == two.size
  np.testing.assert_array_equal(overlay.beside([one]), one)


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
  picture = np.random.default_rng(1).integers(0, 256, (9, 7, 3)).astype(np.uint8)
  overlay.write_png(tmp_path / "a.png", picture)
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)
  with pytest.raises(OSError):
    overlay.write_png(tmp_path / "none" / "a.png", picture)
  with pytest.raises(TypeError):
    overlay.write_png(tmp_path / "b.png", np.zeros((2, 2, 2, 2)))
  assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
