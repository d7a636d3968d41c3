"""NIfTI volumes (.nii, .nii.gz), and AFNI and Philips PAR/REC where a package ships them."""

import gzip
from pathlib import Path
import zlib

import nibabel
import numpy as np

from hulu_jax.media import intensity
from hulu_jax.media import volume
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

_CHUNK = 1 << 20
_HEADER = 540  # bytes of a NIfTI-2 header; NIfTI-1 has 348


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """One volume in RAS geometry; 4D needs `options.time_index`.  Raises BadRecord."""
  # nibabel raises HeaderDataError, ImageFileError, OSError, ValueError, ... on damaged files;
  # their messages quote paths, so the cause is not chained.
  try:
    image = _load(path, limits)
    voxels = _voxels(image, options, limits)
  except BadRecord:
    raise
  except Exception as error:
    raise BadRecord("format", f"a damaged NIfTI file ({type(error).__name__})") from None
  return volume.render(voxels, preset, options)


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


def _load(path: Path, limits: Limits) -> nibabel.filebasedimages.FileBasedImage:
  limits.check_bytes(path.stat().st_size)
  if path.suffix.lower() in (".head", ".par"):
    return nibabel.load(path)
  with open(path, "rb") as file:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = gzip.GzipFile(fileobj=file) if packed else file
    head = stream.read(_HEADER)
    kind = nibabel.Nifti2Image if head[4:7] == b"n+2" else nibabel.Nifti1Image
    header = kind.header_class(head[: kind.header_class.sizeof_hdr], check=False)
    shape = header.get_data_shape()
    _check_shape(shape, limits)
    size = int(header.get_data_offset()) + int(np.prod(shape)) * header.get_data_dtype().itemsize
    limits.check_bytes(size)
    data = head + _read_to_end(stream, limits, len(head))
  if len(data) < size:
    raise BadRecord("format", f"a truncated NIfTI file: {len(data):,} bytes of {size:,}")
  return kind.from_bytes(data)


def _read_to_end(stream, limits: Limits, done: int) -> bytes:
  """Everything left, under the byte cap; reaching the end makes gzip check its CRC."""
  parts = []
  while part := stream.read(_CHUNK):
    parts.append(part)
    done += len(part)
    limits.check_bytes(done)
  return b"".join(parts)


def _check_shape(shape: tuple[int, ...], limits: Limits) -> None:
  if not 2 <= len(shape) <= 4:
    raise BadRecord("geometry", f"an image of {len(shape)} axes; expected 3, or 4 with time")
  full = (*shape, 1, 1)[:4]
  limits.check(full[2] * full[3], full[0], full[1])


def _voxels(image, options: Options, limits: Limits) -> volume.Voxels:
  _check_shape(image.shape, limits)
  values = _one_volume(image, options.time_index)
  zooms = image.header.get_zooms()[:3]
  rows, columns, slices = (float(z) for z in (*zooms, 1.0)[:3])
  affine: np.ndarray | None = np.asarray(image.affine, np.float64)
  if isinstance(image, nibabel.Nifti1Image) and not _oriented(image.header):
    affine = None
  return volume.Voxels(values, affine, (rows, columns, slices), intensity.declared(options))


def _oriented(header) -> bool:
  return int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0


def _one_volume(image, time_index: int | None) -> np.ndarray:
  """[i, j, k] in the units of the file; unscaled files keep their integers."""
  shape = image.shape
  times = shape[3] if len(shape) == 4 else 1
  if time_index is None and times > 1:
    raise BadRecord(
      "options", f"a 4D file of {times} volumes; expected time_index 0 to {times - 1}"
    )
  if not 0 <= (time_index or 0) < times:
    raise BadRecord("options", f"time_index {time_index}; the file has 0 to {times - 1}")
  if len(shape) == 4:
    return np.asarray(image.dataobj[..., time_index or 0])
  return np.asarray(image.dataobj).reshape((*shape, 1)[:3])
