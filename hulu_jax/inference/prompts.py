"""Conversations of unlike length and media to one batch: a prompt per row, sizes in few steps."""

from collections.abc import Sequence

from hulu_jax.data import packing
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape


def bucket(n: int) -> int:
  """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that holds n: few sizes, little padding."""
  size = 1
  while size < n:
    size = size * 3 // 2 if size & (size - 1) == 0 and size > 1 else 1 << size.bit_length()
  return size


def shape_for(prompts: Sequence[Example], rows: int) -> StepShape:
  """A step shape that holds one prompt per row, `rows` of them."""
  wanted: dict[tuple[int, int], tuple[int, int]] = {}
  for prompt in prompts:
    frames: dict[tuple[int, int], int] = {}
    for v in prompt.visuals:
      kind = (v.channels, v.merge)
      frames[kind] = frames.get(kind, 0) + len(v.patches)
      slots, size = wanted.get(kind, (0, 0))
      wanted[kind] = (max(slots, frames[kind]), max(size, v.patches.shape[1]))
  groups = tuple(
    Group(bucket(slots), -(-bucket(size) // merge**2) * merge**2, channels, merge)
    for (channels, merge), (slots, size) in sorted(wanted.items())
  )
  return StepShape(
    rows=rows,
    tokens=bucket(max(len(p.tokens) for p in prompts)),
    supervised=1,
    visual=bucket(max(1, *(len(p.visual_positions) for p in prompts))) if groups else 0,
    groups=groups,
  )


def to_batch(prompts: Sequence[Example], rows: int) -> tuple[Batch, StepShape]:
  """Row i holds prompt i; rows past the last prompt are padding."""
  shape = shape_for(prompts, rows)
  one = shape._replace(rows=1)
  batches = []
  for prompt in prompts:
    packer = packing.Packer(one)
    if not packer.add(prompt):
      raise ValueError(f"a prompt does not fit its own shape: {packing.refusal(prompt, one)}")
    batches.append(packer.batch())
  batches += [packing.empty_batch(one)] * (rows - len(prompts))
  return packing.concatenate(batches), shape
