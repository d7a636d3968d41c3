"""A conversation to tokens, labels and the places of its pictures, built from segments.

Qwen's chat format with one <image> per frame; Hulu-Med adds no system prompt of its own.  Text and
special tokens never meet in one string, so nothing a user writes can become a special token.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data.tokenizer import Tokenizer

MEDIA_TYPES = ("image", "volume", "video")
ROLES = ("system", "user", "assistant", "stream")


class Entry(NamedTuple):
  """One visual entry as the chat sees it: frames, and seconds per frame where time is known."""

  frames: int
  times: tuple[float, ...] | None


class Piece(NamedTuple):
  """A run of plain text, one special token by name, or one frame (entry, frame).

  role: how it is labelled: "answer" is supervised, "stream_end" and "stream_frame" may be.
  """

  text: str | None = None
  special: str | None = None
  frame: tuple[int, int] | None = None
  role: str = "prompt"


def render(
  messages: Sequence[Mapping[str, Any]], entries: Sequence[Entry], *, generate: bool = False
) -> list[Piece]:
  """Messages to pieces; `generate` appends the header of the answer to come.

  Raises:
    ValueError: an unknown role or content type, or media that differ in number from `entries`.
  """
  pieces: list[Piece] = []
  entry = 0
  for message in messages:
    role = message.get("role")
    if role not in ROLES:
      raise ValueError(f"unknown role {role!r}; expected one of {', '.join(ROLES)}")
    kind = "stream" if role == "stream" else "im"
    spoken = "answer" if role == "assistant" else "prompt"
    body: list[Piece] = []
    for item in content_items(message):
      if item["type"] == "text":
        body.append(Piece(text=item["text"], role=spoken))
        continue
      if entry == len(entries):
        raise ValueError(f"the messages hold more media than the {len(entries)} given")
      body += _frames(entry, entries[entry], item["type"])
      entry += 1
    if role == "assistant":
      body = _stripped(_joined(body))
    closing = "stream_end" if role == "stream" else spoken
    pieces += [Piece(special=f"{kind}_start"), Piece(text=f"{role}\n"), *body]
    pieces += [Piece(special=f"{kind}_end", role=closing), Piece(text="\n")]
  if entry != len(entries):
    raise ValueError(f"the messages hold {entry} media, {len(entries)} were given")
  if generate:
    pieces += [Piece(special="im_start"), Piece(text="assistant\n")]
  return _joined(pieces)


def content_items(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """The content of a message as a list of typed items; a string is one text.

  Raises:
    ValueError: content of another form, or an unknown type.
  """
  content = message.get("content")
  if isinstance(content, str):
    return [{"type": "text", "text": content}]
  if not isinstance(content, Sequence):
    raise ValueError(f"content is {type(content).__name__}; expected a string or a list of items")
  for item in content:
    if item.get("type") not in ("text", *MEDIA_TYPES):
      raise ValueError(
        f"unknown content type {item.get('type')!r}; expected text, {', '.join(MEDIA_TYPES)}"
      )
    if item["type"] == "text" and not isinstance(item.get("text"), str):
      raise ValueError(f"text content holds {type(item.get('text')).__name__}; expected a string")
  return list(content)


def texts(message: Mapping[str, Any]) -> list[str]:
  """What a tokenizer learns from a message: its texts, and what the template adds around them."""
  items = content_items(message)
  times = [t for i in items for t in i.get("timestamps", ())]
  return [
    f"{message['role']}\n",
    *(i["text"] for i in items if i["type"] == "text"),
    *(_time(t) for t in times),
  ]


def _stripped(answer: list[Piece]) -> list[Piece]:
  """Without outer white space: a leading newline would melt into the header's and shift labels."""
  if answer and answer[0].text is not None:
    answer[0] = answer[0]._replace(text=answer[0].text.lstrip())
  if answer and answer[-1].text is not None:
    answer[-1] = answer[-1]._replace(text=answer[-1].text.rstrip())
  return answer


def _frames(index: int, entry: Entry, kind: str) -> list[Piece]:
  """A clip: `Time 1.0s:<image>,Time 2.0s:<image>\\n`; a picture: `Time 1.0s: <image>\\n`."""
  pieces = []
  for i in range(entry.frames):
    if entry.times is not None:
      space = " " if kind == "image" else ""
      pieces.append(Piece(text=_time(entry.times[i]) + space))
    after = "\n" if i == entry.frames - 1 else ","
    pieces += [Piece(frame=(index, i)), Piece(text=after)]
  return pieces


def _time(seconds: float) -> str:
  return f"Time {round(seconds, 1)}s:"


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
  """Neighbouring texts of one role as one, so that they are tokenized as the reference does."""
  out: list[Piece] = []
  for piece in pieces:
    last = out[-1] if out else None
    if last and last.text is not None and piece.text is not None and last.role == piece.role:
      out[-1] = last._replace(text=last.text + piece.text)
    elif piece.text != "":
      out.append(piece)
  return out


def to_string(pieces: Sequence[Piece]) -> str:
  """The template's text, with one <image> per frame: for reading and for golden tests."""
  return "".join(p.text or tokenizer_lib.SPECIAL[p.special or "image"] for p in pieces)


def encode(
  pieces: Sequence[Piece], keep: Sequence[np.ndarray], tokenizer: Tokenizer, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Pieces to (tokens int32 [n], weights float32 [n], visual positions int32 [v]).

  keep: per entry bool [T, N]; a frame becomes as many <image> tokens as it keeps.  Supervised are
  the text of an answer and its <|im_end|>, not its header nor the newline after it.  seed: of the
  draw that balances a stream's labels.
  """
  counts = [mask.sum(axis=1).tolist() for mask in keep]
  parts, visual = [], [np.zeros(0, np.int32)]
  length = 0
  for piece in pieces:
    if piece.frame is not None:
      entry, frame = piece.frame
      ids = np.full(counts[entry][frame], tokenizer.special["image"], np.int32)
      visual.append(np.arange(length, length + len(ids), dtype=np.int32))
    elif piece.special is not None:
      ids = np.array([tokenizer.special[piece.special]], np.int32)
    else:
      ids = np.array(tokenizer.encode(piece.text or ""), np.int32)
    parts.append(ids)
    length += len(ids)
  tokens, sizes = np.concatenate([np.zeros(0, np.int32), *parts]), [len(ids) for ids in parts]
  weights = np.repeat(np.array([p.role == "answer" for p in pieces], np.float32), sizes)
  if any(piece.role == "stream_end" for piece in pieces):
    roles = np.repeat([p.role for p in pieces], sizes).tolist()
    weights[_stream_labels(tokens.tolist(), roles, tokenizer, seed)] = 1.0
  return tokens, weights, np.concatenate(visual)


def _stream_labels(
  tokens: Sequence[int], roles: Sequence[str], tokenizer: Tokenizer, seed: int
) -> list[int]:
  """Supervised positions of stream messages: after each run of images, and the stream's end.

  Going on and ending are balanced: the more frequent kind is thinned at random to the other's
  number.
  """
  start, end = tokenizer.special["stream_start"], tokenizer.special["stream_end"]
  image = tokenizer.special["image"]
  inside = False
  kinds: dict[str, list[int]] = {"on": [], "end": []}
  for i, token in enumerate(tokens):
    inside = (inside or token == start) and roles[i] != "stream_end"
    if roles[i] == "stream_end" and token == end:
      kinds["end"].append(i)
    elif inside and token != image and i and tokens[i - 1] == image:
      kinds["on"].append(i)
  number = min(len(positions) for positions in kinds.values())
  rng = np.random.default_rng(seed)
  return [int(i) for p in kinds.values() if p for i in rng.permutation(p)[:number]]
