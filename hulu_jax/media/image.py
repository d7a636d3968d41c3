"""PNG, JPEG, WebP and TIFF pictures, one per file, and what folders of them share.

The preset radiology turns a picture as its EXIF orientation asks, makes what is transparent black
(what a viewer hides, and may have been hidden on purpose, stays hidden), and scales more than 8
bits of grey by one range.  The preset hulumed is Pillow's `convert("RGB")`, as in the released code
(spec 1.7).  Colour profiles are ignored in both.  Three equal channels become one.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
from pathlib import Path

import numpy as np
from PIL import ExifTags
from PIL import Image
from PIL import ImageOps

from hulu_jax.media import channels
from hulu_jax.media import crop
from hulu_jax.media import intensity
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.intensity import Shade
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
# (offset, bytes) that the files of these formats start with.
MAGIC = (
  (0, b"\x89PNG\r\n\x1a\n"),
  (0, b"\xff\xd8\xff"),
  (8, b"WEBP"),
  (0, b"II*\x00"),
  (0, b"MM\x00*"),
)
_GREY = ("1", "L")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_LAYERED = ("LA", "La", "PA", "RGBA", "RGBa")
_COLOUR = ("P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
_MOST_PAGES = 100  # counted, for the message
_DEEP_ONLY = ("value_range", "quantity", "function")
_NEVER = ("window", "fps", "time_index", "plane", "series", "phase", "slice_mm", "resample_mm")


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """One picture; grey stays one channel.  Raises BadRecord for anything that is not one picture."""
  check_options(options, _NEVER, "a picture file")
  box = crop.box_only(options.crop)
  notes: list[str] = []
  values = load(path, preset, limits, notes)
  frames, shade = shown([values], options, notes)
  return Media(
    kind="image",
    frames=crop.cut(frames, box),
    modality=options.modality,
    units=None if shade is None else shade.units,
    value_range=None if shade is None else shade.value_range,
    notes=tuple(notes),
  )


def check_options(options: Options, refused: Sequence[str], what: str) -> None:
  """Raises BadRecord if an option named in `refused` was given for `what`."""
  values = vars(options)
  given = [name for name in refused if values[name] is not None]
  if given:
    verb = "does" if len(given) == 1 else "do"
    raise BadRecord("options", f"{' and '.join(given)} {verb} not apply to {what}")


def size(path: Path, limits: Limits) -> tuple[int, int]:
  """(height, width) from the header.  Raises BadRecord as `load` does, short of decoding."""
  with _faults(limits), Image.open(path, formats=FORMATS) as picture:
    limits.check(1, picture.height, picture.width)
    return picture.height, picture.width


def load(path: Path, preset: str, limits: Limits, notes: list[str]) -> np.ndarray:
  """uint8 [H, W, 1 or 3], or with more than 8 bits of grey [H, W] (radiology); adds to `notes`."""
  with _faults(limits), Image.open(path, formats=FORMATS) as picture:
    limits.check(1, picture.height, picture.width)
    _check_single(picture, notes)
    picture.load()
    if picture.mode not in (*_GREY, *_DEEP, *_LAYERED, *_COLOUR):
      raise BadRecord("format", f"a picture in colour mode {picture.mode}; expected grey or RGB")
    if preset == "hulumed":
      return _released(picture, notes)
    return _values(picture, notes)


def shown(
  pictures: Sequence[np.ndarray], options: Options, notes: list[str]
) -> tuple[np.ndarray, Shade | None]:
  """What `load` gave of several pictures of one size, as uint8 [T, H, W, 1 or 3].

  More than 8 bits of grey are scaled by one range for all.  Raises BadRecord for mixed depths, and
  for options that need more than 8 bits.
  """
  deep = sum(picture.ndim == 2 for picture in pictures)
  if deep == 0:
    check_options(options, _DEEP_ONLY, "pictures of 8 bits")
    most = max(picture.shape[-1] for picture in pictures)
    whole = [np.broadcast_to(p, (*p.shape[:2], most)) for p in pictures]
    return channels.one_channel(np.stack(whole)), None
  if deep < len(pictures):
    found = f"{deep} of {len(pictures)} pictures have more than 8 bits"
    raise BadRecord("format", f"{found}; expected all or none")
  values = np.stack(pictures)
  # A stored CT picture need not be in HU: nothing in it says so.
  look = dataclasses.replace(intensity.declared(options), units=None)
  shade = intensity.shading(values, look, options, notes)
  return shade(values), shade


@contextlib.contextmanager
def _faults(limits: Limits) -> Iterator[None]:
  """Pillow's exceptions as BadRecord.

  Its decoders raise OSError, SyntaxError, ValueError, struct.error, ... on damaged files; their
  messages quote paths, so the cause is not chained.  Sizes far beyond its own cap it refuses before
  ours is asked.
  """
  try:
    yield
  except BadRecord:
    raise
  except Image.DecompressionBombError:
    most = f"{limits.max_pixels:,}"
    raise BadRecord("limit", f"a picture beyond the limit of {most} pixels") from None
  except Exception as error:
    raise BadRecord("format", f"a damaged picture ({type(error).__name__})") from None


def _check_single(picture: Image.Image, notes: list[str]) -> None:
  """Refuses pages and animations; of a camera's multi-picture file the first is the picture."""
  pages = 1
  with contextlib.suppress(EOFError):  # Pillow's word for "there is none"
    while pages < _MOST_PAGES:
      picture.seek(pages)
      pages += 1
  picture.seek(0)
  if pages == 1:
    return
  count = f"{pages} or more" if pages == _MOST_PAGES else f"{pages}"
  if picture.format == "MPO":
    notes.append(f"a file of {count} pictures: the first was read")
  elif picture.format == "TIFF":
    raise BadRecord(
      "format", f"a TIFF of {count} pages; expected one: save the wanted pages as files in a folder"
    )
  else:
    raise BadRecord(
      "format", f"an animation of {count} frames; expected one picture: save it as a video or GIF"
    )


def _released(picture: Image.Image, notes: list[str]) -> np.ndarray:
  """uint8 [H, W, 1 or 3] of `convert("RGB")`."""
  if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
    notes.append("the file asks to be turned: shown as stored, as the released code does")
  if picture.mode in _GREY:
    return np.asarray(picture.convert("L"))[..., None]
  if picture.mode in _DEEP:
    notes.append("more than 8 bits: converted by Pillow, as the released code does")
  if _has_alpha(picture):
    notes.append("transparency was dropped, as the released code does")
  return np.asarray(picture.convert("RGB"))


def _values(picture: Image.Image, notes: list[str]) -> np.ndarray:
  ImageOps.exif_transpose(picture, in_place=True)
  if picture.mode in _DEEP:
    return np.asarray(picture)
  if _has_alpha(picture):
    picture = _on_black(picture, notes)
  if picture.mode in _GREY:
    return np.asarray(picture if picture.mode == "L" else picture.convert("L"))[..., None]
  if picture.mode == "CMYK":
    notes.append("printing colours (CMYK) were converted without a colour profile")
  return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _has_alpha(picture: Image.Image) -> bool:
  return picture.mode in _LAYERED or "transparency" in picture.info


def _on_black(picture: Image.Image, notes: list[str]) -> Image.Image:
  opaque = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
  layered = picture.convert(f"{opaque}A")
  alpha = layered.getchannel("A")
  if alpha.getextrema() != (255, 255):
    notes.append("transparent parts are shown black")
  return Image.composite(layered.convert(opaque), Image.new(opaque, picture.size), alpha)
