"""A volume as the released model's own reader showed it (preset `hulumed`; spec 1.9)."""

import numpy as np

from hulu_jax.media import geometry
from hulu_jax.media import sampling
from hulu_jax.media import windows
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.intensity import Look
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

# The local path always shows as many slices as asked for, and asks for these.
LOCAL_SLICES = 180
# Stored axes that the released code calls by these names, whatever the affine says.
_RAW_AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}


def render(
  values: np.ndarray,
  affine: np.ndarray | None,
  steps: tuple[float, float, float] | None,
  look: Look,
  options: Options,
  limits: Limits,
) -> Media:
  """values: [i, j, k] -> frames in array order, each stretched by itself after an optional clip.

  This is the HF path: all slices, or `options.frames` of them.  With `repeat_slices` the local
  path: always 180 (or `frames`) slices, some of them repeated in a shorter volume, never clipped,
  and a constant slice keeps its value cast to 8 bits.  The stretch leaves no grey level its HU, so
  `window` of the result stays None.  affine, steps: see `volume.Voxels`.  Raises BadRecord for more
  slices than `limits` allow.
  """
  _check(options)
  axis = _RAW_AXIS[options.plane or "axial"]
  axes = [axis, *(a for a in range(3) if a != axis)]
  stored = values.transpose(axes)
  local = options.repeat_slices
  if local:
    count = LOCAL_SLICES if options.frames is None else options.frames
    limits.check(count, *stored.shape[1:])
    slices = np.linspace(0, len(stored) - 1, count, dtype=np.int64)
  else:
    slices = sampling.by_count(len(stored), options.frames)
  notes = ["preset hulumed: array order, each slice stretched by itself"]
  window = None if options.window is None else _window(options.window, look, notes)
  clip = None if window is None else (window[0] - window[1] / 2, window[0] + window[1] / 2)
  taken = [stored[k] for k in slices]
  _tell_not_finite(taken, notes)
  if affine is None:
    notes.append("orientation_unknown: no side can be named")
  else:
    steps, affine = geometry.steps_mm(affine), affine[:, [*axes, 3]]
  return Media(
    kind="volume",
    frames=windows.min_max(taken, clip, keep_constant=local)[..., None],
    modality=look.modality,
    spacing_mm=None if steps is None else sampling.spacing([steps[a] for a in axes], slices),
    affine=affine,
    axis_codes=None if affine is None else geometry.codes_of(affine),
    units=look.units,
    slices=tuple(int(k) for k in slices),
    provenance={
      "plane": "array order",
      "slices_in_volume": len(stored),
      "sampling": "repeated" if local else "all" if options.frames is None else "by count",
    },
    notes=tuple(notes),
  )


def _check(options: Options) -> None:
  """Raises BadRecord for options that have no place in the released code's arithmetic."""
  asked = {
    "quantity": options.quantity,
    "function": options.function,
    "value_range": options.value_range,
    "resample_mm": options.resample_mm,
    "slice_mm": options.slice_mm,
  }
  for name, value in asked.items():
    if value is not None:
      raise BadRecord("options", f"{name} does not apply to the preset hulumed; use radiology")
  if options.frames is not None and options.frames < 1:
    raise BadRecord("options", f"frames={options.frames}; expected at least 1")
  if options.repeat_slices and options.window is not None:
    raise BadRecord("options", "repeat_slices is the local path, which has no window")


def _window(asked: str | tuple[float, float], look: Look, notes: list[str]) -> tuple[float, float]:
  """Centre and width; in HU if named, else in whatever the values are, as the reference clips."""
  found = windows.lookup_all(asked)
  if len(found) > 1:
    raise BadRecord("options", "three windows for the preset hulumed, which shows grey; expected 1")
  if look.units != "HU":
    if isinstance(asked, str) and asked.strip() in windows.TABLE:
      raise BadRecord("options", 'a named window is in HU; expected modality "CT"')
  units = "HU" if look.units == "HU" else "units that are not known"
  notes.append(f"clipped to {found[0][1]:g} around {found[0][0]:g}, in {units}, before stretching")
  return found[0]


def _tell_not_finite(frames: list[np.ndarray], notes: list[str]) -> None:
  if frames[0].dtype.kind == "f":
    bad = sum(not np.isfinite(frame).all() for frame in frames)
    if bad:
      notes.append(f"{bad} slices hold numbers that are not finite and are shown black")
