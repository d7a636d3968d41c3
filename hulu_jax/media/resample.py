"""New grids for voxels and for frames: one size of voxel, and pixels that are square."""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from hulu_jax.media import geometry
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits

# Rows and columns whose spacings differ by less are square: rounding, not geometry.
_SQUARE = 0.01


class Grid(NamedTuple):
  """Where a new grid lies on an old one: voxels along each axis, and index `scale * n + offset`."""

  shape: tuple[int, int, int]
  scale: np.ndarray
  offset: np.ndarray


def isotropic_grid(shape: Sequence[int], steps: Sequence[float], size_mm: float) -> Grid:
  """Voxels of exactly `size_mm` that fill the field of view and share its centre.

  An axis of one voxel has no extent to divide and stays.
  """
  if not (math.isfinite(size_mm) and size_mm > 0):
    raise BadRecord("options", f"resample_mm={size_mm:g}; expected more than 0")
  scale = np.array([size_mm / s if n > 1 else 1.0 for n, s in zip(shape, steps, strict=True)])
  # Capped, since a header may claim any spacing; `Limits` refuses the rest.
  full = [min(max(round(n / s), 1), 2**31) for n, s in zip(shape, scale, strict=True)]
  offset = ((np.array(shape) - 1) - (np.array(full) - 1) * scale) / 2
  return Grid((full[0], full[1], full[2]), scale, offset)


def isotropic(
  values: np.ndarray, padding: np.ndarray | None, grid: Grid, limits: Limits
) -> tuple[np.ndarray, np.ndarray | None]:
  """values, padding: [slice, row, column] -> float32 and bool on `grid`; BadRecord if too large.

  Linear between voxels; where the new ones are coarser the triangle widens with them, so that thin
  structures are averaged rather than missed.  Padding and numbers that are not finite do not bleed
  into their neighbours: a new voxel is made of the valid ones it overlaps, and is itself padding
  (not-a-number without `padding`) where these weigh less than half.
  """
  limits.check(*grid.shape)
  valid = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
  if padding is not None:
    valid &= ~padding
  if valid.all():
    return _along_all(values, grid), None
  weight = _along_all(valid, grid)
  total = _along_all(np.where(valid, values, 0), grid)
  missing = weight < 0.5 - 1e-6  # float32 rounding must not decide between two equal halves
  out = np.where(missing, np.float32(np.nan), total / np.maximum(weight, np.float32(0.25)))
  if padding is None:
    return out, None
  return np.where(missing, np.float32(0), out), missing


def _along_all(values: np.ndarray, grid: Grid) -> np.ndarray:
  # What shrinks goes first: less is left for the other axes.
  for axis in np.argsort(-grid.scale, kind="stable"):
    if grid.scale[axis] != 1 or grid.offset[axis] != 0:
      values = _along(values, axis, grid.shape[axis], grid.scale[axis], grid.offset[axis])
  return values.astype(np.float32)


def _along(values: np.ndarray, axis: int, count: int, scale: float, offset: float) -> np.ndarray:
  """float32: `values` at `scale * n + offset` of one axis, weighted by a triangle."""
  reach, length = max(scale, 1.0), values.shape[axis]
  centre = np.arange(count) * scale + offset
  width = int(min(math.ceil(2 * reach) + 1, length))
  first = np.clip(np.ceil(centre - reach), 0, length - width).astype(np.int64)
  taps = first + np.arange(width)[:, None]
  weights = np.maximum(1 - np.abs(taps - centre) / reach, 0)
  weights = (weights / weights.sum(axis=0)).astype(np.float32)
  spread = [1] * values.ndim
  spread[axis] = count
  shape = list(values.shape)
  shape[axis] = count
  out = np.zeros(shape, np.float32)
  for tap, weight in zip(taps, weights, strict=True):
    if weight.any():
      part = values.take(tap, axis).astype(np.float32)
      part *= weight.reshape(spread)
      out += part
  return out


def square(
  frames: np.ndarray, steps: Sequence[float], limits: Limits
) -> tuple[np.ndarray, Grid | None]:
  """Frames with pixels as wide as high, and where their grid lies; None if they were so already.

  frames: uint8 [T, H, W, C].  steps: millimetres between frames, rows and columns.  The coarser of
  rows and columns is refined to the finer one: linear, with the outer edges in place.
  """
  count, height, width = frames.shape[:3]
  rows, columns = steps[1:]
  if abs(rows / columns - 1) < _SQUARE or abs(columns / rows - 1) < _SQUARE:
    return frames, None
  fine = min(rows, columns)
  # Capped as above, for a header that claims an absurd spacing.
  tall, wide = (int(min(round(n), 2**31)) for n in (height * rows / fine, width * columns / fine))
  limits.check(count, tall, wide)
  out = np.empty((count, tall, wide, frames.shape[3]), np.uint8)
  for frame, place in zip(frames, out, strict=True):
    picture = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
    resized = picture.resize((wide, tall), Image.Resampling.BILINEAR)
    place[...] = np.asarray(resized).reshape(place.shape)
  scale = np.array([1.0, height / tall, width / wide])
  return out, Grid((count, tall, wide), scale, (scale - 1) / 2)


def placed(affine: np.ndarray | None, grid: Grid) -> np.ndarray | None:
  """The affine of `grid`, where that of the grid it lies on is known."""
  return None if affine is None else geometry.regridded(affine, grid.scale, grid.offset)
