"""Slices in the patient: their order along the normal, their affine, and what is odd about them."""

from collections.abc import Sequence
import dataclasses

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.errors import BadRecord

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
# Millimetres, cosines and degrees below which a difference is rounding, not geometry.
_SAME_PLACE_MM, _SAME_COSINE, _NO_TILT = 1e-3, 1e-3, 0.5
_UNEVEN = 0.05  # of the median gap


@dataclasses.dataclass(frozen=True)
class Plane:
  """Where one slice lies, in LPS millimetres: centre of its first voxel, the direction cosines of a
  row and of a column (ImageOrientationPatient), and the spacing of rows and of columns."""

  position: np.ndarray
  along_row: np.ndarray
  along_column: np.ndarray
  spacing: tuple[float, float]


def plane(place: Dataset, turn: Dataset, measures: Dataset) -> Plane:
  """The plane told by ImagePositionPatient, ImageOrientationPatient and PixelSpacing."""
  position = place.get("ImagePositionPatient")
  cosines = turn.get("ImageOrientationPatient")
  spacing = measures.get("PixelSpacing")
  if position is None or cosines is None or spacing is None:
    raise BadRecord("geometry", "a slice without position, orientation or spacing in the patient")
  numbers = np.array([*position, *cosines, *spacing], np.float64)
  if len(numbers) != 11 or not np.all(np.isfinite(numbers)) or min(numbers[9:]) <= 0:
    raise BadRecord("geometry", "a slice whose position, orientation or spacing is not valid")
  return Plane(numbers[:3], numbers[3:6], numbers[6:9], (float(numbers[9]), float(numbers[10])))


def stack(planes: Sequence[Plane]) -> tuple[list[int], np.ndarray, list[str]]:
  """Order along the slice normal, affine of (row, column, slice, 1) to RAS mm, and warnings.

  DICOM PS3.3 C.7.6.2.1.1.  The step between slices is measured, so a gantry tilt shears the affine.
  """
  first = planes[0]
  turns = np.array([[*p.along_row, *p.along_column, *p.spacing] for p in planes])
  if np.abs(turns - turns[0]).max() > _SAME_COSINE:
    raise BadRecord("geometry", "slices of different orientation or spacing; expected one stack")
  normal = np.cross(first.along_row, first.along_column)
  positions = np.array([p.position for p in planes])
  depth = positions @ normal
  order = [int(k) for k in np.argsort(depth, kind="stable")]
  gaps = np.diff(depth[order])
  if len(gaps) and gaps.min() < _SAME_PLACE_MM:
    shared = int((gaps < _SAME_PLACE_MM).sum())
    raise BadRecord(
      "geometry", f"{shared} slices share a position with another; expected one phase"
    )
  # A lone slice needs some depth for its affine; its thickness plays no part in the picture.
  ends = positions[order[-1]] - positions[order[0]]
  step = ends / len(gaps) if len(gaps) else normal
  affine = np.eye(4)
  affine[:3, 0] = first.along_column * first.spacing[0]
  affine[:3, 1] = first.along_row * first.spacing[1]
  affine[:3, 2] = step
  affine[:3, 3] = positions[order[0]]
  affine[:3] *= _LPS_TO_RAS[:, None]
  return order, affine, _stack_warnings(gaps, step, normal)


def _stack_warnings(gaps: np.ndarray, step: np.ndarray, normal: np.ndarray) -> list[str]:
  notes = []
  if len(gaps):
    usual = float(np.median(gaps))
    uneven = int((np.abs(gaps - usual) > max(_UNEVEN * usual, 0.01)).sum())
    if uneven:
      notes.append(
        f"{uneven} of {len(gaps)} gaps differ from {usual:.2f} mm: slices may be missing"
      )
  tilt = np.degrees(np.arccos(np.clip(abs(step @ normal) / np.linalg.norm(step), 0, 1)))
  if tilt > _NO_TILT:
    notes.append(f"gantry tilt of {tilt:.1f} degrees: slices are shifted against each other")
  turned = np.degrees(np.arccos(np.clip(np.abs(normal).max(), 0, 1)))
  if turned > _NO_TILT:
    notes.append(f"slices are turned {turned:.1f} degrees from the plane they are named after")
  return notes
