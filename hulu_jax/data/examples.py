"""One record to one example: its media read, its chat tokenized; or why it cannot be used."""

from collections.abc import Mapping
import dataclasses
import numbers
from pathlib import Path
import tempfile
from typing import Any
import zlib

import numpy as np

from hulu_jax import media as media_lib
from hulu_jax.data import chat
from hulu_jax.data import llava
from hulu_jax.data import vision
from hulu_jax.data.schema import Example
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.data.vision import Policy
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

# What a content item may say about its medium, beside `type` and `path` or `frames`.
_OPTIONS = ("modality", "window", "plane", "time_index", "spacing_mm")
_LABELS = ("timestamps", "time", "phase", "label")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Builder:
  """Turns records into examples; a pure function, safe to call from several threads.

  root: where paths in records start, and may not leave; None takes them as they are, for a caller
    who wrote them.  source: number of the dataset.
  """

  tokenizer: Tokenizer
  policy: Policy
  root: Path | None
  source: int = 0

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
    media = self.read_all(messages)
    try:
      visuals = vision.visuals(media, self.policy)
      entries = [chat.Entry(len(m.frames), m.timestamps) for m in media]
      pieces = chat.render(messages, entries, generate=generate)
    except ValueError as error:
      raise BadRecord("format", str(error)) from error
    keep = [v.keep for v in visuals]
    seed = zlib.crc32(name.encode())
    tokens, weights, visual = chat.encode(pieces, keep, self.tokenizer, seed)
    return Example(name, tokens, weights, visuals, visual, self.source)

  def read_all(self, messages: Any) -> list[Media]:
    """The media of a conversation, in order.  Raises BadRecord as `build` does."""
    if not isinstance(messages, (list, tuple)):
      raise BadRecord("format", f"messages are {type(messages).__name__}; expected a list")
    return [
      self.read(item)
      for message in messages
      for item in _items(message)
      if item["type"] in chat.MEDIA_TYPES
    ]

  def read(self, item: Mapping[str, Any]) -> Media:
    """The medium of a content item: its `medium` or `frames` as they are, its `path` or `bytes`
    (those of a file) read."""
    kind = item["type"]
    known = {"type", "path", "bytes", "frames", "medium", *_OPTIONS, *_LABELS}
    if unknown := sorted(set(item) - known):
      raise BadRecord("format", f"unknown keys {unknown} beside {kind}; there are {sorted(known)}")
    if "frames" in item:
      return _from_frames(item)
    if "medium" in item:
      medium = _ready(item)
    elif "bytes" in item:
      medium = self._read_bytes(item)
    elif "path" in item:
      medium = self._read_path(self._resolve(item["path"]), item)
    else:
      raise BadRecord("format", f"{kind} content without path or frames")
    if medium.kind != kind:
      raise BadRecord("format", f"content says {kind}, the file holds a {medium.kind}")
    times = _times(item, len(medium.frames))
    return medium if times is None else dataclasses.replace(medium, timestamps=times)

  def _read_path(self, path: Path, item: Mapping[str, Any]) -> Media:
    options = Options(**{k: item[k] for k in _OPTIONS if k in item})
    return media_lib.read(path, preset=self.policy.preset, options=options)

  def _read_bytes(self, item: Mapping[str, Any]) -> Media:
    if not isinstance(item["bytes"], bytes):
      raise BadRecord("format", f"bytes are {type(item['bytes']).__name__}; expected a file's")
    with tempfile.TemporaryDirectory() as folder:  # readers and their processes take paths
      path = Path(folder) / "medium"
      path.write_bytes(item["bytes"])
      return self._read_path(path, item)

  def _resolve(self, path: str) -> Path:
    if self.root is None:
      return Path(path)
    whole = (self.root / path).resolve()
    if not whole.is_relative_to(self.root.resolve()):
      raise BadRecord("missing", "a path that leaves the data root")
    return whole


def conversation(record: Mapping[str, Any] | BadRecord) -> tuple[str, Any]:
  """The id and the messages of a record in either form.

  Raises:
    BadRecord: what stands in its place, or a record without id, messages or conversations.
  """
  if isinstance(record, BadRecord):
    raise record
  if "id" not in record or not {"messages", "conversations"} & record.keys():
    raise BadRecord("format", f"keys {sorted(record)}; expected id, and messages")
  if "messages" in record:
    return str(record["id"]), record["messages"]
  return str(record["id"]), llava.to_messages(record)


def _items(message: Any) -> list[Mapping[str, Any]]:
  try:
    return chat.content_items(message)
  except (ValueError, AttributeError) as error:
    raise BadRecord("format", str(error)) from error


def _ready(item: Mapping[str, Any]) -> Media:
  if not isinstance(item["medium"], Media):
    raise BadRecord("format", f"medium is {type(item['medium']).__name__}; expected Media")
  return item["medium"]


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
    modality=item.get("modality"),
    timestamps=_times(item, len(frames)),
  )


def _times(item: Mapping[str, Any], frames: int) -> tuple[float, ...] | None:
  """Seconds per frame as the item says them, None where it does not."""
  if "time" not in item and "timestamps" not in item:
    return None
  times = item.get("timestamps", [item.get("time")])
  if not isinstance(times, (list, tuple)) or len(times) != frames:
    raise BadRecord("format", f"times {times!r}; expected a list of {frames}, one a frame")
  if not all(isinstance(t, numbers.Real) for t in times):
    raise BadRecord("format", f"times {times!r}; expected numbers, in seconds")
  return tuple(times)
