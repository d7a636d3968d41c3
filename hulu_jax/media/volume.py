"""Voxels with an affine to display frames: plane, orientation, intensity, slices."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from hulu_jax.media import geometry
from hulu_jax.media import sampling
from hulu_jax.media import windows
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.intensity import Look
from hulu_jax.media.intensity import shading
from hulu_jax.media.types import PLANES
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options


@dataclasses.dataclass(frozen=True)
class Voxels:
  """values: [i, j, k], any real dtype, in `look.units`; `values[:, :, k]` is slice k as stored.
  affine: [4, 4] of (i, j, k, 1) to RAS millimetres, None if unknown.  steps_mm: between voxels
  along i, j, k, if known.  plane: in which it was acquired, if known.  padding: bool like `values`,
  where the scanner measured nothing, if any.  body_part: the DICOM code, if given."""

  values: np.ndarray
  affine: np.ndarray | None
  steps_mm: tuple[float, float, float] | None = None
  look: Look = Look()
  plane: str | None = None
  padding: np.ndarray | None = None
  body_part: str | None = None
  notes: tuple[str, ...] = ()


def render(voxels: Voxels, preset: str, options: Options) -> Media:
  """Frames of a volume as `preset` shows it; raises BadRecord for options that cannot apply."""
  if options.crop is not None or options.fps is not None:
    raise BadRecord("options", "crop and fps are for images and videos; this is a volume")
  if options.plane is not None and options.plane not in PLANES:
    raise BadRecord("options", f"plane {options.plane!r}; expected one of {', '.join(PLANES)}")
  if voxels.values.dtype.kind not in "iuf":
    raise BadRecord("format", f"voxels of type {voxels.values.dtype}; expected real numbers")
  if preset == "hulumed":
    return _render_hulumed(voxels, options)
  return _render_radiology(voxels, options)


def _render_radiology(voxels: Voxels, options: Options) -> Media:
  notes = list(voxels.notes)
  if voxels.affine is None:
    if options.plane is not None:
      raise BadRecord("geometry", "orientation_unknown: no plane can be named for this volume")
    notes.append("orientation_unknown: shown as stored, no side can be named")
    frames, affine, codes = voxels.values.transpose(2, 1, 0), None, None
    steps = None if voxels.steps_mm is None else voxels.steps_mm[::-1]
  else:
    plane = options.plane or voxels.plane or geometry.plane_of_spacing(voxels.affine, notes)
    frames, affine = geometry.display(voxels.values, voxels.affine, plane)
    codes = geometry.CODES[plane]
    steps = np.linalg.norm(affine[:3, :3], axis=0)
  if voxels.look.modality is None:
    notes.append("the modality is not known: declare it (CT allows a window in HU)")
  shade = shading(frames, voxels.look, options, notes)
  slices = sampling.by_count(len(frames), options.frames)
  return Media(
    kind="volume",
    frames=np.stack([shade(frames[k]) for k in slices]),
    modality=voxels.look.modality,
    spacing_mm=_spacing(steps, slices),
    affine=affine,
    axis_codes=codes,
    units=voxels.look.units,
    window=shade.window,
    value_range=shade.value_range,
    slices=tuple(int(k) for k in slices),
    notes=tuple(notes),
  )


def _spacing(
  steps: Sequence[float] | None, slices: np.ndarray
) -> tuple[float, float, float] | None:
  """Between the slices taken, rows and columns, from the steps between all slices."""
  if steps is None:
    return None
  between, rows, columns = (float(v) for v in steps)
  if len(slices) > 1:
    between *= float(slices[-1] - slices[0]) / (len(slices) - 1)
  return between, rows, columns


def _render_hulumed(voxels: Voxels, options: Options) -> Media:
  """Array order, per-slice min-max after an optional clip (spec 1.9, HF column)."""
  axis = {"axial": 2, "coronal": 1, "sagittal": 0}[options.plane or "axial"]
  frames = np.moveaxis(voxels.values, axis, 0)
  slices = sampling.by_count(len(frames), options.frames)
  values = frames[slices]
  window = None
  if options.window is not None:
    if (
      isinstance(options.window, str)
      and options.window in windows.TABLE
      and voxels.look.units != "HU"
    ):
      raise BadRecord("options", 'a named window is in HU; expected modality "CT"')
    centre, width = window = windows.lookup(options.window)
    values = np.clip(values.astype(np.float64), centre - width / 2, centre + width / 2)
  steps: Sequence[float] | None = voxels.steps_mm
  if voxels.affine is not None:
    steps = np.linalg.norm(voxels.affine[:3, :3], axis=0).tolist()
  if steps is not None:
    steps = (steps[axis], *(steps[a] for a in range(3) if a != axis))
  return Media(
    kind="volume",
    frames=windows.min_max(values)[..., None],
    modality=voxels.look.modality,
    spacing_mm=_spacing(steps, slices),
    window=window,
    slices=tuple(int(k) for k in slices),
    notes=(
      *voxels.notes,
      "preset hulumed: array order, each slice stretched by itself; no side can be named",
    ),
  )
