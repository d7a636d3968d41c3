"""Where each frame of compressed DICOM pixels lies in the file, without reading the pixels."""

from collections.abc import Sequence
import dataclasses
import os
import struct
from typing import BinaryIO

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.dicom import codestream
from hulu_jax.media.errors import BadRecord

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True)
class Fragments:
  """The items of encapsulated pixels (PS3.5 A.4): int64 [n] offsets of the items and [n] lengths of
  what they hold, and the Basic Offset Table: int64 offsets from the first item, often empty."""

  items: np.ndarray
  lengths: np.ndarray
  table: np.ndarray


def scan(file: BinaryIO) -> Fragments:
  """file: stands at the first item, the Basic Offset Table.

  Raises BadRecord unless items follow each other up to their delimiter.
  """
  end = os.fstat(file.fileno()).st_size
  position = file.tell()
  items, lengths = [], []
  while (start := file.read(8))[:4] == _ITEM and len(start) == 8:
    length = struct.unpack("<L", start[4:])[0]
    if length == _UNDEFINED or position + 8 + length > end:
      raise BadRecord("format", "a fragment of pixels that leaves the file: it is cut off")
    items.append(position)
    lengths.append(length)
    position += 8 + length
    file.seek(position)
  if start[:4] != _END:
    found = "the end of the file" if len(start) < 8 else "other data"
    raise BadRecord("format", f"{found} among the fragments of pixels; expected their delimiter")
  if not items or lengths[0] % 4:
    raise BadRecord("format", "compressed pixels without a valid Basic Offset Table")
  file.seek(items[0] + 8)
  table = np.frombuffer(file.read(lengths[0]), "<u4").astype(np.int64)
  return Fragments(np.array(items[1:], np.int64), np.array(lengths[1:], np.int64), table)


def split(file: BinaryIO, fragments: Fragments, dataset: Dataset, frames: int) -> np.ndarray:
  """int64 [frames + 1]: frame k is the fragments from entry k up to entry k + 1.

  One fragment each, or as an offset table says, or where compressed frames start.  Raises
  BadRecord if this does not give the declared number of frames.
  """
  count = len(fragments.items)
  if count < frames:
    raise BadRecord("format", f"{count} fragments of pixels for {frames} frames: some are missing")
  starts = _by_table(fragments, dataset, frames)
  if starts is None and count == frames:
    starts = np.arange(count)
  if starts is None:
    starts = _by_start_of_codestream(file, fragments)
  if len(starts) != frames:
    raise BadRecord(
      "format", f"{len(starts)} frames in {count} fragments of pixels; the header says {frames}"
    )
  return np.append(starts, count)


def frame(file: BinaryIO, fragments: Fragments, bounds: Sequence[int] | np.ndarray) -> bytes:
  """The bytes of one frame: the fragments from bounds[0] up to bounds[1], joined."""
  parts = []
  for k in range(int(bounds[0]), int(bounds[1])):
    file.seek(int(fragments.items[k]) + 8)
    parts.append(file.read(int(fragments.lengths[k])))
  return b"".join(parts)


def _by_table(fragments: Fragments, dataset: Dataset, frames: int) -> np.ndarray | None:
  """The first fragment of each frame by the extended or basic table; None without a sound one.

  Many writers' tables are wrong, so one is believed only if it points at fragments.
  """
  extended = dataset.get("ExtendedOffsetTable")
  table = np.frombuffer(extended, "<u8").astype(np.int64) if extended else fragments.table
  if len(table) < frames or (len(table) > frames and len(fragments.items) == frames):
    return None
  wanted = table + fragments.items[0]
  starts = np.searchsorted(fragments.items, wanted)
  found = fragments.items[np.minimum(starts, len(fragments.items) - 1)]
  sound = np.array_equal(found, wanted) and starts[0] == 0 and np.diff(starts).min(initial=1) > 0
  return starts if sound else None


def _by_start_of_codestream(file: BinaryIO, fragments: Fragments) -> np.ndarray:
  starts = []
  for k, item in enumerate(fragments.items):
    file.seek(int(item) + 8)
    if k == 0 or codestream.starts_here(file.read(12)):
      starts.append(k)
  return np.array(starts)
