"""One shard of a dataset, decoded, resized and measured once, so that training only reads it.

A shard is a contiguous range of the dataset's records: all shards one after the other are the
dataset in its own order, whatever their number, so the order of training does not depend on it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

from hulu_jax.core import plugins
from hulu_jax.data import manifest as manifest_lib
from hulu_jax.data import prepared_record
from hulu_jax.data import shards
from hulu_jax.data import stored_lengths
from hulu_jax.data.ahead import Ahead
from hulu_jax.data.compression import Compression
from hulu_jax.data.examples import Builder
from hulu_jax.data.manifest import Manifest
from hulu_jax.data.prepared_record import Prepared
from hulu_jax.data.stored_lengths import Measured
from hulu_jax.media.errors import BadRecord

DATASETS = "hulu_jax.data.datasets"
_AHEAD = 4  # records read ahead per thread


class Input(NamedTuple):
  """A dataset by the name of its plugin and the fields of its source."""

  name: str
  fields: Mapping[str, Any]

  def open(self) -> Any:
    """The dataset's source.  Raises ValueError for an unknown name or a field it does not take."""
    source = plugins.load(DATASETS, self.name).Source
    takes = inspect.signature(source)
    try:
      takes.bind(**self.fields)
    except TypeError as error:
      fields = ", ".join(str(field) for field in takes.parameters.values())
      raise ValueError(f"dataset {self.name}: {error}; its fields are {fields}") from error
    return source(**self.fields)

  def describe(self, dataset: Any) -> dict[str, Any]:
    """What a shard depends on: the fields, files by their last name, and the files' checksums."""
    fields = {
      key: Path(value).name if isinstance(value, str) and Path(value).exists() else value
      for key, value in self.fields.items()
    }
    files = {path.name: manifest_lib.sha256(path) for path in dataset.files}
    return {"dataset": self.name, "fields": fields, "records": len(dataset), "files": files}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One shard to make.

  label: of the dataset, in the list of bad records.  frames: whether records are stored, or only
  measured.  made: see `Manifest`.  force: make it whatever is there.
  """

  dataset: Any
  label: str
  builder: Builder
  shard: int
  shards: int
  output: Path
  frames: bool
  made: Mapping[str, Any]
  threads: int
  force: bool

  @property
  def first(self) -> int:
    """The first record of the shard."""
    return len(self.dataset) * self.shard // self.shards

  @property
  def last(self) -> int:
    """One past the last record of the shard."""
    return len(self.dataset) * (self.shard + 1) // self.shards


def job(
  source: Input,
  builder: Builder,
  shard: tuple[int, int],
  output: Path,
  *,
  frames: bool,
  threads: int,
  force: bool,
) -> Job:
  """Opens the dataset and says what its shard (number, of how many) depends on."""
  dataset = source.open()
  made = {
    "input": source.describe(dataset),
    "frames": frames,
    **stored_lengths.made_with(builder.policy, builder.tokenizer, builder.budget),
  }
  return Job(
    dataset=dataset,
    label=source.name,
    builder=builder,
    shard=shard[0],
    shards=shard[1],
    output=output,
    frames=frames,
    made=json.loads(json.dumps(made)),
    threads=threads,
    force=force,
  )


def run(job: Job, report: Callable[[int, int], None]) -> tuple[Manifest, bool]:
  """Makes a shard, or verifies the one that is there; also whether it was made.

  report: gets (records done, bad ones) after each record.

  Raises:
    ValueError: the folder holds something made from other inputs, or a damaged shard.
  """
  job.output.mkdir(parents=True, exist_ok=True)
  parts = manifest_lib.Parts(job.output, manifest_lib.stem(job.shard, job.shards))
  parts.clear()
  if not job.force and (found := _existing(job)) is not None:
    manifest_lib.verify(found, job.output)
    return found, False
  try:
    return _make(job, parts, report), True
  finally:
    parts.clear()


def _existing(job: Job) -> Manifest | None:
  """The shard, if it is there; raises ValueError where the folder is of another set."""
  own = job.output / (manifest_lib.stem(job.shard, job.shards) + manifest_lib.MANIFEST)
  path = own if own.is_file() else next(iter(manifest_lib.paths(job.output)), None)
  if path is None:
    return None
  found = manifest_lib.read(path)
  said = stored_lengths.differences(
    {**found.made, "shards": found.shards}, {**job.made, "shards": job.shards}
  )
  if said:
    raise ValueError(
      f"{path} was made from something else ({'; '.join(said)}): use another --output, or --force "
      "to make this shard again"
    )
  return found if path == own else None


def _make(job: Job, parts: manifest_lib.Parts, report: Callable[[int, int], None]) -> Manifest:
  modes = stored_lengths.compressions(job.builder.policy)
  measured, bad = _write(job, parts, modes, report)
  stored_lengths.save(parts.path(manifest_lib.LENGTHS), stored_lengths.collect(measured, modes))
  endings = [manifest_lib.LENGTHS, manifest_lib.BAD]
  manifest = Manifest(
    shard=job.shard,
    shards=job.shards,
    first=job.first,
    last=job.last,
    records=len(measured),
    bad=dict(sorted(bad.items())),
    made=job.made,
    files=parts.describe([manifest_lib.FRAMES, *endings] if job.frames else endings),
  )
  parts.publish(manifest)
  return manifest


def _write(
  job: Job,
  parts: manifest_lib.Parts,
  modes: Mapping[str, Compression],
  report: Callable[[int, int], None],
) -> tuple[list[Measured], Counter[str]]:
  """Writes frames and the list of bad records; the records measured, the bad ones by kind."""
  measured: list[Measured] = []
  bad: Counter[str] = Counter()
  with contextlib.ExitStack() as stack:
    listing = stack.enter_context(parts.path(manifest_lib.BAD).open("w"))
    store: Callable[[bytes], None] = _forget
    if job.frames:
      store = stack.enter_context(shards.Writer(parts.path(manifest_lib.FRAMES))).write
    for number, found in _records(job, modes, stack):
      if isinstance(found, Prepared):
        measured.append(found.measured)
        store(found.data)
      else:
        bad[found.kind] += 1
        listing.write(_line(job.label, number, found))
        measured += [] if job.frames else [stored_lengths.unreadable(number, modes)]
      report(number + 1 - job.first, bad.total())
  return measured, bad


def _forget(data: bytes) -> None:
  """Takes the place of a shard where only lengths are wanted."""


def _records(
  job: Job, modes: Mapping[str, Compression], stack: contextlib.ExitStack
) -> Iterator[tuple[int, Prepared | BadRecord]]:
  """Number and what became of each record, in order, prepared in threads."""

  def build(number: int) -> Prepared | BadRecord:
    return prepared_record.prepare(
      job.dataset[number], number, job.builder, modes, store=job.frames
    )

  ahead = stack.enter_context(contextlib.closing(Ahead(build, job.threads)))
  for number in range(job.first, job.last):
    ahead.start(range(number, min(number + _AHEAD * job.threads, job.last)))
    yield number, ahead.take(number)


def _line(label: str, number: int, bad: BadRecord) -> str:
  line = {"dataset": label, "record": number, "kind": bad.kind, "reason": bad.reason}
  return json.dumps(line) + "\n"
