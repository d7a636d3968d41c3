"""What a mixture is made of, per record and per step shape, for `hulu data stats`."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import time
from typing import Any, NamedTuple

import einops
import numpy as np

from hulu_jax.data import compression as compression_lib
from hulu_jax.data import lengths as lengths_lib
from hulu_jax.data.compression import Compression
from hulu_jax.data.examples import Builder
from hulu_jax.data.lengths import Length
from hulu_jax.data.schema import MODALITIES
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import StepShape
from hulu_jax.data.schema import Visual
from hulu_jax.media.errors import BadRecord

# What needs no threshold; `fixed` is counted where the policy states its own.
_MODES = ("off", "hulumed", "videollama3")


class Seen(NamedTuple):
  """One record that was built.

  whole: visual tokens by kind, before compression; kept: by (kind, mode), after; seconds: CPU time
  to build it.
  """

  length: Length
  whole: Mapping[str, int]
  kept: Mapping[tuple[str, str], int]
  seconds: float


class Numbered:
  """A dataset whose records come with their number, for `Measuring`."""

  def __init__(self, dataset: Any):
    self._dataset, self.files = dataset, dataset.files

  @property
  def lengths(self) -> Any:
    """Those of the dataset, which say the kinds of its records."""
    return self._dataset.lengths

  def __len__(self) -> int:
    return len(self._dataset)

  def __getitem__(self, index: int) -> tuple[int, Any]:
    return index, self._dataset[index]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring(Builder):
  """A builder that notes what it built.

  seen: by number of the record; a bad one is not noted.  extra: seconds that counting took, one
  entry a record; both are filled from several threads.
  """

  seen: dict[int, Seen] = dataclasses.field(default_factory=dict)
  extra: list[float] = dataclasses.field(default_factory=list)

  def __call__(self, record: Any) -> Example | BadRecord:
    """record: (number, record), as `Numbered` gives it."""
    number, own = record
    start = time.thread_time()
    example = super().__call__(own)
    built = time.thread_time()
    if isinstance(example, Example):
      self.seen[number] = self._counted(example, built - start)
      self.extra.append(time.thread_time() - built)
    return example

  def _counted(self, example: Example, seconds: float) -> Seen:
    whole: dict[str, int] = {}
    kept: dict[tuple[str, str], int] = {}
    for visual in example.visuals:
      whole[visual.kind] = whole.get(visual.kind, 0) + visual.keep.size
      for mode, count in kept_by_mode(visual, self.policy.compression).items():
        kept[visual.kind, mode] = kept.get((visual.kind, mode), 0) + count
    return Seen(lengths_lib.of(example), whole, kept, seconds)


def kept_by_mode(visual: Visual, used: Compression) -> dict[str, int]:
  """Visual tokens that each compression mode would keep; used: that of the policy, already done."""
  found = {used.mode: int(np.count_nonzero(visual.keep))}
  for mode in _MODES:
    if mode in found:
      continue
    if mode == "off" or visual.kind == "image":
      found[mode] = visual.keep.size
      continue
    tokens = einops.rearrange(visual.patches, "t (n m) v -> t n (m v)", m=visual.merge**2)
    keep = compression_lib.keep_mask(tokens, Compression(mode=mode))
    found[mode] = int(np.count_nonzero(keep))
  return found


def dataset_row(seen: Iterable[Seen], used: str) -> dict[str, Any]:
  """Sums over records of one dataset.  used: mode of compression to count visual tokens by."""
  records = list(seen)
  tokens = dict.fromkeys(MODALITIES, 0)
  whole: dict[str, int] = {}
  kept: dict[str, dict[str, int]] = {}
  for one in records:
    tokens["text"] += one.length.tokens - one.length.visual
    for kind, count in one.whole.items():
      whole[kind] = whole.get(kind, 0) + count
    for (kind, mode), count in one.kept.items():
      by_mode = kept.setdefault(kind, {})
      by_mode[mode] = by_mode.get(mode, 0) + count
  tokens |= {kind: by_mode[used] for kind, by_mode in kept.items()}
  return {
    "samples": len(records),
    "tokens": tokens,
    "visual_tokens_before_compression": whole,
    "kept": {kind: {m: n / whole[kind] for m, n in kept[kind].items()} for kind in kept},
    "patches": sum(m.frames * m.patches for one in records for m in one.length.media),
    "supervised": sum(one.length.supervised for one in records),
    "build_seconds": sum(one.seconds for one in records),
  }


class Cost(NamedTuple):
  """FLOPs of the linear layers, forward, for one token in the decoder, one supervised position in
  its head, one patch in the encoder, one visual token in the projector."""

  token: float
  supervised: float
  patch: float
  visual: float


def used(batch: Batch, shape: StepShape) -> np.ndarray:
  """float64 [4]: what a batch holds, in the order of `Cost`."""
  pooled = sum(g.pooled for g in shape.groups)
  return np.array(
    [
      np.count_nonzero(batch.segments),
      np.count_nonzero(batch.loss_index < shape.tokens),
      sum(np.count_nonzero(s) for s in batch.patch_segment),
      np.count_nonzero(batch.visual_source < pooled),
    ],
    float,
  )


def paid(shape: StepShape) -> np.ndarray:
  """float64 [4]: what every batch of the shape costs room for, in the order of `Cost`."""
  patches = sum(g.slots * g.size for g in shape.groups)
  visual = shape.visual if shape.groups else 0
  return shape.rows * np.array([shape.tokens, shape.supervised, patches, visual], float)


def shape_row(shape: StepShape, batches: Sequence[np.ndarray], cost: Cost) -> dict[str, Any]:
  """What the steps of one shape held.  batches: `used` of each."""
  room_of = paid(shape)
  fill = np.array(batches).reshape(-1, 4).mean(axis=0) / np.maximum(room_of, 1) if batches else None
  flops = float(room_of @ np.array(cost))
  row = {"steps": len(batches), "rows": shape.rows, "flops": flops}
  if fill is None:
    return row
  names = ("tokens", "supervised", "patches", "visual")
  useful = float(np.array(batches).mean(axis=0) @ np.array(cost)) / flops
  return row | {"fill": dict(zip(names, fill.tolist(), strict=True)), "useful_over_paid": useful}
