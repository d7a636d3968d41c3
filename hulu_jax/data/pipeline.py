"""A mixture of datasets to a checkpointable iterator of packed batches.

Order: mix, take this shard, build examples in threads, pack, prefetch.  The state is a few numbers:
how far the mixture was read, and which examples wait for the next batch.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from absl import flags
import grain
import numpy as np

from hulu_jax.core import plugins
from hulu_jax.data import packing
from hulu_jax.data.examples import Builder
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import StepShape
from hulu_jax.media.errors import BadRecord

# What an entry of a mixture says beside its dataset's own fields: which file of data/datasets/, how
# often, in random order or not, and what its metrics are called.
_MIXING = ("name", "weight", "shuffle", "label")


@dataclasses.dataclass(frozen=True)
class Packed:
  """A batch, and what only the host wants to know of it.

  info: `fill/tokens`, `fill/patches` (fractions), `kept` (visual tokens kept over all), `skipped`
    (bad records since the start of the run).
  """

  batch: Batch
  info: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """lookahead: examples that may wait for a fitting row; threads: that build examples; prefetch:
  batches made ahead; max_bad: bad records that are skipped before the run stops.
  """

  lookahead: int
  threads: int
  prefetch: int
  max_bad: int
  seed: int

  def __post_init__(self) -> None:
    if self.lookahead < 1:
      raise ValueError(f"data.lookahead = {self.lookahead}; a batch is full once one must wait")


def sources(mixture: Sequence[Mapping[str, Any]]) -> list[Any]:
  """The mixture's datasets, each made from the fields of its entry."""
  found = []
  for entry in mixture:
    fields = {k: v for k, v in entry.items() if k not in _MIXING}
    found.append(plugins.load("hulu_jax.data.datasets", entry["name"]).Source(**fields))
  return found


def train_iterator(
  datasets: Sequence[Any],
  mixture: Sequence[Mapping[str, Any]],
  make_builder: Callable[[int], Builder],
  shape: StepShape,
  shard: tuple[int, int],
  options: Options,
) -> grain.DatasetIterator:
  """Batches of this shard's rows, for ever.

  datasets: from `sources(mixture)`; make_builder: dataset number -> Builder; shape: whose rows are
  those of one shard; shard: (number, of how many), derived from the batch sharding.
  """
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags; a notebook or a test never parses them.
  parts = []
  for number, (dataset, entry) in enumerate(zip(datasets, mixture, strict=True)):
    part = grain.MapDataset.source(dataset)
    if entry["shuffle"]:
      part = part.seed(options.seed + number).shuffle()
    parts.append(part.repeat().map(make_builder(number)))
  weights = [entry["weight"] for entry in mixture]
  mixed = grain.MapDataset.mix(parts, weights)[shard[0] :: shard[1]]
  packed = _Pack(mixed, shape, options)
  return iter(
    grain.experimental.ThreadPrefetchIterDataset(packed, prefetch_buffer_size=options.prefetch)
  )


class _Pack(grain.IterDataset):
  """Packs a map dataset of examples into batches; see `_PackIterator` for its state."""

  def __init__(self, examples: grain.MapDataset, shape: StepShape, options: Options):
    super().__init__()
    self._examples, self._shape, self._options = examples, shape, options

  def __iter__(self) -> "_PackIterator":
    return _PackIterator(self._examples, self._shape, self._options)


class _PackIterator(grain.DatasetIterator):
  """State: examples read, positions of those that wait, bad records skipped."""

  def __init__(self, examples: grain.MapDataset, shape: StepShape, options: Options):
    self._examples, self._shape, self._options = examples, shape, options
    read = grain.ReadOptions(
      num_threads=options.threads, prefetch_buffer_size=2 * options.lookahead + shape.rows
    )
    self._stream = iter(examples.to_iter_dataset(read))
    super().__init__(self._stream)
    self._read = 0
    self._waiting: list[tuple[int, Example]] = []
    self._skipped = 0

  def __next__(self) -> Packed:
    packer = packing.Packer(self._shape)
    self._waiting = [(i, e) for i, e in self._waiting if not packer.add(e)]
    while len(self._waiting) < self._options.lookahead:
      example = next(self._stream)
      position = self._read
      self._read += 1
      bad = example if isinstance(example, BadRecord) else self._refused(example)
      if bad is not None:
        self._skip(bad)
      elif not packer.add(example):
        self._waiting.append((position, example))
    return Packed(packer.batch(), self._info(packer.examples))

  def _refused(self, example: Example) -> BadRecord | None:
    reason = packing.refusal(example, self._shape)
    return None if reason is None else BadRecord("too_long", reason)

  def _skip(self, bad: BadRecord) -> None:
    self._skipped += 1
    if self._skipped > self._options.max_bad:
      raise BadRecord(
        bad.kind,
        f"{bad.reason} (bad record {self._skipped}; data.max_bad = {self._options.max_bad})",
        bad.file,
      )

  def _info(self, examples: Sequence[Example]) -> Mapping[str, float]:
    s = self._shape
    visuals = [v for e in examples for v in e.visuals]
    patches = sum(v.patches.shape[0] * v.patches.shape[1] for v in visuals)
    whole = sum(v.keep.size for v in visuals)
    capacity = s.rows * sum(g.slots * g.size for g in s.groups)
    return {
      "fill/tokens": sum(len(e.tokens) for e in examples) / (s.rows * s.tokens),
      "fill/patches": patches / max(capacity, 1),
      "kept": float(sum(np.count_nonzero(v.keep) for v in visuals)) / max(whole, 1),
      "skipped": float(self._skipped),
    }

  def get_state(self) -> dict[str, Any]:
    return {
      "stream": self._stream.get_state(),
      "read": self._read,
      "waiting": [i for i, _ in self._waiting],
      "skipped": self._skipped,
    }

  def set_state(self, state: dict[str, Any]) -> None:
    self._stream.set_state(state["stream"])
    self._read = state["read"]
    self._waiting = [(i, self._examples[i]) for i in state["waiting"]]
    self._skipped = state["skipped"]
