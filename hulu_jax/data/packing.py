"""Examples to fixed-shape batches: first fit into rows under the budgets of a step shape."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from hulu_jax.data import vision
from hulu_jax.data.schema import PATCH
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.data.schema import Visual


@dataclasses.dataclass
class _Slot:
  """Frames in one slot, and the patches they take."""

  used: int = 0
  frames: int = 0


@dataclasses.dataclass(frozen=True)
class _Place:
  """Where one frame lies: group, slot, first patch in the slot, number inside the slot (from 1)."""

  group: int
  slot: int
  start: int
  number: int


@dataclasses.dataclass
class _Row:
  """What one row already holds."""

  slots: list[list[_Slot]]
  examples: list[tuple[Example, list[_Place]]] = dataclasses.field(default_factory=list)
  tokens: int = 0
  supervised: int = 0
  visual: int = 0


class Packer:
  """Fills one batch.  `add` until it refuses, then `batch`.

  Segments are isolated: attention, positions and targets never cross from one example to another.
  """

  def __init__(self, shape: StepShape):
    self._shape = shape
    self._rows = [_empty_row(shape) for _ in range(shape.rows)]

  @property
  def examples(self) -> list[Example]:
    """What has been packed so far, row by row."""
    return [example for row in self._rows for example, _ in row.examples]

  def add(self, example: Example) -> bool:
    """Puts the example into the first row that has room; False if none has."""
    return any(self._add_to(row, example) for row in self._rows)

  def _add_to(self, row: _Row, example: Example) -> bool:
    tokens = row.tokens + len(example.tokens)
    supervised = row.supervised + _supervised(example)
    visual = row.visual + len(example.visual_positions)
    s = self._shape
    if tokens > s.tokens or supervised > s.supervised or visual > s.visual:
      return False
    slots = [[dataclasses.replace(slot) for slot in group] for group in row.slots]
    places = _place_frames(example.visuals, s.groups, slots)
    if places is None:
      return False
    row.slots, row.tokens, row.supervised, row.visual = slots, tokens, supervised, visual
    row.examples.append((example, places))
    return True

  def batch(self) -> Batch:
    """The batch as numpy arrays, padded."""
    batch = empty_batch(self._shape)
    for r, row in enumerate(self._rows):
      _write_row(batch, r, row, self._shape)
    return batch


def refusal(example: Example, shape: StepShape) -> str | None:
  """Why an empty row of this shape cannot hold the example, or None if it can."""
  row = _empty_row(shape)
  if len(example.tokens) > shape.tokens:
    return f"{len(example.tokens)} tokens, the shape holds {shape.tokens}"
  if _supervised(example) > shape.supervised:
    return f"{_supervised(example)} supervised positions, the shape holds {shape.supervised}"
  if len(example.visual_positions) > shape.visual:
    return f"{len(example.visual_positions)} visual tokens, the shape holds {shape.visual}"
  if _place_frames(example.visuals, shape.groups, row.slots) is None:
    entries = [(v.patches.shape[:2], v.patches.shape[2], v.merge) for v in example.visuals]
    return f"entries of ((frames, patches), bytes, merge) {entries} do not fit {shape.groups}"
  return None


def empty_batch(shape: StepShape) -> Batch:
  """A batch of padding: what every row looks like where nothing was packed."""
  tokens, groups = (shape.rows, shape.tokens), shape.groups
  ints = {
    name: np.zeros(tokens, np.int32)
    for name in ("tokens", "targets", "positions", "segments", "source")
  }
  return Batch(
    **ints,
    loss_index=np.full((shape.rows, shape.supervised), shape.tokens, np.int32),
    loss_weights=np.zeros((shape.rows, shape.supervised), np.float32),
    patches=tuple(
      np.zeros((shape.rows, g.slots, g.size, PATCH**2 * g.channels), np.uint8) for g in groups
    ),
    patch_segment=tuple(np.zeros((shape.rows, g.slots, g.size), np.int32) for g in groups),
    patch_hw=tuple(np.zeros((shape.rows, g.slots, g.size, 2), np.int16) for g in groups),
    visual_source=np.full((shape.rows, shape.visual), sum(g.pooled for g in groups), np.int32),
    visual_slot=np.full(tokens, shape.visual, np.int32),
  )


def _empty_row(shape: StepShape) -> _Row:
  return _Row(slots=[[_Slot() for _ in range(g.slots)] for g in shape.groups])


def _supervised(example: Example) -> int:
  return int(np.count_nonzero(example.weights[1:]))


def _place_frames(
  visuals: Sequence[Visual], groups: Sequence[Group], slots: list[list[_Slot]]
) -> list[_Place] | None:
  """First fit of every frame into the smallest fitting groups; None if one is left over."""
  places = []
  for visual in visuals:
    fitting = [
      i
      for i, g in enumerate(groups)
      if (g.channels, g.merge) == (visual.channels, visual.merge)
      and g.size >= visual.patches.shape[1]
    ]
    fitting.sort(key=lambda i: groups[i].size)
    for _ in range(len(visual.patches)):
      place = _place_frame(visual.patches.shape[1], fitting, groups, slots)
      if place is None:
        return None
      places.append(place)
  return places


def _place_frame(
  patches: int, fitting: Sequence[int], groups: Sequence[Group], slots: list[list[_Slot]]
) -> _Place | None:
  for g in fitting:
    for s, slot in enumerate(slots[g]):
      if slot.used + patches <= groups[g].size:
        place = _Place(group=g, slot=s, start=slot.used, number=slot.frames + 1)
        slot.used += patches
        slot.frames += 1
        return place
  return None


def _write_row(batch: Batch, r: int, row: _Row, shape: StepShape) -> None:
  start, loss, pooled_of_token = 0, 0, []
  for segment, (example, places) in enumerate(row.examples, start=1):
    n = len(example.tokens)
    here = slice(start, start + n)
    batch.tokens[r, here] = example.tokens
    batch.targets[r, start : start + n - 1] = example.tokens[1:]
    batch.positions[r, here] = np.arange(n)
    batch.segments[r, here] = segment
    batch.source[r, here] = example.source
    supervised = np.flatnonzero(example.weights[1:])
    batch.loss_index[r, loss : loss + len(supervised)] = start + supervised
    batch.loss_weights[r, loss : loss + len(supervised)] = example.weights[1:][supervised]
    pooled = _write_frames(batch, r, example.visuals, places, shape.groups)
    pooled_of_token += list(zip(pooled, start + example.visual_positions, strict=True))
    start += n
    loss += len(supervised)
  for v, (pooled_index, token) in enumerate(sorted(pooled_of_token)):
    batch.visual_source[r, v] = pooled_index
    batch.visual_slot[r, token] = v


def _write_frames(
  batch: Batch, r: int, visuals: Sequence[Visual], places: list[_Place], groups: Sequence[Group]
) -> list[int]:
  """Writes patches; returns the pooled index of each kept visual token, in the example's order."""
  offsets = np.cumsum([0, *(g.pooled for g in groups)])
  pooled: list[int] = []
  remaining = iter(places)
  for visual in visuals:
    hw = vision.patch_places(visual.grid, visual.merge)
    for patches, keep in zip(visual.patches, visual.keep, strict=True):
      p = next(remaining)
      here = slice(p.start, p.start + len(patches))
      batch.patches[p.group][r, p.slot, here] = patches
      batch.patch_segment[p.group][r, p.slot, here] = p.number
      batch.patch_hw[p.group][r, p.slot, here] = hw
      first = (p.slot * groups[p.group].size + p.start) // visual.merge**2
      pooled += (offsets[p.group] + first + np.flatnonzero(keep)).tolist()
  return pooled


def concatenate(batches: Sequence[Batch]) -> Batch:
  """Batches of one shape, row after row."""

  def join(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], tuple):
      return tuple(join(group) for group in zip(*parts, strict=True))
    return np.concatenate(parts)

  return Batch(*(join(fields) for fields in zip(*batches, strict=True)))
