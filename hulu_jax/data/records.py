"""Whatever form a record has, its id and its messages in the project's own form."""

from collections.abc import Mapping
import hashlib
import json
from typing import Any

from hulu_jax.data import llava
from hulu_jax.data import sharegpt
from hulu_jax.media.errors import BadRecord

FORMS = (
  "messages (content with path, or beside images, videos or volumes), conversations (LLaVA), "
  "or query and response"
)


def normalise(record: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]]]:
  """The id and the messages of a record.

  Forms: `messages` as docs/architecture.md describes them; LLaVA's `conversations`; `messages`
  beside `images`, `videos` or `volumes` (LLaMA-Factory, ms-swift); ms-swift's older `query` and
  `response`.  A record without an id is called by a hash of what it holds: the same on every
  machine and in every order.

  Raises:
    BadRecord: another form, or one that does not add up; a stream sample of VideoLLaMA3.
  """
  if record.get("stream"):
    raise BadRecord(
      "format",
      "a stream sample cuts its video at start_time and end_time, which a record cannot say; "
      "expected messages of role stream with one image and its time each",
    )
  if "messages" in record:
    messages = record["messages"]
    if not isinstance(messages, (list, tuple)) or not messages:
      raise BadRecord("format", f"messages are {_what(messages)}; expected a list of some")
    if sharegpt.is_foreign(record):
      messages = sharegpt.to_messages(record)
  elif "conversations" in record:
    messages = llava.to_messages(record)
  elif "query" in record:
    messages = sharegpt.from_query(record)
  else:
    raise BadRecord("format", f"keys {sorted(record)}; expected {FORMS}")
  return _name(record), list(messages)


def _name(record: Mapping[str, Any]) -> str:
  if record.get("id") is not None:
    return str(record["id"])
  try:
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
  except TypeError:  # frames as arrays
    raise BadRecord("format", "a record without id that is not JSON; expected an id") from None
  return "sha-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _what(value: Any) -> str:
  return "an empty list" if isinstance(value, (list, tuple)) else f"of type {type(value).__name__}"
