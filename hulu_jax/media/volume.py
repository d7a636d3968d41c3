"""Voxels with an affine to display frames: plane, orientation, intensity, slices."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import itertools

import numpy as np

from hulu_jax.media import sampling
from hulu_jax.media import windows
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import PLANES
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

# Transposes of a volume whose indices grow to right, anterior, superior; after it, flipping all
# three axes gives the display convention (DICOM PS3.17 annex on patient orientation; radiological).
_TRANSPOSE = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
_CODES = {"axial": "IPL", "coronal": "PIL", "sagittal": "LIP"}
_NORMAL = ("sagittal", "coronal", "axial")
_MR_PERCENTILES = (0.5, 99.5)


@dataclasses.dataclass(frozen=True)
class Voxels:
  """values: [i, j, k], any real dtype, modality units; `values[:, :, k]` is slice k as
  stored.  affine: [4, 4] of (i, j, k, 1) to RAS millimetres, None if unknown.  steps_mm: between
  voxels along i, j, k, if known.  plane: in which it was acquired, if known.  window: what the file
  itself asks for.  inverted: low values are bright (MONOCHROME1)."""

  values: np.ndarray
  affine: np.ndarray | None
  steps_mm: tuple[float, float, float] | None = None
  modality: str | None = None
  hounsfield: bool = False
  plane: str | None = None
  window: tuple[float, float] | None = None
  inverted: bool = False
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


def nearest_axes(affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
  """For each world axis (R, A, S): the voxel axis closest to it, and the sign along it.

  Each voxel axis is used once: of the six assignments, the one with the largest sum of absolute
  direction cosines.  Raises BadRecord if the affine is singular or not finite.
  """
  steps = affine[:3, :3]
  lengths = np.linalg.norm(steps, axis=0)
  if not (np.all(np.isfinite(affine)) and np.all(lengths > 0)):
    raise BadRecord("geometry", "an affine without finite, non-zero steps")
  cosines = steps / lengths
  if abs(np.linalg.det(cosines)) < 1e-3:
    raise BadRecord("geometry", "an affine whose axes lie in one plane")
  order = max(
    itertools.permutations(range(3)), key=lambda p: sum(abs(cosines[w, p[w]]) for w in range(3))
  )
  return order, np.sign([cosines[w, order[w]] for w in range(3)])


def display(values: np.ndarray, affine: np.ndarray, plane: str) -> tuple[np.ndarray, np.ndarray]:
  """`values` as [slice, row, column] (a view) in `plane`, and the affine of those indices.

  Axial: anterior up, the patient's right on the viewer's left, head to feet.  Coronal: superior up,
  right on the left, front to back.  Sagittal: superior up, anterior on the left, right to left.
  """
  order, signs = nearest_axes(affine)
  world = _TRANSPOSE[plane]
  axes = [order[w] for w in world]
  frames = values.transpose(axes)
  matrix = np.zeros((4, 4))
  matrix[:, :3] = affine[:, axes]
  matrix[:, 3] = affine[:, 3]
  for axis, w in enumerate(world):
    if signs[w] > 0:  # display indices all grow to the left, posterior and inferior
      frames = np.flip(frames, axis)
      matrix[:3, 3] += matrix[:3, axis] * (frames.shape[axis] - 1)
      matrix[:3, axis] *= -1
  return frames, matrix


def _render_radiology(voxels: Voxels, options: Options) -> Media:
  notes = list(voxels.notes)
  if voxels.affine is None:
    if options.plane is not None:
      raise BadRecord("geometry", "orientation_unknown: no plane can be named for this volume")
    notes.append("orientation_unknown: shown as stored, no side can be named")
    frames, affine, codes = voxels.values.transpose(2, 1, 0), None, None
    steps = None if voxels.steps_mm is None else voxels.steps_mm[::-1]
  else:
    plane = options.plane or voxels.plane or _plane_of_spacing(voxels.affine, notes)
    frames, affine = display(voxels.values, voxels.affine, plane)
    codes = _CODES[plane]
    steps = np.linalg.norm(affine[:3, :3], axis=0)
  if voxels.modality is None:
    notes.append("the modality is not known: declare it (CT allows a window in HU)")
  shade, window = shading(frames, voxels.hounsfield, options.window, voxels.window, notes)
  slices = sampling.by_count(len(frames), options.frames)
  out = np.stack([shade(frames[k]) for k in slices])
  return Media(
    kind="volume",
    frames=(255 - out if voxels.inverted else out)[..., None],
    modality=voxels.modality,
    spacing_mm=_spacing(steps, slices),
    affine=affine,
    axis_codes=codes,
    window=window,
    slices=tuple(int(k) for k in slices),
    notes=tuple(notes),
  )


Window = tuple[float, float]


def shading(
  values: np.ndarray,
  hounsfield: bool,
  window: str | Window | None,
  file_window: Window | None,
  notes: list[str],
) -> tuple[Callable[[np.ndarray], np.ndarray], Window | None]:
  """The function from values to uint8 grey levels, and the HU window it applies or None.

  values: all frames of the file, so that one mapping serves them all.  hounsfield: they are known
  to be HU.  window: what the caller asked for; file_window: what the file asks for.  Adds to
  `notes` what was decided without asking.  Raises BadRecord for a window on values that may not be
  HU.
  """
  if window is not None and not hounsfield:
    raise BadRecord(
      "options", 'a window in HU on values not known to be HU; expected modality "CT"'
    )
  if hounsfield and window is None and file_window is None:
    notes.append("no window was given: abdomen (centre 40, width 400 HU) was used")
  elif window is None and file_window is not None:
    notes.append("no window was given: the file's own was used")
  if hounsfield or file_window is not None:
    centre, width = windows.lookup(window or file_window or "abdomen")
    shade = functools.partial(windows.linear, centre=centre, width=width)
    return shade, (centre, width) if hounsfield else None
  low, high = _percentiles(values)
  notes.append("grey levels span percentiles 0.5 to 99.5 of the whole file")
  return functools.partial(windows.stretch, low=low, high=high), None


def _percentiles(values: np.ndarray) -> tuple[float, float]:
  if values.dtype.kind == "f":
    values = values[np.isfinite(values)]
  if values.size == 0:
    raise BadRecord("format", "no voxel holds a finite number")
  low, high = np.percentile(values, _MR_PERCENTILES)
  if not high > low:  # a small bright object on nothing
    low, high = values.min(), values.max()
  return float(low), float(high)


def _plane_of_spacing(affine: np.ndarray, notes: list[str]) -> str:
  """Axial, unless one axis is at least 1.5 times coarser than both others: then across that one."""
  order, _ = nearest_axes(affine)
  lengths = np.linalg.norm(affine[:3, :3], axis=0)[list(order)]
  coarsest = int(np.argmax(lengths))
  if lengths[coarsest] < 1.5 * np.delete(lengths, coarsest).max() or coarsest == 2:
    return "axial"
  notes.append(f"shown in the {_NORMAL[coarsest]} plane: its slices are the thickest")
  return _NORMAL[coarsest]


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
      isinstance(options.window, str) and options.window in windows.TABLE and not voxels.hounsfield
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
    modality=voxels.modality,
    spacing_mm=_spacing(steps, slices),
    window=window,
    slices=tuple(int(k) for k in slices),
    notes=(
      *voxels.notes,
      "preset hulumed: array order, each slice stretched by itself; no side can be named",
    ),
  )
