"""Volumes stored as one NumPy array, without pickles."""

from pathlib import Path

import numpy as np

from hulu_jax.media import intensity
from hulu_jax.media import volume
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """A [slice, row, column] array of real numbers, `options.spacing_mm` apart along these axes.

  The orientation is unknown and no side is named.  Raises BadRecord for anything else.
  """
  if options.time_index is not None or options.series is not None or options.phase is not None:
    raise BadRecord("options", "time_index, series and phase do not apply to a .npy volume")
  steps = _steps(options)
  try:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
  except Exception:  # NumPy parses the header as Python source: ValueError, TokenError, ...
    raise BadRecord("format", "a .npy file that is damaged or holds Python objects") from None
  if array.ndim != 3:
    raise BadRecord("geometry", f"a .npy array of {array.ndim} axes; expected slice, row, column")
  limits.check(*array.shape)
  limits.check_bytes(array.nbytes)
  # `hulumed` shows values[:, :, k], `radiology` shows an unknown orientation as [k, j, i].
  axes = (1, 2, 0) if preset == "hulumed" else (2, 1, 0)
  voxels = volume.Voxels(
    np.asarray(array).transpose(axes),
    None,
    steps_mm=None if steps is None else (steps[axes[0]], steps[axes[1]], steps[axes[2]]),
    look=intensity.declared(options),
  )
  return volume.render(voxels, preset, options, limits)


def _steps(options: Options) -> tuple[float, float, float] | None:
  """Millimetres along the three axes, as the caller gave them."""
  if options.spacing_mm is None:
    return None
  steps = tuple(float(v) for v in options.spacing_mm)
  if len(steps) != 3 or not all(np.isfinite(v) and v > 0 for v in steps):
    raise BadRecord("options", f"spacing_mm={steps}; expected three numbers above 0")
  return steps[0], steps[1], steps[2]
