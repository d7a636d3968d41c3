"""One record decoded, resized and measured, as a prepared shard holds it."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

from hulu_jax.data import chat
from hulu_jax.data import compression as compression_lib
from hulu_jax.data import examples
from hulu_jax.data import lengths
from hulu_jax.data import shards
from hulu_jax.data import stored_lengths
from hulu_jax.data import vision
from hulu_jax.data.compression import Compression
from hulu_jax.data.examples import Builder
from hulu_jax.data.stored_lengths import Measured
from hulu_jax.data.vision import Fitted
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media

# What is kept of a record beside its id and messages: never a path.
KEPT = (
  "group",
  "kind",
  "options",
  "answer",
  "answer_type",
  "explanation",
  "derived",
  "license",
)
# What is kept of a content item beside its medium.
_ITEM = ("type", "text", "timestamps", "time", "label")
# A hash of the file's path under a key drawn in each process: shards must not depend on it.
_HASH = "file"


class Prepared(NamedTuple):
  """data: the record as a shard holds it, empty where frames are not stored."""

  data: bytes
  measured: Measured


def prepare(
  record: Mapping[str, Any] | BadRecord,
  number: int,
  builder: Builder,
  modes: Mapping[str, Compression],
  *,
  store: bool,
) -> Prepared | BadRecord:
  """One record with its media read, resized and measured, or why it cannot be used.

  number: of the record in its dataset.  modes: of compression, to measure.  store: whether the
  record itself is wanted.
  """
  policy = dataclasses.replace(builder.policy, compression=compression_lib.OFF)
  whole = dataclasses.replace(builder, policy=policy, budget=None)
  try:
    name, messages = examples.conversation(record)
    media = _fit(builder.media(messages, name), whole)
    messages = _with_media(messages, media)
    example = whole.build(messages, name, generate=False)
  except BadRecord as bad:
    return bad
  measured = stored_lengths.measure(number, lengths.of(example), example, media, modes)
  if not store:
    return Prepared(b"", measured)
  assert not isinstance(record, BadRecord)
  kept = {key: record[key] for key in KEPT if record.get(key) is not None}
  stored = {"id": name, "number": number, **kept, "messages": messages}
  return Prepared(shards.encode(stored), measured)


def _fit(media: Sequence[Media], builder: Builder) -> list[Fitted]:
  """Resized, and without what differs from run to run."""
  try:
    fitted = vision.fit(media, builder.policy)
  except ValueError as error:
    raise BadRecord("format", str(error)) from None
  return [
    dataclasses.replace(m, provenance={k: v for k, v in m.provenance.items() if k != _HASH})
    for m in fitted
  ]


def _with_media(messages: Any, media: Sequence[Fitted]) -> list[dict[str, Any]]:
  """The messages, their content as items, and `media` in place of paths and frames."""
  coming = iter(media)
  made = []
  for message in messages:
    items = [{k: item[k] for k in _ITEM if k in item} for item in chat.content_items(message)]
    content = [
      _item(item, next(coming)) if item["type"] in chat.MEDIA_TYPES else item for item in items
    ]
    made.append({"role": message.get("role"), "content": content})
  return made


def _item(item: Mapping[str, Any], medium: Fitted) -> dict[str, Any]:
  if "timestamps" in item and medium.timestamps is not None:  # some frames may have been cut
    return {**item, "timestamps": list(medium.timestamps), "medium": medium}
  return {**item, "medium": medium}
