"""LLaVA-style records ({"image": ..., "conversations": [...]}) in the project's own form."""

from collections.abc import Mapping
import re
from typing import Any

from hulu_jax.media.errors import BadRecord

_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def to_messages(record: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The `messages` of a record with `conversations`; media by path in `image` or `video`.

  Media stand where their tag (<image>, <video>) stands; without any tag all stand before the first
  question, one after the other.  Turns before the first of a human or the system are dropped.
  System turns stay system turns, so they are not supervised.

  Raises:
    BadRecord: an unknown speaker, both kinds of media at once, or tags and media that differ in
      number.
  """
  kind, paths = _media(record)
  turns = list(record["conversations"])
  while turns and turns[0]["from"] not in ("human", "system"):
    turns.pop(0)
  if not any(f"<{kind}>" in turn["value"] for turn in turns):
    turns = _with_tags_first(turns, f"<{kind}>" * len(paths))
  remaining = iter(paths)
  messages = [_message(turn, kind, remaining) for turn in turns]
  if left := len(list(remaining)):
    raise BadRecord("format", f"{left} of {len(paths)} media have no <{kind}> tag")
  return messages


def _media(record: Mapping[str, Any]) -> tuple[str, list[str]]:
  if "image" in record and "video" in record:
    raise BadRecord("format", "both image and video; expected one kind in a record")
  kind = "video" if "video" in record else "image"
  found = record.get(kind, [])
  return kind, [found] if isinstance(found, str) else list(found)


def _with_tags_first(turns: list[Mapping[str, Any]], tags: str) -> list[Mapping[str, Any]]:
  first = next((i for i, turn in enumerate(turns) if turn["from"] == "human"), 0)
  opened = [{**t, "value": tags + t["value"]} if i == first else t for i, t in enumerate(turns)]
  return opened if tags else turns


def _message(turn: Mapping[str, Any], kind: str, paths: Any) -> dict[str, Any]:
  if turn["from"] not in _ROLES:
    raise BadRecord("format", f"speaker {turn['from']!r}; expected one of {', '.join(_ROLES)}")
  content: list[dict[str, Any]] = []
  for piece in re.split(f"(<{kind}>)", turn["value"]):
    if piece == f"<{kind}>":
      path = next(paths, None)
      if path is None:
        raise BadRecord("format", f"more <{kind}> tags than media")
      content.append({"type": kind, "path": path})
    elif piece.strip():
      content.append({"type": "text", "text": piece.strip()})
  return {"role": _ROLES[turn["from"]], "content": content}
