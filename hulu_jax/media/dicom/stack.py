"""Slices in the patient: their order along the normal, their affine, and what is odd about them."""

from collections.abc import Sequence
import dataclasses

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.errors import BadRecord

PLANES = ("sagittal", "coronal", "axial")
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
# Millimetres, cosines and degrees below which a difference is rounding, not geometry.
_SAME_PLACE_MM, _SAME_COSINE, _NO_TILT = 1e-3, 1e-3, 0.5
# Files round cosines to as few as three digits; beyond this they are no directions.
_COSINE_ERROR = 0.01
_UNEVEN = 0.05  # of the usual gap


@dataclasses.dataclass(frozen=True)
class Plane:
  """Where one slice lies, in LPS millimetres: centre of its first voxel, the direction cosines of a
  row and of a column (ImageOrientationPatient), and the spacing of rows and of columns."""

  position: np.ndarray
  along_row: np.ndarray
  along_column: np.ndarray
  spacing: tuple[float, float]

  @property
  def normal(self) -> np.ndarray:
    """Unit vector [3] from the slice, right-handed with the directions of a row and a column."""
    return np.cross(self.along_row, self.along_column)

  @property
  def name(self) -> str:
    """The anatomical plane closest to it."""
    return PLANES[int(np.argmax(np.abs(self.normal)))]


def is_placed(place: Dataset, turn: Dataset, measures: Dataset) -> bool:
  """True if position, orientation and spacing are given, valid or not."""
  return (
    place.get("ImagePositionPatient") is not None
    and turn.get("ImageOrientationPatient") is not None
    and measures.get("PixelSpacing") is not None
  )


def plane(place: Dataset, turn: Dataset, measures: Dataset) -> Plane:
  """The plane told by ImagePositionPatient, ImageOrientationPatient and PixelSpacing.

  Raises BadRecord("geometry") unless all are given and the cosines are unit and orthogonal.
  """
  if not is_placed(place, turn, measures):
    raise BadRecord("geometry", "a slice without position, orientation or spacing in the patient")
  given = (
    place.ImagePositionPatient,
    turn.ImageOrientationPatient,
    measures.PixelSpacing,
  )
  numbers = np.array([float(v) for element in given for v in element], np.float64)
  if len(numbers) != 11 or not np.all(np.isfinite(numbers)) or min(numbers[9:]) <= 0:
    raise BadRecord("geometry", "a slice whose position, orientation or spacing is not valid")
  row, column = numbers[3:6], numbers[6:9]
  lengths = np.linalg.norm(row), np.linalg.norm(column)
  if max(abs(length - 1) for length in lengths) > _COSINE_ERROR:
    raise BadRecord(
      "geometry",
      f"direction cosines of lengths {lengths[0]:.3g} and {lengths[1]:.3g}; expected 1 and 1",
    )
  row, column = row / lengths[0], column / lengths[1]
  if abs(row @ column) > _COSINE_ERROR:
    turned = np.degrees(np.arccos(row @ column))
    raise BadRecord("geometry", f"rows at {turned:.1f} degrees to columns; expected 90")
  return Plane(numbers[:3], row, column, (float(numbers[9]), float(numbers[10])))


def plane_name(turn: Dataset) -> str | None:
  """The anatomical plane closest to ImageOrientationPatient; None if absent or no direction."""
  cosines = np.array([float(v) for v in turn.get("ImageOrientationPatient") or ()], np.float64)
  if cosines.shape != (6,) or not np.all(np.isfinite(cosines)):
    return None
  return PLANES[int(np.argmax(np.abs(np.cross(cosines[:3], cosines[3:]))))]


def turns(planes: Sequence[Plane]) -> np.ndarray:
  """int [n]: slices of one orientation and spacing share a number, given in order of appearance."""
  found: list[np.ndarray] = []
  numbers = np.empty(len(planes), np.int64)
  for k, p in enumerate(planes):
    own = np.array([*p.along_row, *p.along_column, *p.spacing])
    near = (i for i, other in enumerate(found) if np.abs(own - other).max() <= _SAME_COSINE)
    numbers[k] = next(near, len(found))
    if numbers[k] == len(found):
      found.append(own)
  return numbers


def depths(planes: Sequence[Plane]) -> np.ndarray:
  """float64 [n]: how far along the first slice's normal each lies, in millimetres."""
  return np.array([p.position for p in planes]) @ planes[0].normal


def slots(depth: np.ndarray) -> np.ndarray:
  """int [n]: slices at one depth share a number, which grows with depth."""
  order = np.argsort(depth, kind="stable")
  new = np.diff(depth[order], prepend=-np.inf) >= _SAME_PLACE_MM
  numbers = np.empty(len(depth), np.int64)
  numbers[order] = np.cumsum(new) - 1
  return numbers


def is_even(depth: np.ndarray) -> bool:
  """True if slices at these depths have the same distance everywhere."""
  gaps = np.diff(np.sort(depth))
  return not _odd(gaps).any()


def stack(planes: Sequence[Plane]) -> tuple[list[int], np.ndarray, list[str]]:
  """Order along the slice normal, affine of (row, column, slice, 1) to RAS mm, and warnings.

  DICOM PS3.3 C.7.6.2.1.1.  The step between slices is measured, so a gantry tilt shears the affine;
  it is that from the first to the last slice, divided by the number of gaps.
  """
  if turns(planes).any():
    raise BadRecord("geometry", "slices of different orientation or spacing; expected one stack")
  first, depth = planes[0], depths(planes)
  shared = len(planes) - len(np.unique(slots(depth)))
  if shared:
    raise BadRecord("geometry", f"{shared} slices share a position with another; expected one each")
  order = [int(k) for k in np.argsort(depth)]
  positions = np.array([planes[k].position for k in order])
  gaps = np.diff(depth[order])
  # A lone slice needs some depth for its affine; its thickness plays no part in the picture.
  step = (positions[-1] - positions[0]) / len(gaps) if len(gaps) else first.normal
  affine = np.eye(4)
  affine[:3, 0] = first.along_column * first.spacing[0]
  affine[:3, 1] = first.along_row * first.spacing[1]
  affine[:3, 2] = step
  affine[:3, 3] = positions[0]
  affine[:3] *= _LPS_TO_RAS[:, None]
  return order, affine, [*_gap_warnings(gaps), *_shift_warnings(positions, step, first)]


def _odd(gaps: np.ndarray) -> np.ndarray:
  """Which gaps differ from the usual one by more than rounding."""
  if len(gaps) == 0:
    return np.zeros(0, bool)
  usual = float(np.median(gaps))
  return np.abs(gaps - usual) > max(_UNEVEN * usual, 0.01)


def _gap_warnings(gaps: np.ndarray) -> list[str]:
  odd = _odd(gaps)
  if not odd.any():
    return []
  usual = float(np.median(gaps))
  times = np.round(gaps / usual)
  holes = odd & (times >= 2) & (np.abs(gaps - times * usual) <= _UNEVEN * gaps)
  notes = []
  if holes.any():
    absent, places = int((times[holes] - 1).sum()), int(holes.sum())
    notes.append(
      f"missing_slices: {absent} at {places} of {len(gaps)} gaps, {usual:.2f} mm is usual; "
      "nothing was filled in"
    )
  uneven = gaps[odd & ~holes]
  if len(uneven):
    notes.append(
      f"uneven_spacing: {len(uneven)} of {len(gaps)} gaps are {uneven.min():.2f} to "
      f"{uneven.max():.2f} mm, {usual:.2f} mm is usual; shown as if even"
    )
  return notes


def _shift_warnings(positions: np.ndarray, step: np.ndarray, first: Plane) -> list[str]:
  notes = []
  cosine = abs(step @ first.normal) / np.linalg.norm(step)
  tilt = np.degrees(np.arccos(np.clip(cosine, 0, 1)))
  if tilt > _NO_TILT:
    notes.append(
      f"gantry_tilt: {tilt:.1f} degrees, slices are shifted against each other and shown so"
    )
  # Where the line from the first to the last slice meets each slice's plane.
  along = (positions - positions[0]) @ first.normal / (step @ first.normal)
  aside = np.linalg.norm(positions - positions[0] - along[:, None] * step, axis=1).max()
  if aside > min(first.spacing):
    notes.append(f"shifted_slices: by up to {aside:.1f} mm from a straight line, shown as if on it")
  return notes
