"""Voxels with an affine to display frames: plane, orientation, grid, intensity, slices."""

import dataclasses

import numpy as np

from hulu_jax.media import as_released
from hulu_jax.media import faces
from hulu_jax.media import geometry
from hulu_jax.media import resample
from hulu_jax.media import sampling
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.intensity import Look
from hulu_jax.media.intensity import Shade
from hulu_jax.media.intensity import shading
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options
from hulu_jax.media.types import Provenance


@dataclasses.dataclass(frozen=True)
class Voxels:
  """values: [i, j, k], any real dtype, in `look.units`; `values[:, :, k]` is slice k as stored.
  affine: [4, 4] of (i, j, k, 1) to RAS millimetres, None if unknown.  steps_mm: between voxels
  along i, j, k, if known.  plane: in which slices k were acquired, if known.  padding: bool like
  `values`, where the scanner measured nothing, if any.  body_part: the DICOM code, if given."""

  values: np.ndarray
  affine: np.ndarray | None
  steps_mm: tuple[float, float, float] | None = None
  look: Look = Look()
  plane: str | None = None
  padding: np.ndarray | None = None
  body_part: str | None = None
  notes: tuple[str, ...] = ()
  provenance: Provenance = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Shown:
  """The volume as [slice, row, column] on its way to frames; `media` gathers what is said of it."""

  values: np.ndarray
  padding: np.ndarray | None
  affine: np.ndarray | None
  steps: tuple[float, float, float] | None
  notes: list[str]
  record: dict[str, str | int | float | bool]
  plane: str | None = None
  codes: str | None = None
  degrees: float | None = None


def render(voxels: Voxels, preset: str, options: Options, limits: Limits) -> Media:
  """Frames of a volume as `preset` shows it.

  limits: of new grids too.  Raises BadRecord for options that cannot apply and for geometry that
  cannot be true.
  """
  if options.crop is not None or options.fps is not None or options.region is not None:
    raise BadRecord("options", "crop, fps and region are for images and videos; this is a volume")
  if options.frames is not None and options.slice_mm is not None:
    raise BadRecord("options", "frames and slice_mm both say which slices; expected one of them")
  geometry.check_plane(options.plane)
  if voxels.values.dtype.kind not in "iuf":
    found = voxels.values.dtype.name  # of a record type, without the names of its fields
    raise BadRecord("format", f"voxels of type {found}; expected real numbers")
  if preset == "hulumed":
    media = as_released.render(
      voxels.values, voxels.affine, voxels.steps_mm, voxels.look, options, limits
    )
    media = dataclasses.replace(media, notes=(*voxels.notes, *media.notes))
  else:
    media = _radiology(voxels, options, limits)
  head = faces.may_show_face(voxels.look.modality, voxels.body_part, _extents(voxels))
  if head and faces.WARNING not in media.notes:
    media = dataclasses.replace(media, notes=(*media.notes, faces.WARNING))
  return dataclasses.replace(media, provenance={**voxels.provenance, **media.provenance})


def _extents(voxels: Voxels) -> list[float] | None:
  steps = voxels.steps_mm if voxels.affine is None else geometry.steps_mm(voxels.affine)
  return None if steps is None else [n * s for n, s in zip(voxels.values.shape, steps, strict=True)]


def _radiology(voxels: Voxels, options: Options, limits: Limits) -> Media:
  if options.repeat_slices:
    raise BadRecord("options", "repeat_slices is for the preset hulumed")
  shown = _laid_out(voxels, options)
  _resampled(shown, options, limits)
  if voxels.look.modality is None:
    shown.notes.append("the modality is not known: declare it (CT allows a window in HU)")
  shade = shading(shown.values, voxels.look, options, shown.notes, padding=shown.padding)
  slices = _slices(shown, options)
  frames = _shaded(shown, shade, slices)
  frames = _squared(frames, shown, limits)
  return Media(
    kind="volume",
    frames=frames,
    modality=voxels.look.modality,
    plane=shown.plane,
    oblique_degrees=shown.degrees,
    spacing_mm=sampling.spacing(shown.steps, slices),
    affine=shown.affine,
    axis_codes=shown.codes,
    units=shade.units or voxels.look.units,
    window=shade.window,
    rgb_windows=shade.rgb_windows,
    value_range=shade.value_range,
    slices=tuple(int(k) for k in slices),
    provenance=shown.record,
    notes=tuple(shown.notes),
  )


def _shaded(shown: _Shown, shade: Shade, slices: np.ndarray) -> np.ndarray:
  """uint8 [T, H, W, C] of the slices taken; no second copy of all of them is ever held."""
  frames = np.empty(0, np.uint8)
  for place, k in enumerate(slices):
    frame = shade(shown.values[k], None if shown.padding is None else shown.padding[k])
    if place == 0:
      frames = np.empty((len(slices), *frame.shape), np.uint8)
    frames[place] = frame
  return frames


def _laid_out(voxels: Voxels, options: Options) -> _Shown:
  """The volume in the plane asked for, else as acquired."""
  notes = list(voxels.notes)
  if voxels.affine is None:
    if options.plane is not None:
      raise BadRecord("geometry", "orientation_unknown: no plane can be named for this volume")
    notes.append("orientation_unknown: shown as stored, no side can be named")
    values, padding = (
      None if a is None else a.transpose(2, 1, 0) for a in (voxels.values, voxels.padding)
    )
    assert values is not None
    steps = None if voxels.steps_mm is None else voxels.steps_mm[::-1]
    return _Shown(values, padding, None, steps, notes, {"plane": "as stored"})
  acquired = voxels.plane or geometry.plane_of(voxels.values.shape, voxels.affine)
  view = geometry.view(
    voxels.values.shape,
    voxels.affine,
    options.plane or acquired,
    None if voxels.plane is None else geometry.pin(voxels.plane),
  )
  if options.plane is None and view.plane not in ("axial", None):
    why = "in which it was acquired" if voxels.plane else "across its only or thickest slices"
    notes.append(f"shown in the {view.plane} plane, {why}")
  _tell_oblique(view, options.plane, notes)
  return _Shown(
    view(voxels.values),
    None if voxels.padding is None else view(voxels.padding),
    view.affine,
    geometry.steps_mm(view.affine),
    notes,
    {"plane": "as asked" if options.plane else "as acquired" if voxels.plane else "by spacing"},
    view.plane,
    view.codes,
    view.degrees,
  )


def _tell_oblique(view: geometry.View, asked: str | None, notes: list[str]) -> None:
  """Notes on what has no name, or BadRecord where a plane was asked for that has none here."""
  most = geometry.MAX_OBLIQUE_DEGREES
  if view.plane is None:
    turned = f"slices are turned {view.degrees:.1f} degrees from the nearest plane ({view.nearest})"
    if asked is not None:
      raise BadRecord(
        "geometry",
        f"{turned}; the plane {asked} can be shown up to {most:.0f}: leave plane out to see "
        "slices as acquired",
      )
    notes.append(f"{turned}: beyond {most:.0f} no plane and no side is named")
  elif view.codes is None:
    notes.append(f"turned more than {most:.0f} degrees within the plane: no side is named")


def _resampled(shown: _Shown, options: Options, limits: Limits) -> None:
  if options.resample_mm is None:
    return
  if shown.steps is None:
    raise BadRecord("options", "resample_mm needs a known spacing; this volume has none")
  grid = resample.isotropic_grid(shown.values.shape, shown.steps, options.resample_mm)
  shown.values, shown.padding = resample.isotropic(shown.values, shown.padding, grid, limits)
  _place(shown, grid)
  shown.notes.append(f"resampled to voxels of {options.resample_mm:g} mm")
  shown.record["interpolation"] = "linear"


def _squared(frames: np.ndarray, shown: _Shown, limits: Limits) -> np.ndarray:
  if shown.steps is None:
    shown.notes.append("the spacing is not known: pixels are shown as if they were square")
    return frames
  rows, columns = shown.steps[1:]
  frames, grid = resample.square(frames, shown.steps, limits)
  if grid is not None:
    _place(shown, grid)
    fine = min(rows, columns)
    shown.notes.append(
      f"pixels of {rows:.3g} x {columns:.3g} mm were interpolated to squares of {fine:.3g} mm"
    )
    shown.record["square_pixels"] = "linear"
  return frames


def _place(shown: _Shown, grid: resample.Grid) -> None:
  shown.affine = resample.placed(shown.affine, grid)
  if shown.steps is not None:
    between, rows, columns = (float(s * t) for s, t in zip(shown.steps, grid.scale, strict=True))
    shown.steps = between, rows, columns


def _slices(shown: _Shown, options: Options) -> np.ndarray:
  """int64 indices of the slices to take, and how they were chosen."""
  count = len(shown.values)
  shown.record["slices_in_volume"] = count
  if options.slice_mm is None:
    shown.record["sampling"] = "all" if options.frames is None else "by count"
    return sampling.by_count(count, options.frames)
  if shown.steps is None:
    raise BadRecord("options", "slice_mm needs a known spacing; give frames instead")
  shown.record["sampling"] = "by millimetres"
  if options.slice_mm < shown.steps[0]:
    shown.notes.append(f"slices lie {shown.steps[0]:.3g} mm apart: all were taken")
  return sampling.by_mm(count, shown.steps[0], options.slice_mm)
