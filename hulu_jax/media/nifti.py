"""NIfTI volumes (.nii, .nii.gz), and AFNI and Philips PAR/REC where a package ships them."""

from collections.abc import Sequence
import gzip
import math
import os
from pathlib import Path
from typing import Any
import zlib

from isal import igzip
import nibabel
import numpy as np

from hulu_jax.media import intensity
from hulu_jax.media import nifti_space
from hulu_jax.media import volume
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options
from hulu_jax.media.types import Provenance

_CHUNK = 1 << 20
_MOST_AFTER = 1 << 20  # bytes; a small file may go on for gigabytes
_HEADER = 540  # bytes of a NIfTI-2 header; NIfTI-1 has 348
# Data type codes of nifti1.h that hold one real number.
_REAL = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}
_REFUSED = {1: "single bits", 32: "complex numbers", 128: "RGB colours", 2304: "RGBA colours"}
_REFUSED |= {1536: "128-bit numbers", 1792: "complex numbers", 2048: "complex numbers"}
# Intent codes of nifti1.h whose values are no intensities.
_STATISTICS, _LABELS = range(2, 25), 1002


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """One volume in RAS geometry; 4D needs `options.time_index`.  Raises BadRecord."""
  if options.series is not None or options.phase is not None or options.spacing_mm is not None:
    raise BadRecord("options", "series, phase and spacing_mm do not apply to a NIfTI file")
  # nibabel raises HeaderDataError, ImageFileError, OSError, ValueError, ... on damaged files;
  # their messages quote paths, so the cause is not chained.
  try:
    limits.check_bytes(path.stat().st_size)
    if path.suffix.lower() in (".head", ".par"):
      voxels = _foreign(path, options, limits)
    else:
      voxels = _voxels(path, preset, options, limits)
  except BadRecord:
    raise
  except Exception as error:
    raise BadRecord("format", f"a damaged NIfTI file ({type(error).__name__})") from None
  return volume.render(voxels, preset, options, limits)


def is_header(head: bytes) -> bool:
  """True if `head`, the first 352 or more bytes, is the start of a one-file NIfTI-1 or -2."""
  return head[344:347] == b"n+1" or head[4:7] == b"n+2"


def start_of_gzip(path: Path) -> bytes:
  """The first bytes of what a gzip file holds; BadRecord if it cannot be inflated."""
  try:
    with gzip.open(path) as stream:
      return stream.read(_HEADER)
  except (OSError, EOFError, zlib.error) as error:
    raise BadRecord("format", f"a damaged gzip file ({type(error).__name__})") from None


def _foreign(path: Path, options: Options, limits: Limits) -> volume.Voxels:
  """A volume of another format that nibabel knows."""
  image: Any = nibabel.load(path)
  try:
    shape = _shape(image.shape, limits)
    time = _time(shape, options.time_index)
    data = image.dataobj[..., time] if len(image.shape) == 4 else np.asarray(image.dataobj)
  finally:
    # nibabel may leave its second file open; Python's warning of that would quote the path.
    if not isinstance(image.dataobj.file_like, str | os.PathLike):
      image.dataobj.file_like.close()
  affine = np.asarray(image.affine, np.float64)
  return volume.Voxels(data.reshape(shape[:3]), affine, look=intensity.declared(options))


def _voxels(path: Path, preset: str, options: Options, limits: Limits) -> volume.Voxels:
  packed = _is_packed(path)
  header = _header(start_of_gzip(path) if packed else _start(path))
  code = int(header["datatype"])
  if code not in _REAL:
    what = _REFUSED.get(code, f"an unknown type ({code})")
    raise BadRecord("format", f"voxels of {what}; expected one real number each")
  shape = _shape(header.get_data_shape(), limits)
  time = _time(shape, options.time_index)
  dtype = header.get_data_dtype()
  size = math.prod(shape[:3]) * dtype.itemsize
  # 0 is what writers of pairs leave in a single file; it then means right behind the header.
  start = int(header.get_data_offset()) or header.single_vox_offset
  if start < header.sizeof_hdr:
    raise BadRecord("format", f"data that begin at byte {start}, inside of the header")
  end = start + size * shape[3]
  limits.check_bytes(end)
  stored = np.empty(math.prod(shape[:3]), dtype)
  _fill(path, packed, stored, start + size * time, end, limits)
  space = nifti_space.space(header, shape[:3])
  values = _scaled(stored, header, np.dtype(np.float64 if preset == "hulumed" else np.float32))
  return volume.Voxels(
    values.reshape(shape[:3], order="F"),
    space.affine,
    space.steps,
    look=intensity.declared(options),
    notes=(*space.notes, *_intent(header)),
    provenance=_provenance(space.source, shape, time),
  )


def _is_packed(path: Path) -> bool:
  with open(path, "rb") as file:
    return file.read(2) == b"\x1f\x8b"


def _start(path: Path) -> bytes:
  with open(path, "rb") as file:
    return file.read(_HEADER)


def _header(head: bytes) -> nibabel.Nifti1Header:
  kind = nibabel.Nifti2Header if head[4:7] == b"n+2" else nibabel.Nifti1Header
  return kind(head[: kind.sizeof_hdr], check=False)


def _shape(shape: Sequence[int], limits: Limits) -> tuple[int, int, int, int]:
  """[i, j, k, time], from the 2 to 4 axes of the file."""
  if not 2 <= len(shape) <= 4:
    raise BadRecord("geometry", f"an image of {len(shape)} axes; expected 3, or 4 with time")
  first, second, third, times = (*(int(n) for n in shape), 1, 1)[:4]
  limits.check(third * times, first, second)
  return first, second, third, times


def _time(shape: Sequence[int], wanted: int | None) -> int:
  """Which volume of the file to read."""
  times = shape[3]
  if wanted is None and times > 1:
    raise BadRecord(
      "options", f"a 4D file of {times} volumes; expected time_index 0 to {times - 1}"
    )
  if not 0 <= (wanted or 0) < times:
    raise BadRecord("options", f"time_index {wanted}; the file has 0 to {times - 1}")
  return wanted or 0


def _fill(
  path: Path, packed: bool, stored: np.ndarray, start: int, end: int, limits: Limits
) -> None:
  """Reads `stored` from byte `start` of the contents; BadRecord unless these have `end` bytes."""
  target = stored.view(np.uint8).data
  if packed:
    found = _inflate(path, target, start, end, limits)
  else:
    found = path.stat().st_size
    if found >= end:
      with open(path, "rb") as file:
        file.seek(start)
        found = end if file.readinto(target) == len(target) else 0
  if found < end:
    raise BadRecord("format", f"a truncated NIfTI file: {found:,} bytes of {end:,}")


def _inflate(path: Path, target: memoryview, start: int, end: int, limits: Limits) -> int:
  """Fills `target` from byte `start` of a gzip file; how many bytes that holds.

  It is inflated to its end, a piece at a time, so that its checksum is compared; under the byte
  cap, and with little behind the voxels.  ISA-L takes under half of zlib's time.
  """
  beside = memoryview(bytearray(_CHUNK))  # for what is not asked for
  found = 0
  with igzip.open(path) as stream:
    while count := stream.readinto(_room(target, beside, found - start)):
      found += count
      limits.check_bytes(found)
      limits.within("trailing bytes", found - end, _MOST_AFTER)
  return found


def _room(target: memoryview, beside: memoryview, first: int) -> memoryview:
  """Where bytes go that come `first` bytes after the first of `target`."""
  if first < 0:
    return beside[:-first]
  return target[first : first + _CHUNK] or beside


def _scaled(stored: np.ndarray, header: nibabel.Nifti1Header, real: np.dtype) -> np.ndarray:
  """Values in the units of the file: integers where they stay whole, else of type `real`.

  A slope of 0, or that is not finite, means that values are as stored (nifti1.h).
  """
  native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
  slope, offset = float(header["scl_slope"]), float(header["scl_inter"])
  if slope == 0 or not math.isfinite(slope):
    return native
  if not math.isfinite(offset):
    raise BadRecord("format", f"a scl_inter of {offset:g} beside a slope; expected a number")
  if (slope, offset) == (1, 0):
    return native
  if native.dtype.kind in "iu" and native.dtype.itemsize <= 4:
    whole = _whole(native, slope, offset)
    if whole is not None:
      return whole
  out = np.empty(native.shape, real)
  for first in range(0, len(native), _CHUNK):
    part = native[first : first + _CHUNK].astype(np.float64)
    part *= slope
    part += offset
    out[first : first + _CHUNK] = part
  return out


def _whole(native: np.ndarray, slope: float, offset: float) -> np.ndarray | None:
  """`native * slope + offset` as the smallest integers that hold it, None where none do."""
  if not (slope.is_integer() and offset.is_integer()):
    return None
  ends = [int(v) * int(slope) for v in (native.min(), native.max())]
  reach = [v + shift for v in ends for shift in (0, int(offset))]
  for kind in (np.int16, np.int32):
    if np.iinfo(kind).min <= min(reach) and max(reach) <= np.iinfo(kind).max:
      return native.astype(kind) * np.array(slope, kind) + np.array(offset, kind)
  return None


def _intent(header: nibabel.Nifti1Header) -> tuple[str, ...]:
  code = int(header["intent_code"])
  if code == _LABELS:
    return ("the file declares labels (intent 1002): its values are classes, not intensities",)
  if code in _STATISTICS:
    return (f"the file declares a statistical map (intent {code}), not a picture of a patient",)
  return ()


def _provenance(source: str, shape: Sequence[int], time: int) -> Provenance:
  if shape[3] == 1:
    return {"placed_by": source}
  return {"placed_by": source, "volumes_in_file": int(shape[3]), "time_index": time}
