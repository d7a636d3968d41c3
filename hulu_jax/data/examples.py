"""One record to one example: its media read, its chat tokenized; or why it cannot be used."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import numbers
from pathlib import Path
from typing import Any
import zlib

import numpy as np

from hulu_jax import media as media_lib
from hulu_jax.data import chat
from hulu_jax.data import records
from hulu_jax.data import vision
from hulu_jax.data.schema import Example
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.data.vision import Policy
from hulu_jax.media import from_json
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media

# What a content item may say about its medium, beside `type`.  `frames` is the medium itself, or,
# beside a path, how many to take; `phase` names a volume of the path, or labels the frames.
_LABELS = ("timestamps", "time", "label")
_BESIDE_PATH = ("type", "path", *_LABELS, *from_json.NAMES)
_BESIDE_FRAMES = ("type", "frames", *_LABELS, "modality", "phase")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Builder:
  """Turns records into examples; a pure function, safe to call from several threads.

  root: where paths in records start, and may not leave, nor any link below them; None takes them as
    they are, for a caller who wrote them.
  source: number of the dataset.
  reader: how a path is read; the `read` of a `media.worker.Reader` for files nobody vouches for.
  key: of the hashes that stand for paths (see `media.privacy`); None: drawn for this process.
  """

  tokenizer: Tokenizer
  policy: Policy
  root: Path | None
  source: int = 0
  reader: Callable[..., Media] = media_lib.read
  key: bytes | None = None

  def __call__(self, record: Mapping[str, Any] | BadRecord) -> Example | BadRecord:
    """The example, or the reason why there is none: the caller counts and skips."""
    try:
      name, messages = conversation(record)
      return self.build(messages, name, generate=False)
    except BadRecord as bad:
      return bad

  def build(self, messages: Any, name: str, *, generate: bool) -> Example:
    """Messages to an example; `generate` ends it with the header of the answer to come.

    Raises:
      BadRecord: a medium that cannot be read, or messages that are not a conversation.
    """
    if not isinstance(messages, (list, tuple)):
      raise BadRecord("format", f"messages are {type(messages).__name__}; expected a list")
    media = [
      self.read(item)
      for message in messages
      for item in _items(message)
      if item["type"] in chat.MEDIA_TYPES
    ]
    try:
      visuals = vision.visuals(media, self.policy)
      entries = [chat.Entry(len(m.frames), m.timestamps) for m in media]
      pieces = chat.render(messages, entries, generate=generate)
    except ValueError as error:
      raise BadRecord("format", str(error)) from None
    keep = [v.keep for v in visuals]
    _check_unicode([name, *(piece.text or "" for piece in pieces)])
    seed = zlib.crc32(name.encode())
    tokens, weights, visual = chat.encode(pieces, keep, self.tokenizer, seed)
    return Example(name, tokens, weights, visuals, visual, self.source)

  def read(self, item: Mapping[str, Any]) -> Media:
    """The medium of a content item: its `frames` as they are, or its `path` read."""
    kind = item["type"]
    known = _BESIDE_PATH if "path" in item else _BESIDE_FRAMES
    for key in item:
      if key not in known:
        raise BadRecord("format", f"beside {kind}: {from_json.unknown(key, known)}")
    if "path" in item:
      medium = self._read_path(item)
    elif "frames" in item:
      medium = _from_frames(item)
    else:
      raise BadRecord("format", f"{kind} content without path or frames")
    if medium.kind != kind:
      file = medium.provenance.get("file")
      reason = f"content says {kind}, the file holds a {medium.kind}"
      raise BadRecord("format", reason, None if file is None else str(file))
    times = _times(item, len(medium.frames))
    return medium if times is None else dataclasses.replace(medium, timestamps=times)

  def _read_path(self, item: Mapping[str, Any]) -> Media:
    path = item["path"]
    if not isinstance(path, (str, Path)):
      raise BadRecord("format", f"a path of type {type(path).__name__}; expected text")
    return self.reader(
      path if self.root is None else self.root / path,
      media_lib.options({key: item[key] for key in from_json.NAMES if key in item}),
      preset=self.policy.preset,
      root=self.root,
      key=self.key,
    )


def conversation(record: Mapping[str, Any] | BadRecord) -> tuple[str, Any]:
  """The id and the messages of a record in any form of `records.normalise`.

  Raises:
    BadRecord: what stands in its place, or a record without id, messages or conversations.
  """
  if isinstance(record, BadRecord):
    raise record
  return records.normalise(record)


def _items(message: Any) -> list[Mapping[str, Any]]:
  try:
    return chat.content_items(message)
  except (ValueError, AttributeError) as error:
    raise BadRecord("format", str(error)) from None


def _check_unicode(texts: Sequence[str]) -> None:
  """JSON can say half a surrogate pair, which no tokenizer takes."""
  try:
    "".join(texts).encode()
  except UnicodeEncodeError:
    raise BadRecord("format", "text that is not valid Unicode") from None


def _from_frames(item: Mapping[str, Any]) -> Media:
  frames = np.asarray(item["frames"])
  known = frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[-1] in (1, 3)
  if not known or not frames.size:
    raise BadRecord(
      "format", f"frames are {frames.dtype} {frames.shape}; expected uint8 [T, H, W, 1 or 3]"
    )
  if item["type"] == "image" and len(frames) != 1:
    raise BadRecord("format", f"an image of {len(frames)} frames; expected 1")
  return Media(
    kind=item["type"],
    frames=frames,
    modality=media_lib.options({"modality": item.get("modality")}).modality,
  )


def _times(item: Mapping[str, Any], frames: int) -> tuple[float, ...] | None:
  """Seconds per frame as the item says them, None where it does not."""
  if "time" not in item and "timestamps" not in item:
    return None
  times = item.get("timestamps", [item.get("time")])
  if not isinstance(times, (list, tuple)) or len(times) != frames:
    raise BadRecord("format", f"times of another form; expected a list of {frames}, one a frame")
  if not all(isinstance(t, numbers.Real) and math.isfinite(t) for t in times):
    raise BadRecord("format", "times that are not numbers; expected seconds")
  return tuple(times)
