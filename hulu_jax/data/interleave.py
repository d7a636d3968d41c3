"""Whose turn it is at a position: parts take turns by weight, and leave when they are used up."""

import bisect
from collections.abc import Sequence
import sys
from typing import NamedTuple

# What the smallest weight becomes as a whole number: shares are right to 1 %.
_SMALLEST = 100


class _Phase(NamedTuple):
  """A stretch in which no part leaves.

  start: its first position; before: turns that each part had by then; proportions: whole numbers,
  0 for a part that has left.
  """

  start: int
  before: tuple[int, ...]
  proportions: tuple[int, ...]


class Turns:
  """Position -> (part, turns that the part had before), a pure function.

  Parts that never end come in the order of `grain.MapDataset.mix`.  When a part is used up it
  leaves, and the others go on by their own weights; when all are, the turns end.
  """

  def __init__(self, weights: Sequence[float], totals: Sequence[int | None]):
    """weights: above 0; totals: turns that each part has, 1 or more, None for no end."""
    scale = _SMALLEST / min(weights)
    proportions = tuple(int(weight * scale) for weight in weights)
    start, before = 0, (0,) * len(proportions)
    self._phases = [_Phase(start, before, proportions)]
    while (length := _until_one_leaves(proportions, before, totals)) is not None:
      start += length
      had = _counts(length, proportions)
      before = tuple(b + h for b, h in zip(before, had, strict=True))
      proportions = tuple(
        0 if b == total else p for p, b, total in zip(proportions, before, totals, strict=True)
      )
      self._phases.append(_Phase(start, before, proportions))
    self._size = sys.maxsize if any(proportions) else start
    self._starts = [phase.start for phase in self._phases]

  def __len__(self) -> int:
    """Turns in all; `sys.maxsize` for no end."""
    return self._size

  def __getitem__(self, position: int) -> tuple[int, int]:
    if not 0 <= position < self._size:
      raise IndexError(f"position {position} of {self._size}")
    start, before, proportions = self._phases[bisect.bisect(self._starts, position) - 1]
    now, then, weight = position - start, position - start + 1, sum(proportions)
    for part, proportion in enumerate(proportions):
      if not proportion:
        continue
      rest, rest_then = _others(now, proportion, weight), _others(then, proportion, weight)
      if rest == rest_then:
        return part, before[part] + now - rest
      now, then, weight = rest, rest_then, weight - proportion
    raise AssertionError(f"nobody's turn at {position} of {proportions}")


def _others(positions: int, proportion: int, weight: int) -> int:
  """How many of these positions go to the parts behind one of this proportion."""
  return positions * (weight - proportion) // weight


def _counts(positions: int, proportions: Sequence[int]) -> list[int]:
  """How many of a phase's first positions go to each part."""
  counts, weight = [], sum(proportions)
  for proportion in proportions:
    rest = _others(positions, proportion, weight) if proportion else positions
    counts.append(positions - rest)
    positions, weight = rest, weight - proportion
  return counts


def _until_one_leaves(
  proportions: Sequence[int], before: Sequence[int], totals: Sequence[int | None]
) -> int | None:
  """Positions until the first part is used up; None if none will be."""
  ends = [
    _until(part, total - had, proportions)
    for part, (had, total) in enumerate(zip(before, totals, strict=True))
    if total is not None and total > had
  ]
  return min(ends, default=None)


def _until(part: int, turns: int, proportions: Sequence[int]) -> int:
  """Positions of a phase until this part had so many turns."""

  def had(positions: int) -> int:
    return _counts(positions, proportions)[part]

  return bisect.bisect_left(range(sys.maxsize), turns, key=had)
