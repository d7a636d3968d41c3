"""Finds step shapes that suit a mixture: by trying them on its lengths, no device needed."""

from collections.abc import Callable, Sequence
import dataclasses
import itertools
import math

import numpy as np

from hulu_jax.data.lengths import Lengths
from hulu_jax.data.plan import Planner
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape

# Patches of a group, over those it has, that are tried.
_FACTORS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
# What a refused record weighs in waste: no saving is worth one in a thousand.
_LOST = 1000


@dataclasses.dataclass(frozen=True)
class Use:
  """What steps of some shapes hold, over what every rank pays for them.

  steps: per shape.  tokens, patches, flops: useful over paid; flops weighs both by their cost.
  refused: records that fit no shape.
  """

  steps: tuple[int, ...]
  tokens: float
  patches: float
  flops: float
  refused: int


def measure(
  lengths: Lengths,
  shapes: Sequence[StepShape],
  patch_cost: float,
  *,
  lookahead: int,
  patience: int,
  records: int,
) -> Use:
  """Plans about `records` records, the list again and again, and adds up what was used.

  patch_cost: FLOPs of a patch in the encoder over those of a token in the decoder (linear layers).
  """
  refused: set[int] = set()
  size = len(lengths)
  plan = Planner(
    lambda p: lengths[p % size],
    shapes,
    lookahead,
    patience,
    lambda p, reason: refused.add(p % size),
  )
  patches_of = per_record(lengths)
  used, paid, steps, done = np.zeros(2), np.zeros(2), [0] * len(shapes), 0
  while done < records:
    step = next(plan)
    shape = shapes[step.shape]
    steps[step.shape] += 1
    paid += shape.rows * np.array([shape.tokens, _capacity(shape)], float)
    taken = np.array(list(itertools.chain(*step.rows)), np.int64) % size
    used += [lengths.tokens[taken].sum(), patches_of[taken].sum()]
    done += len(taken)
  cost = np.array([1.0, patch_cost])
  tokens, patches = (used / np.maximum(paid, 1)).tolist()
  return Use(tuple(steps), tokens, patches, float(used @ cost / (paid @ cost)), len(refused))


def suggest(
  lengths: Lengths,
  tokens: int,
  rows: int,
  patch_cost: float,
  *,
  lookahead: int,
  patience: int,
  sample: int,
) -> tuple[StepShape, ...]:
  """Up to three shapes of `tokens` tokens a row that waste little on records like these.

  One shape for texts and pictures, one for grey and one for colour stacks of frames (volumes and
  clips), where there are any.  Their patches are found by trying: a few factors around the mean
  demand, each judged by `measure` on `sample` records.
  """
  kinds = _kinds(lengths)
  shapes = [_first_guess(lengths, kinds == k, tokens, rows) for k in np.unique(kinds)]

  def waste(candidate: Sequence[StepShape]) -> float:
    use = measure(
      lengths, candidate, patch_cost, lookahead=lookahead, patience=patience, records=sample
    )
    return (1 - use.flops) + 0.3 * (1 - use.patches) + _LOST * use.refused / len(lengths)

  for _ in range(2):
    for i in range(len(shapes)):
      shapes[i] = _best_factor(shapes, i, waste)
  return tuple(sorted(shapes, key=_capacity))


def _best_factor(
  shapes: Sequence[StepShape], index: int, waste: Callable[[Sequence[StepShape]], float]
) -> StepShape:
  """The shape `index` with each group's patches scaled as suits best, the others as they are."""
  best = shapes[index]
  for g in range(len(best.groups)):
    options = {}
    for factor in _FACTORS:
      groups = list(best.groups)
      groups[g] = _scaled(shapes[index].groups[g], factor)
      shape = best._replace(groups=tuple(groups))
      if shape not in options:
        options[shape] = waste(
          sorted([*shapes[:index], shape, *shapes[index + 1 :]], key=_capacity)
        )
    best = min(options, key=lambda s: options[s])
  return best


def _scaled(group: Group, factor: float) -> Group:
  """The group with `factor` times its patches: other slots, and slots at least as large as now."""
  capacity = group.slots * group.size * factor
  slots = max(1, int(capacity // group.size))
  block = group.merge**2
  size = max(group.size, math.ceil(capacity / slots / block) * block)
  return group._replace(slots=slots, size=size)


def _first_guess(lengths: Lengths, which: np.ndarray, tokens: int, rows: int) -> StepShape:
  """Slots for the mean demand of a row filled with such records, and for the largest of them."""
  media = lengths.media[np.repeat(which, np.diff(lengths.first))]
  demand = lengths.tokens[which].sum()
  groups = []
  for channels, merge in sorted({(int(c), int(m)) for c, m in media[:, 2:]}):
    own = media[(media[:, 2] == channels) & (media[:, 3] == merge)]
    patches = own[:, 0].astype(np.int64) * own[:, 1]
    size = _slot(own)
    whole = -(-own[:, 0] // (size // own[:, 1])).max()  # slots of the medium that needs most
    slots = max(round(patches.sum() / max(demand, 1) * tokens / size), int(whole))
    groups.append(Group(slots, size, channels, merge))
  supervised = 1.5 * lengths.supervised.sum() / lengths.tokens.sum() * tokens
  supervised = int(max(min(tokens, supervised), lengths.supervised.max()))
  return StepShape(rows, tokens, supervised, tokens, tuple(groups))


def _slot(media: np.ndarray) -> int:
  """Patches of a slot: the largest picture, or four of the largest frames of a stack."""
  largest, merge = int(media[:, 1].max()), int(media[0, 3])
  frames = 4 if media[:, 0].max() > 1 else 1
  return math.ceil(frames * largest / merge**2) * merge**2


def _kinds(lengths: Lengths) -> np.ndarray:
  """Per record: 0 texts and pictures, 1 grey stacks, 2 any colour stack."""
  kinds = np.zeros(len(lengths), np.int64)
  owner = np.repeat(np.arange(len(lengths)), np.diff(lengths.first))
  stack = lengths.media[:, 0] > 1
  np.maximum.at(kinds, owner[stack], 1 + (lengths.media[stack, 2] > 1))
  return kinds


def per_record(lengths: Lengths) -> np.ndarray:
  """Patches per record."""
  ends = np.cumsum(np.concatenate([[0], lengths.media[:, 0] * lengths.media[:, 1]]))
  return ends[lengths.first[1:]] - ends[lengths.first[:-1]]


def _capacity(shape: StepShape) -> int:
  return sum(g.slots * g.size for g in shape.groups)
