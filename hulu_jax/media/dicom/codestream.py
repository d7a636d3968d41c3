"""What a compressed frame says of itself, so that it can be held against the header undecoded."""

import dataclasses
import struct

from hulu_jax.media.errors import BadRecord

_JPEG, _J2K, _JP2 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
# Start of frame: ITU T.81 table B.1 (without DHT, JPG, DAC) and T.87 (JPEG-LS, FFF7).
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_START_OF_SCAN = 0xDA
_ALONE = {0x01, *range(0xD0, 0xD8)}


@dataclasses.dataclass(frozen=True)
class Codestream:
  """rows, columns and components of the frame, and the bits of one sample.

  signed: only JPEG 2000 can say so.  named_rgb: a JPEG whose components are called R, G and B.
  """

  rows: int
  columns: int
  components: int
  precision: int
  signed: bool = False
  named_rgb: bool = False


def starts_here(data: bytes) -> bool:
  """True if `data` is the start of a JPEG, JPEG-LS or JPEG 2000 frame, not the middle of one."""
  return data.startswith((_JPEG, _J2K, _JP2))


def parse(data: bytes) -> Codestream:
  """Of one frame in JPEG, JPEG-LS or JPEG 2000.  Raises BadRecord for anything else."""
  if data.startswith(_JPEG):
    return _jpeg(data)
  start = 0 if data.startswith(_J2K) else data.find(_J2K) if data.startswith(_JP2) else -1
  if start < 0:
    raise BadRecord("format", "a frame that does not start as its transfer syntax says")
  return _jpeg_2000(data, start)


def _jpeg_2000(data: bytes, start: int) -> Codestream:
  """ITU T.800 A.5.1: image and tile size."""
  try:
    x1, y1, x0, y0 = struct.unpack_from(">4L", data, start + 8)
    components = struct.unpack_from(">H", data, start + 40)[0]
    depth = data[start + 42]
  except (struct.error, IndexError):
    raise BadRecord("format", "a JPEG 2000 frame whose header is cut off") from None
  return Codestream(y1 - y0, x1 - x0, components, (depth & 0x7F) + 1, signed=depth > 0x7F)


def _jpeg(data: bytes) -> Codestream:
  """Walks the marker segments up to the start of frame."""
  position = 2
  while position + 10 <= len(data) and data[position] == 0xFF:
    marker = data[position + 1]
    if marker == 0xFF or marker in _ALONE:  # fill byte, or a marker without a segment
      position += 1 if marker == 0xFF else 2
      continue
    if marker in _FRAMES:
      precision, rows, columns, components = struct.unpack_from(">BHHB", data, position + 4)
      names = data[position + 10 : position + 19 : 3]
      return Codestream(rows, columns, components, precision, named_rgb=names in (b"RGB", b"rgb"))
    if marker == _START_OF_SCAN:
      break
    position += 2 + struct.unpack_from(">H", data, position + 2)[0]
  raise BadRecord("format", "a JPEG frame without a size: the file is damaged")
