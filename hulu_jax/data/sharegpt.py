"""Records as LLaMA-Factory and ms-swift write them (`messages` beside `images`, `videos`).

Sources: LLaMA-Factory, data/README.md, "Sharegpt Format"; ms-swift 3, "Custom dataset", standard
format; ms-swift 2, `query`, `response` and `history`.
"""

from collections.abc import Iterator, Mapping, Sequence
import re
from typing import Any

from hulu_jax.media.errors import BadRecord

_KEYS = {"image": "images", "video": "videos", "volume": "volumes"}
_TAG = re.compile("(<image>|<video>|<volume>)")
_ROLES = ("system", "user", "assistant")
_ADDRESS = re.compile(r"[a-z0-9]+://|data:")

Media = dict[str, Iterator[str]]


def is_foreign(record: Mapping[str, Any]) -> bool:
  """Whether a record with `messages` is of this form, not of the project's own."""
  return any(record.get(key) for key in (*_KEYS.values(), "audios", "tools")) or any(
    _is_foreign(message) for message in record["messages"]
  )


def to_messages(record: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The messages in the project's own form; the n-th tag of a kind is its n-th path.

  Content is text with tags (<image>, <video>, <volume>), or a list of typed items: text, and media
  that name their own path (`image`, `video`) or take the next of the record's.  Without any tag or
  item all media stand before the first question.  `system` beside the messages opens them.

  Raises:
    BadRecord: media and tags that differ in number, tools, sounds, addresses instead of paths, an
      unknown role, or an answer that is not to be learned (`loss`).
  """
  for key in ("audios", "tools"):
    if record.get(key):
      raise BadRecord("format", f"{key} in a record; there are text, images, videos and volumes")
  paths = {kind: _paths(record, kind, key) for kind, key in _KEYS.items()}
  turns = [_checked(message) for message in record["messages"]]
  if record.get("system"):
    turns.insert(0, {"role": "system", "content": _text(record["system"], "system")})
  if not any(_wants_media(turn["content"]) for turn in turns if turn["role"] != "assistant"):
    turns = _with_media_first(turns, paths)
  media = {kind: iter(found) for kind, found in paths.items()}
  messages = [{"role": turn["role"], "content": _items(turn, media)} for turn in turns]
  for kind, left in media.items():
    if count := len(list(left)):
      raise BadRecord("format", f"{count} of {len(paths[kind])} {kind} media have no <{kind}> tag")
  return messages


def from_query(record: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The messages of ms-swift's older form: `query`, `response`, `history`, `system`, `images`."""
  history = record.get("history") or []
  if not all(isinstance(turn, Sequence) and len(turn) == 2 for turn in history):
    raise BadRecord("format", "a history of another form; expected pairs of query and response")
  if record.get("response") is None:
    raise BadRecord("format", "a query without response")
  pairs = [*history, (record["query"], record["response"])]
  messages = [
    {"role": role, "content": text}
    for pair in pairs
    for role, text in zip(("user", "assistant"), pair, strict=True)
  ]
  return to_messages({**record, "messages": messages})


def _is_foreign(message: Any) -> bool:
  """Content that names media as these frameworks do; in the project's own a tag is only text."""
  if not isinstance(message, Mapping):
    return False
  content = message.get("content")
  items = content if isinstance(content, list) else []
  own = [i.get("type") for i in items if isinstance(i, Mapping) and "path" not in i]
  named = any(kind in i for i in items if isinstance(i, Mapping) for kind in _KEYS)
  return "loss" in message or named or bool({"image_url", "video_url", "audio"} & set(own))


def _paths(record: Mapping[str, Any], kind: str, key: str) -> list[str]:
  found = record.get(key) or []
  return [_path(entry, kind) for entry in (found if isinstance(found, list) else [found])]


def _path(entry: Any, kind: str) -> str:
  """A path, also of {"path": ...} as ms-swift stores it beside bytes."""
  path = entry.get("path") if isinstance(entry, Mapping) else entry
  if not isinstance(path, str) or not path:
    raise BadRecord("format", f"{kind} media of type {type(entry).__name__}; expected a path")
  if _ADDRESS.match(path):
    raise BadRecord("format", f"{kind} media by address; expected a path below the data root")
  return path


def _checked(message: Any) -> dict[str, Any]:
  if not isinstance(message, Mapping) or "content" not in message:
    raise BadRecord("format", 'a message of another form; expected {"role": ..., "content": ...}')
  if message.get("role") not in _ROLES:
    raise BadRecord("format", f"role {message.get('role')!r}; expected {', '.join(_ROLES)}")
  if message["role"] == "assistant" and message.get("loss", True) not in (True, None):
    raise BadRecord("format", "an answer with loss: false; every answer is learned here")
  return {"role": message["role"], "content": message["content"]}


def _wants_media(content: Any) -> bool:
  if isinstance(content, str):
    return bool(_TAG.search(content))
  if not isinstance(content, list):
    return False
  return any(isinstance(item, Mapping) and item.get("type") != "text" for item in content)


def _with_media_first(turns: list[dict[str, Any]], paths: Mapping[str, list[str]]) -> list:
  items = [{"type": kind} for kind, found in paths.items() for _ in found]
  first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), None)
  if not items or first is None:
    return turns
  content = turns[first]["content"]
  texts = [{"type": "text", "text": content}] if isinstance(content, str) else content
  return [*turns[:first], {"role": "user", "content": [*items, *texts]}, *turns[first + 1 :]]


def _items(turn: Mapping[str, Any], media: Media) -> list[dict[str, Any]]:
  content = turn["content"]
  if isinstance(content, str):
    return _split(content, media, turn["role"])
  if not isinstance(content, list):
    raise BadRecord("format", f"content is {type(content).__name__}; expected text or a list")
  made: list[dict[str, Any]] = []
  for item in content:
    kind = item.get("type") if isinstance(item, Mapping) else None
    if kind == "text":
      made += _split(_text(item.get("text"), "text"), media, turn["role"])
    elif kind in _KEYS:
      own = item.get(kind, item.get("path"))
      rest = {k: v for k, v in item.items() if k not in ("type", kind, "path")}
      path = _next(media, kind) if own is None else _path(own, kind)
      made.append({"type": kind, "path": path, **rest})
    else:
      raise BadRecord("format", f"content of type {kind!r}; expected text, {', '.join(_KEYS)}")
  return made


def _split(text: str, media: Media, role: str) -> list[dict[str, Any]]:
  """Text cut at its tags; in an answer a tag is text."""
  if role == "assistant":
    return [{"type": "text", "text": text}]
  made = []
  for piece in _TAG.split(text):
    if _TAG.fullmatch(piece):
      kind = piece[1:-1]
      made.append({"type": kind, "path": _next(media, kind)})
    elif piece.strip():
      made.append({"type": "text", "text": piece.strip()})
  return made


def _next(media: Media, kind: str) -> str:
  path = next(media[kind], None)
  if path is None:
    raise BadRecord("format", f"more <{kind}> tags than {_KEYS[kind]}")
  return path


def _text(value: Any, what: str) -> str:
  if not isinstance(value, str):
    raise BadRecord("format", f"{what} is {type(value).__name__}; expected text")
  return value
