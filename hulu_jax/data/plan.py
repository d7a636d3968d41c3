"""Which records go into which row of which step: a pure function of lengths, on every host alike.

Every row of a step costs its static shape on every rank, so balance is a matter of filling rows.  A
record's home is the first shape that can hold it; a step is made for the last home with records for
all its rows, and records of earlier homes fill what is left.
"""

from collections.abc import Callable, Sequence
import sys
from typing import Any, NamedTuple

import numpy as np

from hulu_jax.data.lengths import Length
from hulu_jax.data.rows import Row
from hulu_jax.data.rows import refusal
from hulu_jax.data.schema import StepShape

# Records read between two looks at what is due.
_CHUNK = 16
# Part of a later home's records that no row needs: rows are chosen, not scraped together.
_SPARE = 0.15


class Step(NamedTuple):
  """shape: number of the step shape; rows: positions in the mixture, per row."""

  shape: int
  rows: tuple[tuple[int, ...], ...]


class Planner:
  """Steps, one after the other, from a stream of lengths.

  A record that fits no shape is refused.  Nothing waits for ever: every row begins
  with the oldest record of its step's home, and a home whose oldest record has waited for
  `patience` others is due, full or not.
  """

  def __init__(
    self,
    read: Callable[[int], Length | None],
    shapes: Sequence[StepShape],
    lookahead: int,
    patience: int,
    refuse: Callable[[int, str], None],
    end: int = sys.maxsize,
  ):
    """read: position in the mixture -> its length, None for a record that cannot be used; called
    once each, in order, and again for those that wait by `set_state`.  shapes: the lightest first,
    with the same number of rows.  lookahead: records that rows are chosen from.  refuse: is told
    the position of a record that fits no shape, and why.  end: positions in the mixture; when all
    are read, the last steps are made of what waits, and then there are no more.

    Raises:
      ValueError: numbers that cannot be meant, or shapes with different numbers of rows.
    """
    if lookahead < 1 or patience < lookahead:
      raise ValueError(f"lookahead {lookahead} and patience {patience}; expected 1 or more, rising")
    if len({s.rows for s in shapes}) != 1:
      raise ValueError(f"shapes of {[s.rows for s in shapes]} rows; expected one number")
    self._length, self._refuse, self._end = read, refuse, end
    self._shapes, self._lookahead, self._patience = tuple(shapes), lookahead, patience
    self._merges = sorted({g.merge for s in shapes for g in s.groups})
    whole = [_room(Row(s), s, self._merges) for s in shapes]
    self._scale = 1 / np.maximum(whole, 1)
    self._weights = (self._scale**2).astype(np.float32)
    self._waiting = [_Waiting(self._scale.shape[1]) for _ in shapes]
    self._read = 0
    self._refused = 0  # in a row, the last of them read last

  def __next__(self) -> Step:
    while (home := self._due()) is None and self._read < self._end:
      for _ in range(min(_CHUNK, self._end - self._read)):
        self._read_one()
    if home is None and (home := self._last()) is None:
      raise StopIteration
    for waiting in self._waiting:
      waiting.settle()
    rows = tuple(self._fill(home) for _ in range(self._shapes[home].rows))
    for waiting in self._waiting:
      waiting.forget_taken()
    return Step(home, rows)

  def get_state(self) -> dict[str, Any]:
    """Plain numbers: where the mixture was read to, and who waits."""
    return {
      "read": self._read,
      "waiting": [w.positions.tolist() for w in self._waiting],
    }

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on from `get_state`.  Raises ValueError if a waiting record can no longer be read."""
    self._read = state["read"]
    self._waiting = [_Waiting(self._scale.shape[1]) for _ in self._shapes]
    for home, positions in enumerate(state["waiting"]):
      for position in positions:
        length = self._length(position)
        if length is None:
          raise ValueError(f"record {position} of the mixture waited and can no longer be read")
        self._wait(home, position, length)

  def _read_one(self) -> None:
    position = self._read
    self._read += 1
    length = self._length(position)
    if length is None:
      return
    home = self._home(length)
    if home is None:
      reason = refusal(length, self._shapes[-1]) or "fits no shape"
      self._refuse(position, reason)
      self._refused += 1
      if self._refused >= self._patience and self._last() is None:
        raise ValueError(
          f"{self._refused} records in a row fit no step shape, the last because of {reason}: make "
          "one of `shapes` larger, or let records be cut (data.cut)"
        )
    else:
      self._refused = 0
      self._wait(home, position, length)

  def _wait(self, home: int, position: int, length: Length) -> None:
    self._waiting[home].add(position, length, _needs(length, self._merges))

  def _home(self, length: Length) -> int | None:
    fits = (i for i, shape in enumerate(self._shapes) if refusal(length, shape) is None)
    return next(fits, None)

  def _due(self) -> int | None:
    """The last home that can fill its rows, or whose oldest record waited too long."""
    for home in range(len(self._shapes) - 1, -1, -1):
      waiting = self._waiting[home]
      if not len(waiting):
        continue
      steps = (waiting.total * self._scale[home]).max() / self._shapes[home].rows
      spare = self._lookahead if home == 0 else _SPARE * len(waiting)
      if steps > 1 and len(waiting) * (1 - 1 / steps) >= spare:
        return home
      if self._read - waiting.oldest > self._patience:
        return home
    return None

  def _last(self) -> int | None:
    """The last home where a record waits; its steps take the earlier homes' too."""
    homes = (home for home in reversed(range(len(self._shapes))) if len(self._waiting[home]))
    return next(homes, None)

  def _fill(self, home: int) -> tuple[int, ...]:
    """One row: the home's oldest record, then whatever fits best until nothing does."""
    heads = [w.head(self._lookahead) for w in self._waiting[: home + 1]]
    origin = np.concatenate([np.full(len(h), i) for i, h in enumerate(heads)])
    index = np.concatenate(heads)
    if not len(index):
      return ()
    needs = np.concatenate([w.needs[h] for w, h in zip(self._waiting, heads, strict=False)])
    row, taken = Row(self._shapes[home]), []
    able = np.ones(len(index), bool)
    # The home's records come last in `index`: the first of them is the oldest.
    pick = len(index) - len(heads[home]) if len(heads[home]) else 0
    while pick >= 0:
      able[pick] = False
      waiting = self._waiting[origin[pick]]
      if row.add(waiting.lengths[index[pick]]) is not None:
        taken.append(waiting.take(index[pick]))
      room = _room(row, self._shapes[home], self._merges)
      pick = _best(needs, able, room, self._weights[home])
    return tuple(taken)


class _Waiting:
  """Records of one home that no step has taken yet, the oldest first.

  needs: float32 [records, dimensions], as `_needs` counts them.
  """

  def __init__(self, dimensions: int) -> None:
    self.lengths: list[Length] = []
    self.positions = np.zeros(0, np.int64)
    self.needs = np.zeros((0, dimensions), np.float32)
    self._waits = np.zeros(0, bool)
    self._new: list[tuple[int, np.ndarray]] = []
    self._total = np.zeros(dimensions)

  def __len__(self) -> int:
    return len(self.lengths)

  @property
  def total(self) -> np.ndarray:
    """What all of them need together."""
    return self._total

  @property
  def oldest(self) -> int:
    """Position of the record that waits longest."""
    return int(self.positions[0]) if len(self.positions) else self._new[0][0]

  def add(self, position: int, length: Length, needs: np.ndarray) -> None:
    self.lengths.append(length)
    self._new.append((position, needs))
    self._total += needs

  def settle(self) -> None:
    """Stacks what was added, once before a step."""
    if self._new:
      positions, needs = zip(*self._new, strict=True)
      self.positions = np.concatenate([self.positions, np.array(positions, np.int64)])
      self.needs = np.concatenate([self.needs, np.stack(needs)])
      self._new = []
    self._waits = np.ones(len(self.positions), bool)

  def head(self, count: int) -> np.ndarray:
    """Indices of the oldest records that still wait."""
    return np.flatnonzero(self._waits)[:count]

  def take(self, index: int) -> int:
    """Marks a record as taken; its position."""
    self._waits[index] = False
    self._total -= self.needs[index]
    return int(self.positions[index])

  def forget_taken(self) -> None:
    """Drops what a step took, once after it."""
    self.lengths = [self.lengths[i] for i in np.flatnonzero(self._waits)]
    self.positions, self.needs = self.positions[self._waits], self.needs[self._waits]


def _best(needs: np.ndarray, able: np.ndarray, room: np.ndarray, weights: np.ndarray) -> int:
  """Index of the fitting record whose needs point along the room that is left; -1 if none fits.

  The dot-product rule of vector bin packing (Panigrahy et al., "Heuristics for Vector Bin Packing",
  2011), on needs and room as fractions of a whole row.
  """
  fits = np.logical_and.reduce(needs <= room, axis=1) & able
  score = np.where(fits, needs @ (room * weights), -1)
  best = int(score.argmax())
  return best if fits[best] else -1


def _needs(length: Length, merges: Sequence[int]) -> np.ndarray:
  """float32: tokens, supervised, visual; then colour patches and all patches, per merge size.

  Grey frames may lie in colour slots, so what fits is colour <= colour room, all <= all room.
  """
  counts = [length.tokens, length.supervised, length.visual] + [0] * (2 * len(merges))
  for m in length.media:
    place = 3 + 2 * merges.index(m.merge)
    counts[place] += m.frames * m.patches * (m.channels > 1)
    counts[place + 1] += m.frames * m.patches
  return np.array(counts, np.float32)


def _room(row: Row, shape: StepShape, merges: Sequence[int]) -> np.ndarray:
  """float32: what is left in a row, in the order of `_needs`."""
  counts = [row.tokens, row.supervised, row.visual] + [0] * (2 * len(merges))
  for left, g in zip(row.patches, shape.groups, strict=True):
    place = 3 + 2 * merges.index(g.merge)
    counts[place] += left * (g.channels > 1)
    counts[place + 1] += left
  return np.array(counts, np.float32)
