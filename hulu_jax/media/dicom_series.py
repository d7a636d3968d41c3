"""A DICOM series, in a folder or in one enhanced file, to voxels with an affine."""

from collections.abc import Sequence
import dataclasses
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media import dicom_header
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.volume import Voxels

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_PLANES = ("sagittal", "coronal", "axial")
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


def read_folder(folder: Path, limits: Limits) -> Voxels:
  """All slices of the one series in `folder`.  Raises BadRecord unless they form one volume."""
  slices, notes = _one_series(folder, limits)
  headers = [dataset for _, dataset in slices]
  sizes = {dicom_header.shape(dataset)[1:] for dataset in headers}
  if len(sizes) > 1:
    raise BadRecord("geometry", f"slices of {len(sizes)} different sizes; expected one")
  if any(dicom_header.shape(dataset)[0] != 1 for dataset in headers):
    raise BadRecord("geometry", f"{len(headers)} multi-frame files in one series; give one file")
  limits.check(len(headers), *next(iter(sizes)))
  order, affine, more = stack([plane(dataset, dataset, dataset) for dataset in headers])
  # Slices keep their own type where it is shared; mixed types meet in the wider one.
  values = np.stack([_slice(slices[k][0]) for k in order], axis=-1)
  return voxels(values, affine, headers[order[0]], headers[order[0]], (*notes, *more))


def read_enhanced(path: Path, dataset: Dataset) -> Voxels:
  """One enhanced CT or MR file: its frames placed by their functional groups."""
  count = dicom_header.shape(dataset)[0]
  planes, scales = [], []
  for k in range(count):
    place = _macro(dataset, k, "PlanePositionSequence")
    turn = _macro(dataset, k, "PlaneOrientationSequence")
    planes.append(plane(place, turn, _macro(dataset, k, "PixelMeasuresSequence")))
    scales.append(_macro(dataset, k, "PixelValueTransformationSequence"))
  order, affine, notes = stack(planes)
  stored, _ = dicom_header.decode(path, np.arange(count))
  if stored.ndim != 3:
    raise BadRecord("format", "a colour volume; expected grey slices")
  values = [
    dicom_header.rescale(
      stored[k], scales[k].get("RescaleSlope"), scales[k].get("RescaleIntercept")
    )
    for k in order
  ]
  voi = _macro(dataset, order[0], "FrameVOILUTSequence")
  merged = Dataset()
  merged.update(voi)
  merged.update(scales[order[0]])
  return voxels(np.stack(values, axis=-1), affine, dataset, merged, tuple(notes))


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


def voxels(
  values: np.ndarray, affine: np.ndarray, dataset: Dataset, scale: Dataset, notes: tuple[str, ...]
) -> Voxels:
  """values: [row, column, slice] in modality units; scale: carries rescale type and window."""
  modality = dicom_header.modality(dataset)
  normal = np.cross(affine[:3, 0], affine[:3, 1])
  return Voxels(
    values=values,
    affine=affine,
    modality=modality,
    hounsfield=dicom_header.is_hounsfield(modality, scale),
    plane=_PLANES[int(np.argmax(np.abs(normal)))],
    window=dicom_header.own_window(scale) if modality != "MR" else None,
    inverted=dicom_header.text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
    notes=(*notes, *dicom_header.warnings(dataset, cropped=False)),
  )


def _slice(path: Path) -> np.ndarray:
  """[row, column] in modality units, by this slice's own slope and intercept."""
  frames, dataset = dicom_header.decode(path, np.arange(1))
  if frames.ndim != 3:
    raise BadRecord("format", "a colour slice in a series; expected grey slices")
  scaled = dicom_header.rescale(
    frames[0], dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
  )
  low, high = scaled.min(), scaled.max()
  small = scaled.dtype == np.int32 and -32768 <= low and high <= 32767
  return scaled.astype(np.int16) if small else scaled


def _one_series(folder: Path, limits: Limits) -> tuple[list[tuple[Path, Dataset]], list[str]]:
  """The slices of the only series, in file order; others' objects are counted, not shown."""
  series: dict[str, list[tuple[Path, Dataset]]] = {}
  skipped: dict[str, int] = {}
  for path in sorted(p for p in folder.iterdir() if p.is_file()):
    if not dicom_header.has_marker(path):
      skipped["a file that is not DICOM"] = skipped.get("a file that is not DICOM", 0) + 1
      continue
    dataset = dicom_header.header(path, limits)
    reason = dicom_header.why_not_picture(dataset)
    if reason is not None:
      skipped[reason] = skipped.get(reason, 0) + 1
      continue
    series.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append((path, dataset))
    limits.within("slices", sum(map(len, series.values())), limits.max_frames)
  notes = [f"skipped {count} x {reason}" for reason, count in sorted(skipped.items())]
  if len(series) != 1:
    found = f"{len(series)} DICOM series in the folder" + (
      f" ({', '.join(notes)})" if notes else ""
    )
    raise BadRecord("geometry" if series else "format", f"{found}; expected one per folder")
  return next(iter(series.values())), notes


def _macro(dataset: Dataset, frame: int, keyword: str) -> Dataset:
  """The functional group `keyword` of a frame, else the shared one, else empty."""
  groups = [
    *dataset.get("PerFrameFunctionalGroupsSequence", [])[frame : frame + 1],
    *dataset.get("SharedFunctionalGroupsSequence", [])[:1],
  ]
  for group in groups:
    if group.get(keyword):
      return group[keyword].value[0]
  return Dataset()
