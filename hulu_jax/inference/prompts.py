"""Conversations of unlike length and media to one batch: a prompt per row, sizes in few steps."""

from collections.abc import Sequence

from hulu_jax.data import lengths
from hulu_jax.data import packing
from hulu_jax.data.lengths import Medium
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
    media = [m for v in prompt.visuals for m in lengths.encoded(v)]
    for kind in {(m.channels, m.merge) for m in media}:
      own = [m for m in media if (m.channels, m.merge) == kind]
      slots, size = wanted.get(kind, (0, 0))
      needed = sum(m.frames for m in own)
      if any(v.pruned for v in prompt.visuals):
        needed = min(needed, _slots(own, bucket(max(m.patches for m in own))))
      wanted[kind] = (max(slots, needed), max([size, *(m.patches for m in own)]))
  groups = tuple(
    Group(bucket(slots), -(-bucket(size) // merge**2) * merge**2, channels, merge)
    for (channels, merge), (slots, size) in sorted(wanted.items())
  )
  return StepShape(
    rows=rows,
    tokens=bucket(max(len(p.tokens) for p in prompts)),
    supervised=bucket(max(1, *(lengths.of(p).supervised for p in prompts))),
    visual=bucket(max(1, *(len(p.visual_positions) for p in prompts))) if groups else 0,
    groups=groups,
  )


def _slots(media: Sequence[Medium], size: int) -> int:
  """Slots of `size` patches that are enough for a row's frames, whatever their order: first
  fit leaves no two slots that together fill less than one, and a frame is whole in one slot."""
  return 2 * -(-sum(m.frames * m.patches for m in media) // size) + 1


def to_batch(prompts: Sequence[Example], rows: int) -> tuple[Batch, StepShape]:
  """Row i holds prompt i; rows past the last prompt are padding."""
  shape = shape_for(prompts, rows)
  return fill(prompts, shape), shape


def fill(prompts: Sequence[Example], shape: StepShape) -> Batch:
  """A batch of a shape of `shape_for`: row i holds prompt i; rows past the last are padding.

  Raises:
    ValueError: a prompt that the shape does not hold.
  """
  one = shape._replace(rows=1)
  batches = []
  for prompt in prompts:
    packer = packing.Packer(one)
    if not packer.add(prompt):
      raise ValueError(f"a prompt does not fit its own shape: {packing.refusal(prompt, one)}")
    batches.append(packer.batch())
  batches += [packing.empty_batch(one)] * (shape.rows - len(prompts))
  return packing.concatenate(batches)
