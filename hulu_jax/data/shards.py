"""Records with their frames in ArrayRecord shards: how one is written as bytes, and found again."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path
import struct
import threading
from typing import Any

from array_record.python import array_record_module
import numpy as np

from hulu_jax.data.vision import Fitted

# Frames are compressed as they are stored: text and slices to less than half, photographs hardly.
WRITER = "group_size:1,zstd:3"
_READER = "readahead_buffer_size:0,max_parallelism:0"  # each record is read by itself
# Shards held open at once, each with a megabyte of buffer and a file handle.
_OPEN = 64
_HEADER = struct.Struct("<Q")


def encode(record: Mapping[str, Any]) -> bytes:
  """A record to bytes: the length of a JSON header, the header, all frames one after the other.

  Content items hold media as `medium`, each a `Fitted`; all else is JSON.
  """
  media: list[Fitted] = []
  messages = [
    {"role": m["role"], "content": [_item(i, media) for i in m["content"]]}
    for m in record["messages"]
  ]
  fields = [_fields(m) for m in media]
  header = {**record, "messages": messages, "media": fields}
  text = json.dumps(header, default=np.generic.item).encode()
  frames = [np.ascontiguousarray(m.frames).tobytes() for m in media]
  return b"".join([_HEADER.pack(len(text)), text, *frames])


def _item(item: Mapping[str, Any], media: list[Fitted]) -> Mapping[str, Any]:
  if "medium" not in item:
    return item
  media.append(item["medium"])
  return {**item, "medium": len(media) - 1}


def _fields(medium: Fitted) -> dict[str, Any]:
  fields = {f.name: vars(medium)[f.name] for f in dataclasses.fields(medium)}
  plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in fields.items()
           if k != "frames" and v is not None}  # fmt: skip
  return {**plain, "shape": medium.frames.shape}


def decode(data: bytes) -> dict[str, Any]:
  """What `encode` was given; frames are views of `data`, read-only."""
  (size,) = _HEADER.unpack_from(data)
  start = _HEADER.size + size
  record = json.loads(data[_HEADER.size : start])
  media = []
  for fields in record.pop("media"):
    shape = fields.pop("shape")
    count = int(np.prod(shape))
    frames = np.frombuffer(data, np.uint8, count, start).reshape(shape)
    start += count
    media.append(_medium(fields, frames))
  for message in record["messages"]:
    for item in message["content"]:
      if "medium" in item:
        item["medium"] = media[item["medium"]]
  return record


def _medium(fields: dict[str, Any], frames: np.ndarray) -> Fitted:
  affine = fields.pop("affine", None)
  return Fitted(
    **{name: _tuples(value) for name, value in fields.items()},
    affine=None if affine is None else np.array(affine, np.float64),
    frames=frames,
  )


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


class Writer:
  """One shard while it is written; a context manager."""

  def __init__(self, path: Path):
    self._writer = array_record_module.ArrayRecordWriter(str(path), WRITER)

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, *exception: Any) -> None:
    self._writer.close()

  def write(self, data: bytes) -> None:
    """Appends a record."""
    self._writer.write(data)


class Reader:
  """Random access to the records of several shards, each opened when it is first wanted; safe for
  several threads.

  sizes: records of each shard.
  """

  def __init__(self, paths: Sequence[Path], sizes: Sequence[int]):
    self._paths, self._sizes = tuple(paths), tuple(sizes)
    self._ends = np.cumsum(sizes)
    self._open: OrderedDict[int, Any] = OrderedDict()
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, index: int) -> bytes:
    """The bytes of a record.

    Raises:
      IndexError: there are fewer.
      ValueError: the shard is damaged, or holds another number of records.
    """
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    shard = int(np.searchsorted(self._ends, index, side="right"))
    place = int(index - self._ends[shard] + self._sizes[shard])
    try:
      with self._lock:  # a reader has one position in its file
        return self._reader(shard).read([place])[0]
    except RuntimeError as error:  # what the library raises for a damaged file
      raise ValueError(f"{self._paths[shard].name}, record {place}: damaged ({error})") from error

  def _reader(self, shard: int) -> Any:
    if shard not in self._open:
      reader = array_record_module.ArrayRecordReader(str(self._paths[shard]), _READER)
      if reader.num_records() != self._sizes[shard]:
        raise ValueError(
          f"{self._paths[shard].name} holds {reader.num_records()} records; its manifest says "
          f"{self._sizes[shard]}"
        )
      self._open[shard] = reader
      if len(self._open) > _OPEN:
        _, oldest = self._open.popitem(last=False)
        oldest.close()
    self._open.move_to_end(shard)
    return self._open[shard]
