"""A mixture of datasets to a checkpointable iterator of packed batches.

Where every dataset knows its records' lengths, all processes make one plan from the lengths alone
and build only their own rows.  Where one does not, each process reads its share of the records and
plans its own rows.  The state is a few numbers: how far the mixture was read, and who waits.
"""

from collections import Counter
from collections import deque
from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

from absl import flags
import grain

from hulu_jax.data import counts as counts_lib
from hulu_jax.data import fingerprint
from hulu_jax.data import lengths as lengths_lib
from hulu_jax.data import mixture as mixture_lib
from hulu_jax.data import packing
from hulu_jax.data.ahead import Ahead
from hulu_jax.data.bad_records import BadRecords
from hulu_jax.data.examples import Builder
from hulu_jax.data.lengths import Length
from hulu_jax.data.lengths import Lengths
from hulu_jax.data.plan import Planner
from hulu_jax.data.plan import Step
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import StepShape
from hulu_jax.media.errors import BadRecord


@dataclasses.dataclass(frozen=True)
class Packed:
  """A batch, and what only the host wants to know of it.

  shape: number of its step shape.
  counts: of this shard's rows, see `data.counts`; those of all shards add up to the step's.
  ids: per row, "label of the dataset/id of the record" of each example, in order.
  """

  batch: Batch
  shape: int
  counts: counts_lib.Counts
  ids: tuple[tuple[str, ...], ...]

  @property
  def info(self) -> Mapping[str, float]:
    """The metrics of this shard's rows alone."""
    return counts_lib.metrics(self.counts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """lookahead: records that rows are chosen from; patience: later records that one waits for at
  most; threads: that build examples; prefetch: batches made ahead; max_bad: fraction of the records
  read that may be bad before the run stops; listing: where bad records are listed, or None.
  """

  lookahead: int
  patience: int
  threads: int
  prefetch: int
  max_bad: float
  seed: int
  listing: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
  """What is read.  datasets: of the mixture; builders: one per dataset; lengths: of every dataset's
  records, None where they are not known before a record is built."""

  mixture: Sequence[Mapping[str, Any]]
  datasets: Sequence[Any]
  builders: Sequence[Builder]
  lengths: Sequence[Lengths] | None


def train_iterator(
  data: Data, shapes: Sequence[StepShape], shard: tuple[int, int], options: Options
) -> grain.DatasetIterator:
  """Batches of this shard's rows; for ever, unless every dataset of the mixture has its `epochs`.

  shapes: the lightest first, with the rows of ALL shards; shard: (number, of how many), from the
  batch sharding.

  Raises:
    ValueError: several shapes and several shards, without lengths to plan by: the shards would
      choose different shapes, or would end at different steps.
  """
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags; a notebook or a test never parses them.
  if data.lengths is None and shard[1] > 1 and len(shapes) > 1:
    raise ValueError(
      f"{len(shapes)} step shapes on {shard[1]} data shards need a plan: write the mixture's "
      "lengths with `hulu prepare`, or use one shape"
    )
  if data.lengths is None and shard[1] > 1 and mixture_lib.ends(data.mixture):
    raise ValueError(
      f"a mixture that ends, on {shard[1]} data shards, needs a plan: write its lengths with `hulu "
      "prepare`, or leave `epochs` out of one of its datasets"
    )
  return iter(
    grain.experimental.ThreadPrefetchIterDataset(
      _Batches(data, shapes, shard, options), prefetch_buffer_size=options.prefetch
    )
  )


class _Batches(grain.IterDataset):
  """The iterator's recipe; Grain's way to make one."""

  def __init__(
    self, data: Data, shapes: Sequence[StepShape], shard: tuple[int, int], options: Options
  ):
    super().__init__()
    self._made_of = data, shapes, shard, options

  def __iter__(self) -> grain.DatasetIterator:
    data = self._made_of[0]
    return (_ReadIterator if data.lengths is None else _PlannedIterator)(*self._made_of)


class _Iterator(grain.DatasetIterator):
  """What both ways share: the order of the mixture, threads that build, bad records, batches."""

  def __init__(
    self, data: Data, shapes: Sequence[StepShape], shard: tuple[int, int], options: Options
  ):
    super().__init__()
    self._ahead = Ahead(self._build, options.threads)
    self._data, self._shard, self._options = data, shard, options
    self._order = mixture_lib.order(data.datasets, data.mixture, options.seed)
    self._rows = shapes[0].rows // shard[1]
    self._shapes = [s._replace(rows=self._rows) for s in shapes]
    self._labels = [entry["label"] for entry in data.mixture]
    self._bad = BadRecords(self._labels, options.max_bad, options.listing)
    self._fingerprint = fingerprint.of(data.mixture, data.datasets)
    self._failed: Exception | None = None

  def __next__(self) -> Packed:
    """Raises what went wrong, and again whenever it is asked: Grain would go on behind the hole."""
    if self._failed is not None:
      raise self._failed
    try:
      return self._next()
    except StopIteration:
      raise
    except Exception as error:
      self._failed = error
      raise

  def _next(self) -> Packed:
    raise NotImplementedError

  def _build(self, position: int) -> Example | BadRecord:
    ref = self._order[position]
    try:
      return self._data.builders[ref.source](self._data.datasets[ref.source][ref.record])
    except Exception as error:  # no bad record but a bug: in a thread nobody would know whose
      raise RuntimeError(
        f"dataset {self._labels[ref.source]}, record {ref.record}: {type(error).__name__} while it "
        "was built; expected a record, or BadRecord in its place"
      ) from error

  def _packed(self, shape: int, rows: Sequence[Sequence[Example]]) -> Packed:
    packer = packing.Packer(self._shapes[shape])
    ids = tuple(tuple(f"{self._labels[e.source]}/{e.id}" for e in row) for row in rows)
    for r, examples in enumerate(rows):
      for example in examples:
        if not packer.add_to(r, example):
          raise ValueError(f"a record of dataset {example.source} is longer than planned")
    counts = {
      **counts_lib.filled(self._shapes[shape], packer.examples),
      **counts_lib.held(packer.examples, self._labels),
      **counts_lib.skipped(self._skipped(), self._labels),
    }
    return Packed(packer.batch(), shape, counts, ids)

  def _skipped(self) -> Mapping[str, int]:
    return self._bad.counts

  def _forget(self) -> None:
    """What was begun, and what failed: a state from before goes on from before."""
    self._ahead.drop()
    self._failed = None

  def close(self) -> None:
    """Ends the threads."""
    self._ahead.close()
    super().close()


class _ReadIterator(_Iterator):
  """Reads this shard's records in order, plans by what they turn out to be."""

  def __init__(
    self, data: Data, shapes: Sequence[StepShape], shard: tuple[int, int], options: Options
  ):
    super().__init__(data, shapes, shard, options)
    self._order = self._order.shard(*shard)
    self._held: dict[int, Example] = {}
    self._read = 0
    self._planner = Planner(
      self._length,
      self._shapes,
      options.lookahead,
      options.patience,
      self._too_long,
      len(self._order),
    )

  def _length(self, position: int) -> Length | None:
    self._read = max(self._read, position + 1)
    soon = min(self._read + 2 * self._options.threads, len(self._order))
    self._ahead.start(range(self._read, soon))
    example = self._ahead.take(position)
    if isinstance(example, BadRecord):
      self._bad.skip(self._order[position], example, self._read)
      return None
    self._held[position] = example
    return lengths_lib.of(example)

  def _too_long(self, position: int, reason: str) -> None:
    del self._held[position]
    self._bad.skip(self._order[position], BadRecord("too_long", reason), self._read)

  def _next(self) -> Packed:
    step = next(self._planner)
    return self._packed(step.shape, [[self._held.pop(p) for p in row] for row in step.rows])

  def get_state(self) -> dict[str, Any]:
    return {
      "fingerprint": self._fingerprint,
      "shard": list(self._shard),
      "plan": self._planner.get_state(),
      "bad": self._bad.get_state(),
    }

  def set_state(self, state: dict[str, Any]) -> None:
    fingerprint.check(state["fingerprint"], self._fingerprint)
    before = state["shard"][1]
    if before != self._shard[1]:
      raise ValueError(
        f"the run was on {before} data shards, this is on {self._shard[1]}: without prepared "
        "lengths each shard packs its own records, so their number must stay"
      )
    self._forget()
    self._held.clear()
    self._read = state["plan"]["read"]
    waiting = [p for positions in state["plan"]["waiting"] for p in positions]
    self._ahead.start(waiting)
    self._planner.set_state(state["plan"])
    self._bad.set_state(state["bad"])


class _PlannedIterator(_Iterator):
  """Plans all rows from lengths, builds its own."""

  def __init__(
    self, data: Data, shapes: Sequence[StepShape], shard: tuple[int, int], options: Options
  ):
    super().__init__(data, shapes, shard, options)
    self._planner = Planner(
      self._length,
      shapes,
      options.lookahead,
      options.patience,
      self._too_long,
      len(self._order),
    )
    # What the plan refuses every shard knows, and the first lists; the rest each meets alone.
    listing = options.listing if shard[0] == 0 else None
    self._refusals = BadRecords(self._labels, options.max_bad, listing)
    # Steps planned ahead: the plan's state before each, this shard's rows, what was refused.
    self._coming: deque[tuple[dict[str, Any], Step, list[tuple[int, BadRecord]]]] = deque()
    self._refused: list[tuple[int, BadRecord]] = []

  def _length(self, position: int) -> Length | None:
    assert self._data.lengths is not None
    ref = self._order[position]
    return self._data.lengths[ref.source][ref.record]

  def _too_long(self, position: int, reason: str) -> None:
    self._refused.append((position, BadRecord("too_long", reason)))

  def _next(self) -> Packed:
    while len(self._coming) <= self._options.prefetch and self._plan_one():
      pass
    if not self._coming:
      self._skip(self._refused, len(self._order))
      self._refused = []
      raise StopIteration
    before, step, refused = self._coming.popleft()
    self._skip(refused, before["read"])
    return self._packed(step.shape, [self._row(row, before["read"]) for row in step.rows])

  def _plan_one(self) -> bool:
    """Plans a step more; False where the mixture ends."""
    before = self._planner.get_state()
    step = next(self._planner, None)
    if step is None:
      return False
    mine = slice(self._shard[0] * self._rows, (self._shard[0] + 1) * self._rows)
    own = step._replace(rows=step.rows[mine])
    self._ahead.start(p for row in own.rows for p in row)
    self._coming.append((before, own, self._refused))
    self._refused = []
    return True

  def _skip(self, refused: Sequence[tuple[int, BadRecord]], read: int) -> None:
    for position, bad in refused:
      self._refusals.skip(self._order[position], bad, read)

  def _row(self, positions: Sequence[int], read: int) -> list[Example]:
    """The examples of a row; a record that broke since it was measured leaves a hole."""
    good = []
    for position in positions:
      example = self._ahead.take(position)
      if isinstance(example, BadRecord):
        self._bad.skip(self._order[position], example, read // self._shard[1])
      else:
        good.append(example)
    return good

  def _skipped(self) -> Mapping[str, int]:
    """Its own, and on the first shard what the plan refused, which all know alike."""
    refused = self._refusals.counts if self._shard[0] == 0 else {}
    return Counter(refused) + Counter(self._bad.counts)

  def get_state(self) -> dict[str, Any]:
    return {
      "fingerprint": self._fingerprint,
      "shard": list(self._shard),
      "plan": self._coming[0][0] if self._coming else self._planner.get_state(),
      "refused": self._refusals.get_state(),
      "bad": self._bad.get_state(),
    }

  def set_state(self, state: dict[str, Any]) -> None:
    fingerprint.check(state["fingerprint"], self._fingerprint)
    self._forget()
    self._coming.clear()
    self._refused = []
    self._planner.set_state(state["plan"])
    self._refusals.set_state(state["refused"])
    self._bad.set_state(state["bad"])
