"""The one entry: looks at what a file is, not at its name, and hands it to its reader."""

from collections.abc import Iterator
import contextlib
import logging
from pathlib import Path
import warnings

from hulu_jax.media import image
from hulu_jax.media import nifti
from hulu_jax.media import npy
from hulu_jax.media import video
from hulu_jax.media.dicom import reader as dicom
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import DEFAULT
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import PRESETS
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

EXPECTED = "PNG, JPEG, WebP, TIFF, DICOM, NIfTI, .npy, mp4, mov, mpeg, avi, webm or gif"
_READERS = {
  "dicom": dicom.read,
  "image": image.read,
  "nifti": nifti.read,
  "npy": npy.read,
  "video": video.read,
}
_LOGGERS = ("pydicom", "nibabel.global", "PIL.TiffImagePlugin")
# (offset, bytes, reader), first match wins.
_MAGIC = (
  (128, b"DICM", "dicom"),
  (0, b"\x89PNG\r\n\x1a\n", "image"),
  (0, b"\xff\xd8\xff", "image"),
  (8, b"WEBP", "image"),
  (0, b"II*\x00", "image"),
  (0, b"MM\x00*", "image"),
  (0, b"\x93NUMPY", "npy"),
  (8, b"AVI ", "video"),
  (4, b"ftyp", "video"),
  (4, b"moov", "video"),
  (4, b"mdat", "video"),
  (4, b"wide", "video"),
  (4, b"free", "video"),
  (0, b"\x1aE\xdf\xa3", "video"),
  (0, b"\x00\x00\x01\xba", "video"),
  (0, b"\x00\x00\x01\xb3", "video"),
  (0, b"GIF8", "video"),
)


def read(
  path: str | Path,
  options: Options = Options(),  # noqa: B008 - frozen
  *,
  preset: str = "radiology",
  limits: Limits = DEFAULT,
) -> Media:
  """Reads an image, a volume (file or folder of one DICOM series) or a video.

  preset: "radiology" shows what a radiologist expects to see; "hulumed" shows what the released
  model's own reader showed it (array order, each slice stretched by itself).

  Raises:
    ValueError: an unknown preset.
    BadRecord: the file cannot be used; its message holds no path and nothing about a patient.
  """
  if preset not in PRESETS:
    raise ValueError(f"unknown preset {preset!r}; there are: {', '.join(PRESETS)}")
  path = Path(path)
  kind = _kind(path, limits)
  with _silent():
    return _READERS[kind](path, preset, options, limits)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """Libraries quote paths and header values in warnings: names and dates must not reach a log."""
  loggers = [logging.getLogger(name) for name in _LOGGERS]
  before = [logger.disabled for logger in loggers]
  try:
    for logger in loggers:
      logger.disabled = True
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      yield
  finally:
    for logger, disabled in zip(loggers, before, strict=True):
      logger.disabled = disabled


def _kind(path: Path, limits: Limits) -> str:
  try:
    if path.is_dir():
      return "dicom"
    if not path.exists():
      raise BadRecord("missing", "no such file or folder")
    if not path.is_file():
      raise BadRecord("format", "neither a file nor a folder")
    size = path.stat().st_size
    with open(path, "rb") as file:
      head = file.read(540)
  except OSError as error:
    raise BadRecord("missing", f"the file cannot be opened ({type(error).__name__})") from None
  if size == 0:
    raise BadRecord("empty", "a file of 0 bytes")
  limits.check_bytes(size)
  return _sniff(path, head)


def _sniff(path: Path, head: bytes) -> str:
  for offset, magic, kind in _MAGIC:
    if head[offset : offset + len(magic)] == magic:
      return kind
  if path.suffix.lower() in (".head", ".par"):
    return "nifti"
  if head[:2] == b"\x1f\x8b":
    head = nifti.start_of_gzip(path)
  if nifti.is_header(head):
    return "nifti"
  raise BadRecord("format", f"a file of an unknown kind; expected {EXPECTED}")
