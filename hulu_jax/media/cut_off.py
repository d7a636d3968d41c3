"""Whether a clip's file ends before its container says it does: a cut-off file decodes in silence.

Each check reads sizes that the container declares, not the frames: exact, and before any decoding.
A container written as a stream declares none, and an MPEG file cut between two packets is a valid
shorter one: those pass.
"""

from collections.abc import Callable
import mmap
import os
from pathlib import Path
from typing import BinaryIO

from hulu_jax.media.errors import BadRecord

# Top-level boxes of an mp4 or blocks of a GIF that are followed; no real file has so many.
_MOST_PARTS = 200_000
_SEGMENT = 0x18538067
# Longer than any packet of an MPEG program stream (16 bits of length).
_TAIL = 1 << 17


def check(path: Path) -> None:
  """Raises BadRecord for a clip that lacks bytes it declares; what is no clip passes."""
  with open(path, "rb") as file:
    size = os.fstat(file.fileno()).st_size
    needed = _needed(file.read(12))(file, size)
  if needed > size:
    raise BadRecord("format", f"a truncated video: {size:,} bytes of {needed:,} or more")


def _needed(head: bytes) -> Callable[[BinaryIO, int], int]:
  """The check for a file that starts so; each returns the bytes that its container declares."""
  for offset, magic, check_container in _NEEDS:
    if head[offset : offset + len(magic)] == magic:
      return check_container
  return lambda file, size: size


def _boxes(file: BinaryIO, size: int) -> int:
  """End of the last top-level box (ISO/IEC 14496-12, 4.2)."""
  start = 0
  for _ in range(_MOST_PARTS):
    if start >= size:
      break
    file.seek(start)
    head = file.read(16)
    length = int.from_bytes(head[:4], "big")
    if length == 1:
      length = int.from_bytes(head[8:16], "big")
    if length == 0:  # to the end of the file
      return size
    if length < 8 or not head[4:8].isalnum():  # padding that some writers leave behind
      break
    start += length
  return start


def _segment(file: BinaryIO, size: int) -> int:
  """End of the Segment, the one element after the EBML header (RFC 8794, RFC 9559)."""
  file.seek(0)
  head = file.read(4096)
  position = 4
  length, position = _ebml_size(head, position)
  position += length or 0
  if int.from_bytes(head[position : position + 4], "big") != _SEGMENT:
    return size
  length, position = _ebml_size(head, position + 4)
  return size if length is None else position + length


def _ebml_size(data: bytes, position: int) -> tuple[int | None, int]:
  """A variable-length size (None where it says "unknown"), and where it ends."""
  first = data[position] if position < len(data) else 0
  count = 9 - first.bit_length()  # bytes; 9 is not allowed
  bits = 7 * count
  value = int.from_bytes(data[position : position + count], "big") & ((1 << bits) - 1)
  unknown = count > 8 or value == (1 << bits) - 1
  return None if unknown else value, position + count


def _riff(file: BinaryIO, size: int) -> int:
  """End of the first RIFF chunk; 0 and -1 stand in files that were never closed."""
  file.seek(4)
  length = int.from_bytes(file.read(4), "little")
  return size if length in (0, 0xFFFFFFFF) else 8 + length


def _packets(file: BinaryIO, size: int) -> int:
  """End of the last packet of a program stream (ISO/IEC 13818-1, 2.4.3.6)."""
  start = max(0, size - _TAIL)
  file.seek(start)
  tail = file.read()
  position = len(tail)
  while (position := tail.rfind(b"\0\0\1", 0, position)) >= 0:
    code = tail[position + 3 : position + 4]
    # Padding, private, audio and video packets; picture data cannot hold these codes.
    if code in (b"\xbd", b"\xbe", b"\xbf") or b"\xc0" <= code <= b"\xef":
      length = int.from_bytes(tail[position + 4 : position + 6].ljust(2, b"\xff"), "big")
      return start + position + 6 + length
  return size


def _blocks(file: BinaryIO, size: int) -> int:
  """One past the trailer of a GIF (GIF89a specification); past the file where it is missing."""
  with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    return _end_of_blocks(data, size)


def _end_of_blocks(data: mmap.mmap, size: int) -> int:
  position = 13 + _colours(data, 10)
  for _ in range(_MOST_PARTS):
    kind = data[position : position + 1]
    if kind == b"\x3b":
      return position + 1
    if kind == b"\x21":
      position += 2
    elif kind == b"\x2c":
      position += 11 + _colours(data, position + 9)
    else:  # the end, or nothing a GIF holds
      return max(size, position) + 1
    while position < size and data[position]:
      position += 1 + data[position]
    position += 1
  return size


def _colours(data: mmap.mmap, flags: int) -> int:
  """Bytes of the colour table that the flags at this place announce."""
  found = data[flags] if flags < len(data) else 0
  return 3 << ((found & 7) + 1) if found & 0x80 else 0


# (offset, bytes, check), as in `read`.
_NEEDS: tuple[tuple[int, bytes, Callable[[BinaryIO, int], int]], ...] = (
  *((4, box, _boxes) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free")),
  (0, b"\x1aE\xdf\xa3", _segment),
  (8, b"AVI ", _riff),
  (0, b"\x00\x00\x01\xba", _packets),
  (0, b"GIF8", _blocks),
)
