"""Frames as a player shows them: turned by the display matrix, with square pixels."""

from collections.abc import Sequence
from fractions import Fraction
import math

import numpy as np
from PIL import Image

# Beyond this a matrix means neither a quarter turn nor a mirror image.
_TOLERANCE = math.tan(math.radians(1))


def turn(frames: np.ndarray, matrix: Sequence[int] | None) -> np.ndarray | None:
  """Turns and mirrors [T, H, W, C] by quarters; None where the matrix asks for another angle.

  matrix: the nine integers of a display matrix (ISO/IEC 14496-12, 8.3.2): a stored pixel (x, y) is
  shown at (m[0] x + m[3] y, m[1] x + m[4] y), up to a shift.  None leaves the frames as stored.
  """
  if matrix is None or not any(matrix[k] for k in (0, 1, 3, 4)):
    return frames
  along, across = (matrix[0], matrix[4]), (matrix[3], matrix[1])
  large, small = sorted((along, across), key=lambda pair: -min(map(abs, pair)))
  if max(map(abs, small)) > _TOLERANCE * min(map(abs, large)):
    return None
  if large is across:
    frames = frames.swapaxes(1, 2)
  columns, rows = large
  if columns < 0:
    frames = frames[:, :, ::-1]
  if rows < 0:
    frames = frames[:, ::-1]
  return np.ascontiguousarray(frames)


def square_size(height: int, width: int, aspect: Fraction | None) -> tuple[int, int]:
  """(height, width) at which pixels of `aspect` (width over height) are square; never fewer."""
  if aspect is None or aspect <= 0:
    return height, width
  if aspect > 1:
    return height, round(width * aspect)
  return round(height / aspect), width


def stretch(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """uint8 [T, H, W, 3] -> uint8 [T, *size, 3], bicubic through Pillow."""
  if frames.shape[1:3] == size:
    return frames
  out = np.empty((len(frames), *size, 3), np.uint8)
  for frame, place in zip(frames, out, strict=True):
    picture = Image.fromarray(frame)
    place[...] = np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))
  return out
