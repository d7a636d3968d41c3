"""Examples to fixed-shape batches: rows under the budgets of a step shape, written out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hulu_jax.data import lengths
from hulu_jax.data import rows
from hulu_jax.data import vision
from hulu_jax.data.rows import Places
from hulu_jax.data.rows import Row
from hulu_jax.data.rows import Run
from hulu_jax.data.schema import PATCH
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.data.schema import Visual


class Packer:
  """Fills one batch.  `add` until it refuses, then `batch`.

  Segments are isolated: attention, positions and targets never cross from one example to another.
  """

  def __init__(self, shape: StepShape):
    self._shape = shape
    self._rows = [Row(shape) for _ in range(shape.rows)]
    self._held: list[list[tuple[Example, Places]]] = [[] for _ in range(shape.rows)]

  @property
  def examples(self) -> list[Example]:
    """What has been packed so far, row by row."""
    return [example for held in self._held for example, _ in held]

  def add(self, example: Example) -> bool:
    """Puts the example into the first row that has room; False if none has."""
    return any(self.add_to(r, example) for r in range(len(self._rows)))

  def add_to(self, row: int, example: Example) -> bool:
    """Puts the example into this row; False if it has no room."""
    places = self._rows[row].add(lengths.of(example))
    if places is None:
      return False
    self._held[row].append((example, places))
    return True

  def batch(self) -> Batch:
    """The batch as numpy arrays, padded."""
    batch = empty_batch(self._shape)
    for r, held in enumerate(self._held):
      _write_row(batch, r, held, self._shape)
    return batch


def refusal(example: Example, shape: StepShape) -> str | None:
  """Why an empty row of this shape cannot hold the example, or None if it can."""
  return rows.refusal(lengths.of(example), shape)


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
    loss_modality=np.zeros((shape.rows, shape.supervised), np.int32),
    patches=tuple(
      np.zeros((shape.rows, g.slots, g.size, PATCH**2 * g.channels), np.uint8) for g in groups
    ),
    patch_segment=tuple(np.zeros((shape.rows, g.slots, g.size), np.int32) for g in groups),
    patch_hw=tuple(np.zeros((shape.rows, g.slots, g.size, 2), np.int16) for g in groups),
    visual_source=np.full((shape.rows, shape.visual), sum(g.pooled for g in groups), np.int32),
    visual_slot=np.full(tokens, shape.visual, np.int32),
  )


def _write_row(
  batch: Batch, r: int, held: Sequence[tuple[Example, Places]], shape: StepShape
) -> None:
  start, loss = 0, 0
  pooled, tokens = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
  for segment, (example, places) in enumerate(held, start=1):
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
    batch.loss_modality[r, loss : loss + len(supervised)] = example.modality
    ahead = iter(places)
    for visual in example.visuals:
      runs = [run for _ in lengths.encoded(visual) for run in next(ahead)]
      pooled += _write_visual(batch, r, visual, runs, shape.groups)
    tokens.append(start + example.visual_positions)
    start += n
    loss += len(supervised)
  source = np.concatenate(pooled)
  order = np.argsort(source)
  batch.visual_source[r, : len(order)] = source[order]
  batch.visual_slot[r, np.concatenate(tokens)[order]] = np.arange(len(order))


def _write_visual(
  batch: Batch, r: int, visual: Visual, runs: Sequence[Run], groups: Sequence[Group]
) -> list[np.ndarray]:
  """Writes patches; returns, per run, the pooled indices of the kept visual tokens as read."""
  offsets = np.cumsum([0, *(g.pooled for g in groups)])
  hw = vision.patch_places(visual.grid, visual.merge)
  block = visual.merge**2
  pooled: list[np.ndarray] = []
  first = 0
  for run in runs:
    g, frames = groups[run.group], slice(first, first + run.frames)
    keep = visual.keep[frames]
    # Which patches the encoder sees: [frames, P].
    seen = np.repeat(keep if visual.pruned else np.ones_like(keep), block, axis=1)
    frame, patch = np.nonzero(seen)
    here = slice(run.start, run.start + len(frame))
    # A patch is [channel][row][column]: grey in a colour slot is three times itself.
    slot = batch.patches[run.group][r, run.slot, here]
    patches = visual.patches[frames][seen][:, None]
    slot.reshape(len(slot), g.channels // visual.channels, -1)[...] = patches
    batch.patch_segment[run.group][r, run.slot, here] = run.number + frame
    batch.patch_hw[run.group][r, run.slot, here] = hw[patch]
    begin = (run.slot * g.size + run.start) // block
    pooled.append(offsets[run.group] + begin + np.flatnonzero(keep[seen[:, ::block]]))
    first += run.frames
  return pooled


def concatenate(batches: Sequence[Batch]) -> Batch:
  """Batches of one shape, row after row."""

  def join(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], tuple):
      return tuple(join(group) for group in zip(*parts, strict=True))
    return np.concatenate(parts)

  return Batch(*(join(fields) for fields in zip(*batches, strict=True)))
