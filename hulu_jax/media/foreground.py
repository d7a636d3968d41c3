"""Which values are worth grey levels where no unit says so: percentiles over what is not air."""

from collections.abc import Iterator

import numpy as np

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Range

LOWEST, HIGHEST = 0.5, 99.5
_AIR = 0.05  # of the range of values
_MOST_LEVELS = 1 << 16


def percentiles(
  values: np.ndarray, padding: np.ndarray | None = None, *, everything: bool = False
) -> Range:
  """Percentiles `LOWEST` and `HIGHEST` of the foreground of `values` [..., H, W], all frames.

  Padding (bool like `values`) and what is not finite never count.  Foreground is what lies above
  5 % of the way from the darkest values (percentile 0.5 of all) to the brightest (percentile 99.5
  of what is above the minimum, so that a small organ in a field of zeros still has a range).
  Reason: the air around a patient is often half of an MR volume and would take the low percentile
  to itself; its noise in magnitude pictures stays below 2 to 4 % of the brightest tissue.  Dark
  tissue lies above: cerebrospinal fluid in T1 at 10 to 20 %.  Only what is as dark as air, such as
  cortical bone, is left out, and it is black anyway.  In files that go far below zero (phase,
  subtraction, undeclared CT) the lowest values are not air, and all values count; so they do with
  `everything`.  Order and orientation of the frames play no part.  Raises BadRecord if no value is
  finite.
  """
  if values.dtype.kind in "iu" and values.size:
    low, high = int(values.min()), int(values.max())
    if high - low < _MOST_LEVELS:
      return _of_counts(*_count(values, padding, low, high), everything)
  return _of_numbers(_finite(values, padding), everything)


def _frames(
  values: np.ndarray, padding: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
  """Pieces of both that lie together in memory, whatever the axes are in."""
  order = np.argsort([-abs(s) for s in values.strides], kind="stable")
  values = values.transpose(order)
  padding = None if padding is None else padding.transpose(order)
  for k in range(len(values)):
    yield values[k], None if padding is None else padding[k]


def _count(
  values: np.ndarray, padding: np.ndarray | None, low: int, high: int
) -> tuple[np.ndarray, np.ndarray]:
  """The levels that occur, ascending, and how often each does."""
  counts = np.zeros(high - low + 1, np.int64)
  for frame, padded in _frames(values, padding):
    kept = frame.ravel() if padded is None else frame[~padded]
    # The difference of two 16-bit numbers needs 17 bits; that of wider ones is small here.
    wide = kept.astype(np.int64) if kept.itemsize < 8 else kept
    steps = (wide - wide.dtype.type(low)).astype(np.int64)
    counts += np.bincount(steps, minlength=len(counts))
  found = np.flatnonzero(counts)
  return (found + low).astype(np.float64), counts[found]


def _of_counts(levels: np.ndarray, counts: np.ndarray, everything: bool) -> Range:
  if not len(levels):
    raise BadRecord("format", "no voxel holds a measured number")
  dark, _ = _quantiles(levels, counts)
  _, bright = _quantiles(levels[1:], counts[1:])
  kept = levels > _air_ends(dark, bright, everything)
  low, high = _quantiles(levels[kept], counts[kept])
  return (low, high) if high > low else (float(levels[0]), float(levels[-1]))


def _quantiles(levels: np.ndarray, counts: np.ndarray) -> Range:
  """As np.percentile of `levels` repeated `counts` times; twice not-a-number if there are none."""
  if not len(levels):
    return np.nan, np.nan
  ends = np.cumsum(counts)
  places = np.array([LOWEST, HIGHEST]) / 100 * (ends[-1] - 1)
  lower, upper = (
    levels[np.searchsorted(ends, np.floor(places) + k, side="right").clip(max=len(levels) - 1)]
    for k in (0, 1)
  )
  low, high = lower + (upper - lower) * (places - np.floor(places))
  return float(low), float(high)


def _finite(values: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
  parts = []
  for frame, padded in _frames(values, padding):
    kept = np.isfinite(frame) if padded is None else np.isfinite(frame) & ~padded
    parts.append(frame[kept])
  return np.concatenate(parts) if parts else values.ravel()


def _of_numbers(numbers: np.ndarray, everything: bool) -> Range:
  if not len(numbers):
    raise BadRecord("format", "no voxel holds a finite number that was measured")
  lowest, highest = float(numbers.min()), float(numbers.max())
  if not highest > lowest:
    return lowest, highest
  dark = float(np.percentile(numbers, LOWEST))
  bright = float(np.percentile(numbers[numbers > lowest], HIGHEST))
  kept = numbers[numbers > _air_ends(dark, bright, everything)]
  if not len(kept):
    return lowest, highest
  low, high = np.percentile(kept, [LOWEST, HIGHEST], overwrite_input=True)
  return (float(low), float(high)) if high > low else (lowest, highest)


def _air_ends(dark: float, bright: float, everything: bool) -> float:
  """The value above which the foreground lies."""
  if everything or not bright > dark or dark < -_AIR * abs(bright):
    return -np.inf
  return dark + _AIR * (bright - dark)
