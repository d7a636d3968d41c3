"""Records that a run does not learn from: read once, asked again and again.

Every process reads all of them and packs them alike, so that they agree on every batch without a
word; each keeps the batches' rows that are its own.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from hulu_jax.data import chat
from hulu_jax.data import examples as examples_lib
from hulu_jax.data import lengths
from hulu_jax.data import packing
from hulu_jax.data import rows
from hulu_jax.data.examples import Builder
from hulu_jax.data.rows import Row
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Ref
from hulu_jax.data.schema import StepShape
from hulu_jax.media.errors import BadRecord


@dataclasses.dataclass(frozen=True)
class Question:
  """What a conversation's last answer is asked by.

  prompt: up to the header of the answer; answer: as it is in the record, without outer white space.
  """

  prompt: Example
  answer: str


class Record(NamedTuple):
  """One record.  shape: number of the lightest step shape that holds the example; question: None
  where it does not end with an answer."""

  example: Example
  shape: int
  question: Question | None


class Held(NamedTuple):
  """The records that can be used, in order, and how many cannot."""

  records: tuple[Record, ...]
  skipped: int


def read(
  refs: Sequence[Ref],
  datasets: Sequence[Any],
  builders: Sequence[Builder],
  shapes: Sequence[StepShape],
) -> Held:
  """The records `refs` of a mixture's datasets, each with its builder.

  shapes: the step shapes of the run, the lightest first.

  Raises:
    ValueError: none of them can be used.
  """
  found = []
  for ref in refs:
    record = _record(builders[ref.source], datasets[ref.source][ref.record], shapes)
    if record is not None:
      found.append(record)
  if not found:
    raise ValueError(f"evaluation.mixture: none of its first {len(refs)} records can be used")
  return Held(tuple(found), len(refs) - len(found))


def _record(
  builder: Builder, record: Mapping[str, Any] | BadRecord, shapes: Sequence[StepShape]
) -> Record | None:
  """None for a record that cannot be read, or is too long for every shape."""
  example = builder(record)
  if isinstance(example, BadRecord):
    return None
  length = lengths.of(example)
  home = next((n for n, shape in enumerate(shapes) if rows.refusal(length, shape) is None), None)
  if home is None:
    return None
  return Record(example, home, _question(builder, record, example))


def _question(builder: Builder, record: Any, example: Example) -> Question | None:
  name, messages = examples_lib.conversation(record)
  last = messages[-1]
  if last["role"] != "assistant":
    return None
  items = chat.content_items(last)
  if any(item["type"] != "text" for item in items):
    return None
  prompt = builder.build(messages[:-1], name, generate=True)
  pairs = zip(prompt.visuals, example.visuals, strict=True)
  if all(np.array_equal(a.patches, b.patches) for a, b in pairs):
    prompt = dataclasses.replace(prompt, visuals=example.visuals)  # held once
  return Question(prompt, "".join(item["text"] for item in items).strip())


def batches(
  held: Held, shapes: Sequence[StepShape], shard: tuple[int, int]
) -> Iterator[tuple[int, Batch]]:
  """(number of the shape, this shard's rows) until every record was in one batch; others' padding.

  shard: (number, of how many); rows are filled in the records' order, first fit.
  """
  for number, shape in enumerate(shapes):
    own = [record.example for record in held.records if record.shape == number]
    size = shape.rows // shard[1]
    mine = slice(shard[0] * size, (shard[0] + 1) * size)
    for filled in _filled(own, shape):
      yield number, _packed(filled[mine], shape._replace(rows=size))


def _packed(rows_of: Sequence[Sequence[Example]], shape: StepShape) -> Batch:
  packer = packing.Packer(shape)
  for number, examples in enumerate(rows_of):
    for example in examples:
      assert packer.add_to(number, example)
  return packer.batch()


def _filled(examples: Sequence[Example], shape: StepShape) -> Iterator[list[list[Example]]]:
  """Rows of whole batches: a new one begins when no row of the last has room."""
  left = list(examples)
  while left:
    room = [Row(shape) for _ in range(shape.rows)]
    filled: list[list[Example]] = [[] for _ in room]
    while left:
      length = lengths.of(left[0])
      fits = next((r for r, row in enumerate(room) if row.add(length) is not None), None)
      if fits is None:
        break
      filled[fits].append(left.pop(0))
    yield filled
