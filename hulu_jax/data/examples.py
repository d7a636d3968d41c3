"""One record to one example: its media read, its chat tokenized; or why it cannot be used."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import numbers
from pathlib import Path
import tempfile
from typing import Any
import zlib

import numpy as np

from hulu_jax import media as media_lib
from hulu_jax.data import chat
from hulu_jax.data import cutting
from hulu_jax.data import lengths
from hulu_jax.data import records
from hulu_jax.data import rows
from hulu_jax.data import vision
from hulu_jax.data.cache import Cache
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import StepShape
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.data.vision import Policy
from hulu_jax.media import from_json
from hulu_jax.media import privacy
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

# What a content item may say about its medium, beside `type`.  `frames` is the medium itself, or,
# beside a path, how many to take; `phase` names a volume of the path, or labels the frames.
_LABELS = ("timestamps", "time", "label")
_BESIDE = {
  "path": ("type", "path", *_LABELS, *from_json.NAMES),
  "bytes": ("type", "bytes", *_LABELS, *from_json.NAMES),
  "medium": ("type", "medium", *_LABELS),
  "frames": ("type", "frames", *_LABELS, "modality", "phase"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Builder:
  """Turns records into examples; a pure function, safe to call from several threads.

  root: where paths in records start, and may not leave, nor any link below them; None takes them as
    they are, for a caller who wrote them.
  source: number of the dataset.
  reader: how a path is read; the `read` of a `media.worker.Reader` for files nobody vouches for.
  key: of the hashes that stand for paths (see `media.privacy`); None: drawn for this process.
  budget: step shapes; a record that fits a row of none is cut to fit one (see `cutting`), as far as
    that goes.  None: nothing is cut.
  cache: of volumes and clips as they are shown; it changes nothing but the time.
  """

  tokenizer: Tokenizer
  policy: Policy
  root: Path | None
  source: int = 0
  reader: Callable[..., Media] = media_lib.read
  key: bytes | None = None
  budget: Sequence[StepShape] | None = None
  cache: Cache | None = None

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
    example = self._example(messages, name, media, generate)
    if self._fits(example):
      return example
    return self._example(messages, name, self._cut(messages, name, media, generate), generate)

  def media(self, messages: Any, name: str) -> Sequence[Media]:
    """The media that `build` shows: cut, where the record is too long.  Raises as `build` does."""
    media = self.read_all(messages)
    if self.budget is None or self._fits(self._example(messages, name, media, generate=False)):
      return media
    return self._cut(messages, name, media, generate=False)

  def _example(self, messages: Any, name: str, media: Sequence[Media], generate: bool) -> Example:
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
    lost = cutting.said(media)
    return Example(name, tokens, weights, visuals, visual, self.source, lost)

  def _fits(self, example: Example) -> bool:
    if self.budget is None:
      return True
    length = lengths.of(example)
    return any(rows.refusal(length, shape) is None for shape in self.budget)

  def _cut(
    self, messages: Any, name: str, media: Sequence[Media], generate: bool
  ) -> Sequence[Media]:
    """The media as they fit; unchanged if no cut gets them to: the pipeline counts the record."""
    items = _media_items(messages)
    cut = cutting.Cut(
      policy=self.policy,
      fits=lambda media: self._fits(self._example(messages, name, media, generate)),
      loose=[role in ("system", "user") and item["type"] != "image" for role, item in items],
    )
    return cut(media, lambda: [self.read(item) for _, item in items]) or media

  def read_all(self, messages: Any) -> list[Media]:
    """The media of a conversation, in order; `vision.Fitted` where they come from the cache.

    Raises:
      BadRecord: as `build`.
    """
    items = [item for _, item in _media_items(messages)]
    if self.cache is None:
      return [self.read(item) for item in items]
    return self._through(self.cache, items)

  def _through(self, cache: Cache, items: Sequence[Mapping[str, Any]]) -> list[Media]:
    """Sizes depend on all media of a conversation, so those are asked of the cache first."""
    keys = [self._cache_key(cache, item) for item in items]
    known = [None if key is None else cache.find(key) for key in keys]
    raw: list[Media] = []
    for item, found in zip(items, known, strict=True):
      raw.append(self._raw(item) if found is None else self._named(item, vision.outline(found)))
      _checked(item, raw[-1])
    try:
      sizes = vision.sizes(raw, self.policy)
    except ValueError as error:
      raise BadRecord("format", str(error)) from None
    for n, (item, key, size, found) in enumerate(zip(items, keys, sizes, known, strict=True)):
      if key is None:
        continue
      if found is None or found.frames.shape[1:3] != size:
        found = None if found is None else cache.load(key, size)
      if found is None:
        found = vision.fitted(raw[n] if known[n] is None else self._raw(item), size)
        if self._cache_key(cache, item) == key:  # the file did not change under its decoder
          cache.store(key, size, found)
      raw[n] = self._named(item, found)
    return [_checked(item, medium) for item, medium in zip(items, raw, strict=True)]

  def _cache_key(self, cache: Cache, item: Mapping[str, Any]) -> str | None:
    """None for what is not cached: a picture is as quick to decode as to find."""
    if item["type"] == "image" or self.root is None:
      return None
    try:
      if _source(item) != "path" or not isinstance(item["path"], str):
        return None
      options = _options(item)
    except BadRecord:  # reading it says so, in its turn
      return None
    return cache.key(self.root / item["path"], options, self.policy.preset, self.root)

  def _named(self, item: Mapping[str, Any], medium: Media) -> Media:
    """With the hash of its path under this run's key, as a reader would have put it."""
    assert self.root is not None
    file = privacy.file_hash(self.root / item["path"], key=self.key)
    return dataclasses.replace(medium, provenance={**medium.provenance, "file": file})

  def read(self, item: Mapping[str, Any]) -> Media:
    """The medium of a content item: its `medium` or `frames` as they are, its `path` or `bytes`
    (those of a file) read."""
    return _checked(item, self._raw(item))

  def _raw(self, item: Mapping[str, Any]) -> Media:
    match _source(item):
      case "path":
        return self._read_path(item, self.root)
      case "bytes":
        return self._read_bytes(item)
      case "medium":
        return _ready(item)
      case _:
        return _from_frames(item)

  def _read_path(self, item: Mapping[str, Any], root: Path | None) -> Media:
    path = item["path"]
    if not isinstance(path, (str, Path)):
      raise BadRecord("format", f"a path of type {type(path).__name__}; expected text")
    return self.reader(
      path if root is None else root / path,
      _options(item),
      preset=self.policy.preset,
      root=root,
      key=self.key,
    )

  def _read_bytes(self, item: Mapping[str, Any]) -> Media:
    if not isinstance(item["bytes"], bytes):
      raise BadRecord("format", f"bytes are {type(item['bytes']).__name__}; expected a file's")
    with tempfile.TemporaryDirectory() as folder:  # readers and their processes take paths
      path = Path(folder) / "medium"
      path.write_bytes(item["bytes"])
      return self._read_path({**item, "path": str(path)}, None)


def conversation(record: Mapping[str, Any] | BadRecord) -> tuple[str, Any]:
  """The id and the messages of a record in any form of `records.normalise`.

  Raises:
    BadRecord: what stands in its place, or a record without id, messages or conversations.
  """
  if isinstance(record, BadRecord):
    raise record
  return records.normalise(record)


def _source(item: Mapping[str, Any]) -> str:
  """Which of `_BESIDE` an item has; raises BadRecord for none, or a key that cannot be beside."""
  kind = item["type"]
  source = next((s for s in _BESIDE if s in item), None)
  if source is None:
    raise BadRecord("format", f"{kind} content without path or frames")
  for key in item:
    if key not in _BESIDE[source]:
      raise BadRecord("format", f"beside {kind}: {from_json.unknown(key, _BESIDE[source])}")
  return source


def _options(item: Mapping[str, Any]) -> Options:
  return media_lib.options({key: item[key] for key in from_json.NAMES if key in item})


def _checked(item: Mapping[str, Any], medium: Media) -> Media:
  """A medium of the kind that the item says, with the times that it says."""
  if medium.kind != item["type"]:
    file = medium.provenance.get("file")
    reason = f"content says {item['type']}, the file holds a {medium.kind}"
    raise BadRecord("format", reason, None if file is None else str(file))
  times = _times(item, len(medium.frames))
  return medium if times is None else dataclasses.replace(medium, timestamps=times)


def _media_items(messages: Any) -> list[tuple[Any, Mapping[str, Any]]]:
  """The role of the message and the item, for each medium of a conversation."""
  if not isinstance(messages, (list, tuple)):
    raise BadRecord("format", f"messages are {type(messages).__name__}; expected a list")
  return [
    (message.get("role"), item)
    for message in messages
    for item in _items(message)
    if item["type"] in chat.MEDIA_TYPES
  ]


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
