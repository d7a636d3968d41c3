"""A contact sheet of what the model sees: captioned frames, dropped visual tokens shaded."""

from collections.abc import Sequence
import os
from pathlib import Path
import tempfile

import einops
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from hulu_jax.data.schema import PATCH
from hulu_jax.data.schema import Visual
from hulu_jax.media.types import Media

# By channels, the tint of dropped tokens; kept ones stay as they are.  Colour media may be red.
_SHADES = {1: ("red", (150, 20, 20)), 3: ("grey and blue", (20, 50, 170))}
_STRENGTH = 0.5
_PAPER, _INK, _QUIET, _MARK = (255,) * 3, (20,) * 3, (110,) * 3, (255, 220, 60)
_GAP, _LINE = 6, 16  # pixels between frames, and of a line of text
_SHEET, _WIDER = 1400, 1.4  # pixels across a sheet, about, and how much wider than tall
# The longer side of a frame on the sheet: at least; enlarged to at most; shrunk to at most.
_CELL = (112, 256, 768)
_FRAMES = 64  # most per sheet
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


def contact_sheet(media: Media, visual: Visual, title: Sequence[str] = ()) -> np.ndarray:
  """uint8 [H, W, 3]: at most 64 frames, evenly spaced, in reading order from the top left.

  Frames have the size that the encoder gets, scaled alike; each is captioned with its number in the
  file and, in a clip, its time.  title: lines above them.
  """
  taken = np.unique(np.linspace(0, len(media.frames) - 1, _FRAMES).astype(int))
  _, shade = _SHADES[visual.channels]
  rows, columns, size = _layout(len(taken), *(n * PATCH for n in visual.grid))
  height, width = size[0] + _LINE, size[1]
  lines = [*title, *_left_out(len(taken), len(media.frames)), *_legend(visual)]
  sheet = Image.new(
    "RGB",
    (
      max(columns * (width + _GAP) + _GAP, _widest(lines) + 2 * _GAP),
      rows * (height + _GAP) + _GAP + len(lines) * _LINE,
    ),
    _PAPER,
  )
  draw = ImageDraw.Draw(sheet)
  draw.font = _font()
  for number, line in enumerate(lines):
    draw.text((_GAP, _GAP // 2 + number * _LINE), line, fill=_INK)
  for place, frame in enumerate(taken):
    row, column = divmod(place, columns)
    left = _GAP + column * (width + _GAP)
    top = _GAP + row * (height + _GAP) + len(lines) * _LINE
    picture = frame_as_seen(visual, int(frame)).resize(size[::-1], _filter(size, visual))
    sheet.paste(_shaded(picture, token_mask(visual, int(frame)), shade), (left, top))
    caption = _caption(media, int(frame))
    draw.text((left, top + size[0] + 1), caption, fill=_QUIET)
    if place == 0:
      _name_sides(draw, media.axis_codes, (left, top), size)
  return np.asarray(sheet)


def beside(sheets: Sequence[np.ndarray]) -> np.ndarray:
  """Sheets uint8 [H, W, 3] in a row, tops aligned, a line between them."""
  height = max(sheet.shape[0] for sheet in sheets)
  width = sum(sheet.shape[1] for sheet in sheets) + 3 * _GAP * (len(sheets) - 1)
  whole = np.full((height, width, 3), 255, np.uint8)
  left = 0
  for sheet in sheets:
    if left:
      whole[:, left - 3 * _GAP // 2 - 1 : left - 3 * _GAP // 2 + 1] = _QUIET
    whole[: sheet.shape[0], left : left + sheet.shape[1]] = sheet
    left += sheet.shape[1] + 3 * _GAP
  return whole


def token_mask(visual: Visual, frame: int) -> np.ndarray:
  """bool [rows, columns] of the visual tokens of a frame, True where kept.

  After merging, tokens stand in reading order: blocks of `merge**2` patches, row by row.
  """
  rows, columns = (n // visual.merge for n in visual.grid)
  return visual.keep[frame].reshape(rows, columns)


def frame_as_seen(visual: Visual, frame: int) -> Image.Image:
  """A frame put together from its patches: the pixels that reach the encoder."""
  rows, columns = (n // visual.merge for n in visual.grid)
  pixels = einops.rearrange(
    visual.patches[frame],
    "(bh bw mh mw) (c ph pw) -> (bh mh ph) (bw mw pw) c",
    bh=rows,
    bw=columns,
    mh=visual.merge,
    mw=visual.merge,
    ph=PATCH,
    pw=PATCH,
  )
  return Image.fromarray(pixels if visual.channels == 3 else pixels[..., 0]).convert("RGB")


def write_png(path: Path, picture: np.ndarray) -> None:
  """Writes uint8 [H, W, 3] whole or not at all; raises OSError."""
  handle, name = tempfile.mkstemp(dir=path.parent, prefix=".overlay_", suffix=".png")
  try:
    with os.fdopen(handle, "wb") as file:
      Image.fromarray(picture).save(file, format="PNG")
    os.chmod(name, 0o644)
    os.replace(name, path)
  except BaseException:
    os.unlink(name)
    raise


def _layout(frames: int, height: int, width: int) -> tuple[int, int, tuple[int, int]]:
  """Rows and columns of a sheet somewhat wider than tall, and (height, width) of a frame on it."""
  wanted = round(float(np.sqrt(_WIDER * frames * height / width)))
  rows = -(-frames // max(1, min(frames, wanted)))
  columns = -(-frames // rows)
  least, legible, most = _CELL
  room = max(_SHEET // columns - _GAP, least)
  longest = max(height, width)
  scale = min(room, most, max(longest, legible)) / longest
  return rows, columns, (max(1, round(height * scale)), max(1, round(width * scale)))


def _filter(size: tuple[int, int], visual: Visual) -> Image.Resampling:
  """Enlarged pixels keep their edges: what looks coarse is coarse."""
  enlarged = size[0] > visual.grid[0] * PATCH
  return Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR


def _shaded(picture: Image.Image, kept: np.ndarray, shade: tuple[int, int, int]) -> Image.Image:
  """The picture with its dropped tokens grey and tinted; kept: bool [rows, columns]."""
  if kept.all():
    return picture
  rows = np.arange(picture.height) * kept.shape[0] // picture.height
  columns = np.arange(picture.width) * kept.shape[1] // picture.width
  dropped = Image.fromarray(~kept[rows][:, columns])
  tinted = Image.blend(
    picture.convert("L").convert("RGB"), Image.new("RGB", picture.size, shade), _STRENGTH
  )
  return Image.composite(tinted, picture, dropped)


def _caption(media: Media, frame: int) -> str:
  number = frame if media.slices is None else media.slices[frame]
  if media.kind == "image":
    return ""
  if media.timestamps is None:
    return f"{'slice' if media.kind == 'volume' else 'frame'} {number}"
  return f"frame {number}, {media.timestamps[frame]:.2f} s"


def _legend(visual: Visual) -> list[str]:
  if visual.keep.all():
    return []
  kept, all_tokens = int(visual.keep.sum()), visual.keep.size
  return [f"{kept:,} of {all_tokens:,} tokens kept; {_SHADES[visual.channels][0]}: dropped"]


def _left_out(shown: int, frames: int) -> list[str]:
  return [f"{shown} of the {frames} frames, evenly spaced"] if shown < frames else []


def _name_sides(
  draw: ImageDraw.ImageDraw, codes: str | None, place: tuple[int, int], size: tuple[int, int]
) -> None:
  """Writes which sides of the patient are left and up, where they are known."""
  if codes is None:
    return
  left, top = place
  marks = (
    (_OPPOSITE[codes[2]], (left + 3, top + size[0] // 2), "lm"),
    (codes[2], (left + size[1] - 3, top + size[0] // 2), "rm"),
    (_OPPOSITE[codes[1]], (left + size[1] // 2, top + 3), "mt"),
    (codes[1], (left + size[1] // 2, top + size[0] - 3), "mb"),
  )
  for letter, where, anchor in marks:
    draw.text(where, letter, fill=_MARK, anchor=anchor, stroke_width=1, stroke_fill=_INK)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  return ImageFont.load_default(size=12)


def _widest(lines: Sequence[str]) -> int:
  return max((int(_font().getlength(line)) + 1 for line in lines), default=0)
