"""Media that look alike, found through their perceptual hashes without comparing all with all."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hulu_jax.data import hamming
from hulu_jax.data import picture_hash
from hulu_jax.data.picture_hash import Look

# A frame that more clips or volumes share than this (a title, an empty slice) finds nothing: their
# other frames do.
_CROWD = 1000


class Table(NamedTuple):
  """Different looks of media of equally many frames.

  hashes: uint64 [looks, F]; media: int64, which media; look: int64, the look of each of these.
  """

  hashes: Look
  media: np.ndarray
  look: np.ndarray


class Near(NamedTuple):
  """Pairs of looks.  left, right: int64 [pairs]; bits: float64, low bits that differ a frame."""

  left: np.ndarray
  right: np.ndarray
  bits: np.ndarray


def tables(low: np.ndarray, high: np.ndarray, first: np.ndarray) -> dict[int, Table]:
  """By number of frames.  low, high: uint64, of all frames; first: where each medium begins."""
  counts = np.diff(first)
  found = {}
  for frames in np.unique(counts).tolist():
    media = np.flatnonzero(counts == frames)
    places = first[media][:, None] + np.arange(frames)
    rows, look = np.unique(
      np.concatenate([low[places], high[places]], axis=1), axis=0, return_inverse=True
    )
    found[frames] = Table(Look(rows[:, :frames], rows[:, frames:]), media, look.reshape(-1))
  return found


def pairs(table: Table, bits: int) -> Near:
  """Different looks of one table that are near, left < right; see `across`."""
  return _checked(table, table, _candidates(table, None, bits), bits)


def across(left: Table, right: Table, bits: int) -> Near:
  """Looks of two tables that are near or the same: on average over their frames the low hashes
  differ in at most `bits` bits, the high ones in at most twice as many."""
  return _checked(left, right, _candidates(left, right, bits), bits)


def _candidates(
  left: Table, right: Table | None, bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Pairs with a near frame at the same place: a mean of `bits` has a frame of at most `bits`."""
  for frame in range(left.hashes.low.shape[1]):
    here = _Groups(left.hashes.low[:, frame])
    if right is not None:
      there = _Groups(right.hashes.low[:, frame])
      yield _members(here, there, *hamming.across(here.values, there.values, bits))
      continue
    i, j = hamming.pairs(here.values, bits)
    same = np.flatnonzero(here.sizes > 1)
    a, b = _members(here, here, np.concatenate([i, same]), np.concatenate([j, same]))
    yield np.minimum(a, b)[a != b], np.maximum(a, b)[a != b]


class _Groups:
  """Looks by one hash.  values: uint64, different and not 0; sizes: looks of each."""

  def __init__(self, hashes: np.ndarray):
    has = np.flatnonzero(hashes)
    self.values, self.starts, self.sizes = np.unique(
      np.sort(hashes[has]), return_index=True, return_counts=True
    )
    self.order = has[np.argsort(hashes[has], kind="stable")]


def _members(
  left: _Groups, right: _Groups, i: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """All looks of groups i with all of groups j, but for groups that crowd."""
  few = (left.sizes[i] <= _CROWD) & (right.sizes[j] <= _CROWD)
  i, j = i[few], j[few]
  counts = left.sizes[i] * right.sizes[j]
  number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
  wide = np.repeat(right.sizes[j], counts)
  a = np.repeat(left.starts[i], counts) + number // np.maximum(wide, 1)
  b = np.repeat(right.starts[j], counts) + number % np.maximum(wide, 1)
  return left.order[a], right.order[b]


def _checked(
  left: Table, right: Table, found: Iterator[tuple[np.ndarray, np.ndarray]], bits: int
) -> Near:
  """Candidates whose whole looks are near, each once."""
  width = max(len(right.hashes.low), 1)
  packed = np.unique(np.concatenate([np.zeros(0, np.int64), *(a * width + b for a, b in found)]))
  a, b = np.divmod(packed, width)
  low, high = picture_hash.distances(_rows(left.hashes, a), _rows(right.hashes, b))
  near = (low <= bits) & (high <= 2 * bits)
  return Near(a[near], b[near], low[near])


def _rows(hashes: Look, index: np.ndarray) -> Look:
  return Look(hashes.low[index], hashes.high[index])
