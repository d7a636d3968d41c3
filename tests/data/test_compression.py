"""Which tokens survive: golden counts, and the released code's rule written in its own units."""

import numpy as np
import pytest

from hulu_jax.data import compression
from hulu_jax.data.compression import Compression

VALUES = 4 * 588  # an RGB token of 2 x 2 patches
HULUMED, VIDEOLLAMA3 = Compression(mode="hulumed"), Compression(mode="videollama3")


def flat(*levels, tokens=6, values=VALUES):
  """One frame per grey level."""
  frames = [np.full((tokens, values), level, np.uint8) for level in levels]
  return np.stack(frames)


def count(tokens, mode):
  return compression.keep_mask(tokens, mode).sum(axis=1).tolist()


@pytest.mark.parametrize(
  ("levels", "mode", "kept"),
  [
    ((100, 100), HULUMED, [1, 1]),
    ((100, 113), HULUMED, [1, 6]),
    ((100, 112), HULUMED, [1, 1]),
    ((113, 100), HULUMED, [1, 6]),
    ((100, 100), VIDEOLLAMA3, [6, 1]),
    ((100, 101), VIDEOLLAMA3, [6, 6]),
    ((100, 100), Compression(mode="fixed", grey=12.75), [6, 1]),
    ((100, 113), Compression(mode="fixed", grey=12.75), [6, 6]),
    ((0, 255), compression.OFF, [6, 6]),
    ((0, 0, 0), compression.OFF, [6, 6, 6]),
    ((7,), HULUMED, [6]),
    ((7,), VIDEOLLAMA3, [6]),
  ],
)
def test_golden_counts(levels, mode, kept):
  assert count(flat(*levels), mode) == kept


def test_the_token_that_stays_is_the_first():
  keep = compression.keep_mask(flat(50, 50, 50), HULUMED)
  np.testing.assert_array_equal(np.argwhere(keep), [[0, 0], [1, 0], [2, 0]])


def as_released(tokens, mode, dtype):
  """The released code's own terms: normalised floats, a score, a sentinel for frame 0."""
  x = (tokens.astype(dtype) / 255 - dtype(0.5)) / dtype(0.5)
  change = np.abs(x[1:] - x[:-1]).mean(axis=-1)
  score = np.concatenate([np.full((1, tokens.shape[1]), 0.1 + 1.0, dtype), change * 255])
  keep = score / 255 > 0.1 if mode == "hulumed" else score > 0.1
  for frame in keep:
    if frame.sum() < 1:
      frame[0] = True
  return keep


@pytest.mark.parametrize("mode", ["hulumed", "videollama3"])
@pytest.mark.parametrize("values", [196, 588, 784, 2352])
def test_random_tokens_are_kept_as_the_released_code_keeps_them(mode, values):
  rng = np.random.default_rng(values)
  # From frame to frame a token changes all over by some levels, or by one level here and there.
  dense = rng.normal(size=(8, 60, values)) * rng.uniform(0, 30, (8, 60, 1))
  sparse = rng.random((8, 60, values)) < rng.uniform(0, 0.1, (8, 60, 1))
  change = np.where(rng.random((8, 60, 1)) < 0.5, dense, sparse)
  tokens = [rng.integers(30, 220, (60, values))]
  for step in change:
    tokens.append(np.clip(tokens[-1] + step, 0, 255))
  tokens = np.array(tokens).astype(np.uint8)
  got = compression.keep_mask(tokens, Compression(mode=mode))
  np.testing.assert_array_equal(got, as_released(tokens, mode, np.float32))
  assert 0.1 < got[1:].mean() < 0.9


def stepped(total, values=VALUES):
  """Two frames of one token each, whose values differ by `total` in sum."""
  tokens = np.full((2, 2, values), 60, np.uint8)
  each, rest = divmod(total, values)
  tokens[1, 1] += each
  tokens[1, 1, :rest] += 1
  return tokens


@pytest.mark.parametrize(
  ("mode", "values", "limit"),
  [
    # 0.1 in [-1, 1] is 12.75 grey levels: 29988 exactly at 2352 values; a tie is not above.
    ("hulumed", 2352, 29988),
    ("hulumed", 196, 2499),
    # 0.1 / 255 is 0.05 grey levels: 117.6, 9.8.
    ("videollama3", 2352, 117),
    ("videollama3", 196, 9),
  ],
)
def test_the_last_dropped_sum_of_differences(mode, values, limit):
  for total, kept in ((limit - 1, False), (limit, False), (limit + 1, True), (limit + 2, True)):
    tokens = stepped(total, values)
    assert compression.keep_mask(tokens, Compression(mode=mode))[1, 1] == kept
    if total != 29988 and total != 2499:  # floats may round a tie either way
      assert as_released(tokens, mode, np.float64)[1, 1] == kept


def kept_by_loop(tokens, grey, against):
  keep = np.zeros(tokens.shape[:2], bool)
  for p in range(tokens.shape[1]):
    keep[0, p] = True
    seen = tokens[0, p].astype(float)
    for t in range(1, len(tokens)):
      now = tokens[t, p].astype(float)
      keep[t, p] = np.abs(now - seen).mean() > grey
      if against == "previous" or keep[t, p]:
        seen = now
  for frame in keep:
    frame[0] |= not frame.any()
  return keep


@pytest.mark.parametrize("against", ["previous", "last_kept"])
def test_fixed_thresholds(against):
  rng = np.random.default_rng(5)
  drift = rng.uniform(-4, 4, (1, 30, 1)) * np.arange(9)[:, None, None]
  noise = rng.normal(size=(9, 30, 50)) * 3
  tokens = np.clip(128 + drift + noise, 0, 255).astype(np.uint8)
  mode = Compression(mode="fixed", grey=6.0, against=against)
  got = compression.keep_mask(tokens, mode)
  np.testing.assert_array_equal(got, kept_by_loop(tokens, 6.0, against))


def test_last_kept_catches_a_slow_drift_and_previous_does_not():
  ramp = flat(*range(0, 27, 3))
  previous = Compression(mode="fixed", grey=10.0)
  last_kept = Compression(mode="fixed", grey=10.0, against="last_kept")
  assert count(ramp, previous) == [6, 1, 1, 1, 1, 1, 1, 1, 1]
  # 12 levels from 0, then 12 from 12.  A frame's lone token is there for its frame: it does not
  # count as an update of what it is compared with.
  assert count(ramp, last_kept) == [6, 1, 1, 1, 6, 1, 1, 1, 6]


def test_a_threshold_in_hu_follows_the_window():
  mode = Compression(mode="fixed", grey=3.0, hu=20.0)
  assert mode.threshold(None) == 3.0
  assert mode.threshold((40.0, 400.0)) == pytest.approx(12.75)
  assert mode.threshold((40.0, 80.0)) == pytest.approx(63.75)


@pytest.mark.parametrize(
  ("fields", "error"),
  [
    ({"mode": "strong"}, "unknown compression 'strong'; there are: off, hulumed"),
    ({"mode": "fixed"}, "'fixed' needs grey"),
    ({"mode": "fixed", "grey": 1.0, "against": "first"}, "against='first'; expected 'previous'"),
  ],
)
def test_what_cannot_be_meant_is_refused(fields, error):
  with pytest.raises(ValueError, match=error):
    Compression(**fields)


def test_differences_do_not_wrap():
  a, b = np.zeros((1, 1, 300), np.uint8), np.full((1, 1, 300), 255, np.uint8)
  assert compression.change_scores(a, b).item() == compression.change_scores(b, a).item() == 76500
