"""The two resize rules against values worked out from the reference's source."""

import numpy as np
from PIL import Image
import pytest

from hulu_jax.data import resize
from hulu_jax.data.resize import Entry

MIN, MAX = 16, 16384

# (height, width, frames), merge -> (height, width) of the target.
GOLDEN = [
  ((512, 512, 1), 1, (518, 518)),
  ((2048, 1536, 1), 1, (2044, 1540)),
  ((480, 640, 1), 1, (476, 644)),
  # As the reference does with pictures it opened itself: the sides exchanged (`Policy.swap_sides`).
  ((640, 480, 1), 1, (644, 476)),
  ((35, 35, 1), 1, (56, 56)),
  ((7, 1000, 1), 1, (14, 672)),
  ((20, 3000, 1), 2, (28, 2996)),
  ((512, 512, 160), 2, (280, 280)),
  ((512, 512, 180), 2, (252, 252)),
  ((1080, 1920, 1024), 2, (84, 168)),
  ((512, 512, 2000), 2, (112, 112)),
]
TOKENS = [1369, 16060, 1564, 1564, 16, 48, 107, 100, 81, 18, 16]


@pytest.mark.parametrize(("case", "tokens"), list(zip(GOLDEN, TOKENS, strict=True)))
def test_golden_sizes(case, tokens):
  size, merge, want = case
  factor = 14 * merge
  assert resize.target_sizes([Entry(*size)], [factor], MIN, MAX) == [want]
  assert want[0] // factor * (want[1] // factor) == tokens


def test_the_minimum_wins_over_the_maximum():
  sizes = resize.target_sizes([Entry(512, 512, 2000)], [28], MIN, MAX)
  assert 2000 * (sizes[0][0] // 28) * (sizes[0][1] // 28) == 32000 > MAX


def test_entries_of_one_conversation_share_the_budget():
  alone = resize.target_sizes([Entry(896, 896, 1)], [14], MIN, 4096)
  both = resize.target_sizes([Entry(896, 896, 1), Entry(448, 448, 3)], [14, 14], MIN, 4096)
  assert alone == [(896, 896)]
  # 4096 tokens over 4 frames: 1024 each, 32 x 32 patches.
  assert both == [(448, 448), (448, 448)]


def test_mixed_merge_sizes_round_each_side_while_the_total_fits():
  entries = [Entry(480, 640, 1), Entry(512, 512, 8)]
  # 480/14 = 34.3, 640/14 = 45.7, 512/28 = 18.3.
  assert resize.target_sizes(entries, [14, 28], MIN, MAX) == [(476, 644), (504, 504)]


def test_mixed_merge_sizes_shrink_all_alike_when_it_does_not():
  entries = [Entry(480, 640, 1), Entry(512, 512, 8)]
  # ceil: 35*46 + 8*19*19 = 4498 tokens, sides over sqrt(4.498) = 2.1209: 16.2, 21.6, 8.6 factors.
  assert resize.target_sizes(entries, [14, 28], MIN, 1000) == [(224, 294), (224, 224)]


def test_a_side_that_vanishes_is_an_error():
  with pytest.raises(ValueError, match="6 x 1000 pixels shrink to"):
    resize.target_sizes([Entry(6, 1000, 1), Entry(56, 56, 2)], [14, 28], MIN, MAX)


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_pillows_bicubic_frame_by_frame(channels):
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (3, 40, 30, channels), dtype=np.uint8)
  got = resize.resize(frames, (28, 56))
  assert (got.shape, got.dtype) == ((3, 28, 56, channels), np.uint8)
  for frame, small in zip(frames, got, strict=True):
    for c in range(channels):
      one = Image.fromarray(frame[..., c]).resize((56, 28), Image.Resampling.BICUBIC)
      np.testing.assert_array_equal(small[..., c], np.asarray(one))


def test_frames_of_the_right_size_are_left_alone():
  frames = np.random.default_rng(0).integers(0, 256, (2, 28, 42, 1), dtype=np.uint8)
  np.testing.assert_array_equal(resize.resize(frames, (28, 42)), frames)
