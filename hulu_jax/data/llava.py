"""LLaVA-style records ({"image": ..., "conversations": [...]}) in the project's own form."""

from collections.abc import Iterator, Mapping, Sequence
import re
from typing import Any

from hulu_jax.media.errors import BadRecord

_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
# The key of a kind of media in a record, and the plural that LLaMA-Factory writes.
_KEYS = {"image": "images", "video": "videos", "volume": "volumes"}

Turns = list[Mapping[str, Any]]


def to_messages(record: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The `messages` of a record with `conversations`; media by path in `image`, `video`, `volume`.

  Media stand where their tag (<image>, <video>, <volume>) stands in what a human says; a tag in an
  answer is text.  Without any tag all stand before the first question, one after the other.  A
  video may have the tag <image>, as LLaVA-NeXT writes it.  Turns before the first of a human or the
  system are dropped.  System turns stay system turns, so they are not supervised.

  Raises:
    BadRecord: turns or media of another form, an unknown speaker, fewer than two turns, two kinds
      of media at once, or tags and media that differ in number.
  """
  kind, paths = _media(record)
  turns = _turns(record["conversations"])
  tag = _tag(kind, len(paths), turns)
  if not _count(tag, turns):
    turns = _with_tags_first(turns, tag * len(paths))
  if (found := _count(tag, turns)) != len(paths):
    raise BadRecord("format", f"{len(paths)} media and {found} {tag} tags; expected one each")
  remaining = iter(paths)
  return [_message(turn, kind, tag, remaining) for turn in turns]


def _media(record: Mapping[str, Any]) -> tuple[str, list[str]]:
  given = {
    kind: found
    for kind, plural in _KEYS.items()
    for key in (kind, plural)
    if (found := record.get(key))  # null, "" and [] say that there is none
  }
  if len(given) > 1:
    raise BadRecord("format", f"both {' and '.join(given)}; expected one kind in a record")
  kind, found = next(iter(given.items()), ("image", []))
  paths = [found] if isinstance(found, str) else found
  if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
    raise BadRecord("format", f"{kind} is {type(found).__name__}; expected a path or a list")
  return kind, paths


def _turns(conversations: Any) -> Turns:
  if not isinstance(conversations, Sequence) or isinstance(conversations, str):
    raise BadRecord("format", f"conversations are {type(conversations).__name__}; expected a list")
  turns = list(conversations)
  for turn in turns:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
      raise BadRecord("format", 'a turn of another form; expected {"from": ..., "value": text}')
    if turn.get("from") not in _ROLES:
      raise BadRecord(
        "format", f"speaker {turn.get('from')!r}; expected one of {', '.join(_ROLES)}"
      )
  while turns and turns[0]["from"] not in ("human", "system"):
    turns.pop(0)
  if len(turns) < 2:
    raise BadRecord("format", f"{len(turns)} turns from the first human on; expected at least 2")
  return turns


def _tag(kind: str, media: int, turns: Turns) -> str:
  own = f"<{kind}>"
  as_images = kind == "video" and not _count(own, turns) and _count("<image>", turns) == media
  return "<image>" if as_images else own


def _count(tag: str, turns: Turns) -> int:
  return sum(turn["value"].count(tag) for turn in turns if turn["from"] == "human")


def _with_tags_first(turns: Turns, tags: str) -> Turns:
  first = next((i for i, turn in enumerate(turns) if turn["from"] == "human"), None)
  if first is None:
    return turns
  opened = {**turns[first], "value": tags + turns[first]["value"]}
  return [*turns[:first], opened, *turns[first + 1 :]]


def _message(turn: Mapping[str, Any], kind: str, tag: str, paths: Iterator[str]) -> dict[str, Any]:
  pieces = re.split(f"({tag})", turn["value"]) if turn["from"] == "human" else [turn["value"]]
  content: list[dict[str, Any]] = []
  for piece in pieces:
    if piece == tag and turn["from"] == "human":
      content.append({"type": kind, "path": next(paths)})
    elif piece.strip():
      content.append({"type": "text", "text": piece.strip()})
  return {"role": _ROLES[turn["from"]], "content": content}
