"""A contact sheet of what the model sees: frames side by side, dropped visual tokens shaded."""

import os
from pathlib import Path
import tempfile

import numpy as np
from PIL import Image

from hulu_jax.data.schema import Visual
from hulu_jax.media.types import Media

_SHADE = np.array([150, 20, 20], np.float32)  # dark red; kept tokens stay as they are
_STRENGTH = 0.5
_GAP = 4  # pixels between frames
_CELL, _FRAMES = 256, 64  # at most, per side and per sheet


def contact_sheet(media: Media, visual: Visual) -> np.ndarray:
  """uint8 [H, W, 3]; at most 64 frames, evenly spaced, in reading order from the top left."""
  taken = np.unique(np.linspace(0, len(media.frames) - 1, _FRAMES).astype(int))
  cells = [_cell(media.frames[k], token_mask(visual, k)) for k in taken]
  height, width = cells[0].shape[:2]
  # As square as the frames allow: rows * height is close to columns * width.
  columns = max(1, min(len(cells), round(float(np.sqrt(len(cells) * height / width)))))
  rows = -(-len(cells) // columns)
  sheet = np.full(
    (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8
  )
  for number, cell in enumerate(cells):
    top, left = (number // columns) * (height + _GAP), (number % columns) * (width + _GAP)
    sheet[top : top + height, left : left + width] = cell
  return sheet


def token_mask(visual: Visual, frame: int) -> np.ndarray:
  """bool [rows, columns] of the visual tokens of a frame, True where kept.

  After merging, tokens stand in reading order: blocks of `merge**2` patches, row by row.
  """
  rows, columns = (n // visual.merge for n in visual.grid)
  return visual.keep[frame].reshape(rows, columns)


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


def _cell(frame: np.ndarray, kept: np.ndarray) -> np.ndarray:
  """A frame [H, W, C] at most `_CELL` on a side, as [h, w, 3] with dropped tokens shaded."""
  height, width = frame.shape[:2]
  scale = min(1.0, _CELL / max(height, width))
  size = (max(1, round(width * scale)), max(1, round(height * scale)))
  picture = Image.fromarray(frame if frame.shape[2] == 3 else frame[..., 0]).convert("RGB")
  pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.float32)
  rows = np.arange(size[1]) * kept.shape[0] // size[1]
  columns = np.arange(size[0]) * kept.shape[1] // size[0]
  dropped = ~kept[rows][:, columns]
  pixels = pixels.copy()
  pixels[dropped] = pixels[dropped] * (1 - _STRENGTH) + _SHADE * _STRENGTH
  return pixels.astype(np.uint8)
