"""The one entry: looks at what a file is, not at its name, and hands it to its reader."""

from collections.abc import Callable
import dataclasses
from pathlib import Path
import stat
from typing import NamedTuple, TypeVar

import av
import nibabel
import numpy as np
import PIL
import pydicom

from hulu_jax.media import frames_folder
from hulu_jax.media import image
from hulu_jax.media import nifti
from hulu_jax.media import npy
from hulu_jax.media import paths
from hulu_jax.media import privacy
from hulu_jax.media import video
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import reader as dicom
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import DEFAULT
from hulu_jax.media.limits import Limits
from hulu_jax.media.quiet import quiet
from hulu_jax.media.types import PRESETS
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

EXPECTED = "PNG, JPEG, WebP, TIFF, DICOM, NIfTI, .npy, mp4, mov, mpeg, avi, webm or gif"

_Result = TypeVar("_Result")


class _Reader(NamedTuple):
  read: Callable[[Path, str, Options, Limits], Media]
  library: str


_READERS = {
  "dicom": _Reader(dicom.read, f"pydicom {pydicom.__version__}"),
  "frames": _Reader(frames_folder.read, f"Pillow {PIL.__version__}"),
  "image": _Reader(image.read, f"Pillow {PIL.__version__}"),
  "nifti": _Reader(nifti.read, f"nibabel {nibabel.__version__}"),
  "npy": _Reader(npy.read, f"numpy {np.__version__}"),
  "video": _Reader(video.read, f"av {av.__version__}"),
}
# (offset, bytes, reader, format), first match wins.
_MAGIC = (
  (128, b"DICM", "dicom", "dicom"),
  (0, b"\x89PNG\r\n\x1a\n", "image", "png"),
  (0, b"\xff\xd8\xff", "image", "jpeg"),
  (8, b"WEBP", "image", "webp"),
  (0, b"II*\x00", "image", "tiff"),
  (0, b"MM\x00*", "image", "tiff"),
  (0, b"\x93NUMPY", "npy", "npy"),
  (8, b"AVI ", "video", "avi"),
  (4, b"ftyp", "video", "mp4"),
  (4, b"moov", "video", "mp4"),
  (4, b"mdat", "video", "mp4"),
  (4, b"wide", "video", "mp4"),
  (4, b"free", "video", "mp4"),
  (0, b"\x1aE\xdf\xa3", "video", "webm"),
  (0, b"\x00\x00\x01\xba", "video", "mpeg"),
  (0, b"\x00\x00\x01\xb3", "video", "mpeg"),
  (0, b"GIF8", "video", "gif"),
)


def read(
  path: str | Path,
  options: Options = Options(),  # noqa: B008 - frozen
  *,
  preset: str = "radiology",
  limits: Limits = DEFAULT,
  root: str | Path | None = None,
  key: bytes | None = None,
) -> Media:
  """Reads an image, a volume (file or folder of one DICOM series) or a video.

  preset: "radiology" shows what a radiologist expects to see; "hulumed" shows what the released
  model's own reader showed it (array order, each slice stretched by itself).
  limits: what is refused for its size, from the header where one tells.
  root: the folder that `path`, and every link in a folder, must stay in; a folder is its own.
  key: of the hashes that stand for paths and UIDs (see `privacy`); None: drawn for this process.

  Raises:
    ValueError: an unknown preset, or a key too short to be one.
    BadRecord: the file cannot be used, whatever its decoder said; the message holds no path and
      nothing about a patient, and no other exception hangs on it.
  """
  if preset not in PRESETS:
    raise ValueError(f"unknown preset {preset!r}; there are: {', '.join(PRESETS)}")
  return _guarded(
    Path(path), root, key, lambda path, root: _read(path, options, preset, limits, root)
  )


def phases(
  path: str | Path,
  *,
  series: int | None = None,
  limits: Limits = DEFAULT,
  root: str | Path | None = None,
  key: bytes | None = None,
) -> tuple[str, ...]:
  """Names of the volumes in a DICOM file or folder, as `Options.phase` takes them.

  Empty where there is nothing to choose: a lone volume, a picture, or a file that is not DICOM.
  series, limits, root, key: as for `read`, which they must fit.  Raises BadRecord as `read` does.
  """

  def names(path: Path, root: Path | None) -> tuple[str, ...]:
    reader, _ = _kind(path, root, limits)
    return dicom.phases(path, limits, series) if reader == "dicom" else ()

  return _guarded(Path(path), root, key, names)


def _guarded(
  path: Path,
  root: str | Path | None,
  key: bytes | None,
  do: Callable[[Path, Path | None], _Result],
) -> _Result:
  """`do(path, root)`, silently; whatever it raises is a BadRecord that names the file by hash."""
  with privacy.keyed(key), quiet():
    file = privacy.file_hash(path)
    try:
      return _typed(lambda: do(path, None if root is None else Path(root)))
    except BadRecord as error:
      bad = error.at(file)
  raise bad  # out here, so that the library's own exception is not its context


def _typed(do: Callable[[], _Result]) -> _Result:
  try:
    return do()
  except BadRecord:
    raise
  except Exception as error:  # the last resort: a reader names what it knows to go wrong
    raise BadRecord("format", f"it cannot be read ({type(error).__name__})") from None


def _read(path: Path, options: Options, preset: str, limits: Limits, root: Path | None) -> Media:
  reader, form = _kind(path, root, limits)
  media = _READERS[reader].read(path, preset, options, limits)
  record = _provenance(path, form, preset, _READERS[reader].library, options)
  return dataclasses.replace(media, provenance={**media.provenance, **record})


def _provenance(
  path: Path, form: str, preset: str, library: str, options: Options
) -> dict[str, str | int | float | bool]:
  """How a file was read: plain values only, its path as a keyed hash."""
  record: dict[str, str | int | float | bool] = {
    "format": form,
    "preset": preset,
    "reader": library,
    "file": privacy.file_hash(path),
  }
  given = vars(options)
  for field in dataclasses.fields(Options):
    value = given[field.name]
    if value != field.default:
      record[f"options.{field.name}"] = _plain(value)
  return record


def _plain(value: str | float | tuple[float, ...]) -> str | float:
  return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value


def _kind(path: Path, root: Path | None, limits: Limits) -> tuple[str, str]:
  """The reader of a path, and the name of its format."""
  found = paths.check(path, root, limits)
  if stat.S_ISDIR(found.st_mode):
    if frames_folder.holds_pictures(path):
      return "frames", "folder of frames"
    return "dicom", "dicom folder"
  if found.st_size == 0:
    raise BadRecord("empty", "a file of 0 bytes")
  limits.check_bytes(found.st_size)
  try:
    with open(path, "rb") as file:
      head = file.read(540)
  except OSError as error:
    raise BadRecord("missing", f"the file cannot be opened ({type(error).__name__})") from None
  return _sniff(path, head)


def _sniff(path: Path, head: bytes) -> tuple[str, str]:
  for offset, magic, reader, form in _MAGIC:
    if head[offset : offset + len(magic)] == magic:
      return reader, form
  if path.suffix.lower() in (".head", ".par"):
    return "nifti", "afni" if path.suffix.lower() == ".head" else "par/rec"
  packed = head[:2] == b"\x1f\x8b"
  if nifti.is_header(nifti.start_of_gzip(path) if packed else head):
    return "nifti", "nifti.gz" if packed else "nifti"
  if header.looks_like_dicom(head):  # without preamble, as in old archives
    return "dicom", "dicom"
  raise BadRecord("format", f"a file of an unknown kind; expected {EXPECTED}")
