"""PNG, JPEG, WebP and TIFF pictures, one per file."""

from collections.abc import Iterator
import contextlib
from pathlib import Path

import numpy as np
from PIL import Image
from PIL import ImageOps

from hulu_jax.media import crop
from hulu_jax.media import intensity
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_GREY = ("1", "L")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """One picture; grey stays one channel.  Raises BadRecord for anything that is not one picture."""
  if options.window is not None or options.fps is not None or options.time_index is not None:
    raise BadRecord("options", "window, fps and time_index do not apply to a picture file")
  box = crop.box_only(options.crop)
  notes: list[str] = []
  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ... on damaged files;
  # their messages quote paths, so the cause is not chained.
  try:
    with _refuse_bombs(limits), Image.open(path, formats=FORMATS) as picture:
      limits.check(1, picture.height, picture.width)
      if _has_second_page(picture):
        raise BadRecord("format", "several pages or frames in a picture file; expected one")
      picture.load()
      pixels = _pixels(picture, preset, notes)
  except BadRecord:
    raise
  except Exception as error:
    raise BadRecord("format", f"a damaged picture ({type(error).__name__})") from None
  frames = crop.cut(pixels[None], box)
  return Media("image", frames, modality=options.modality, notes=tuple(notes))


@contextlib.contextmanager
def _refuse_bombs(limits: Limits) -> Iterator[None]:
  """Pillow refuses sizes far beyond its own cap before ours is asked."""
  try:
    yield
  except Image.DecompressionBombError:
    most = f"{limits.max_pixels:,}"
    raise BadRecord("limit", f"a picture beyond the limit of {most} pixels") from None


def _has_second_page(picture: Image.Image) -> bool:
  try:
    picture.seek(1)
  except EOFError:  # Pillow's word for "there is none"
    picture.seek(0)
    return False
  return True


def _pixels(picture: Image.Image, preset: str, notes: list[str]) -> np.ndarray:
  """uint8 [H, W, 1 or 3]; the `hulumed` preset is Pillow's convert("RGB") (spec 1.7)."""
  if preset == "radiology":
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in _DEEP:
      values = np.asarray(picture)
      return intensity.shading(values, intensity.Look(), Options(), notes)(values)
  if picture.mode in _GREY:
    return np.asarray(picture.convert("L"))[..., None]
  if "A" in picture.mode or "transparency" in picture.info:
    notes.append("transparency was dropped")
  return np.asarray(picture.convert("RGB"))
