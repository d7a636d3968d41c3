"""The slices of one DICOM series to voxels with an affine."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.dicom import annotations
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import pixels
from hulu_jax.media.dicom import values as values_lib
from hulu_jax.media.dicom.folder import one_series
from hulu_jax.media.dicom.stack import plane
from hulu_jax.media.dicom.stack import stack
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.volume import Voxels

_PLANES = ("sagittal", "coronal", "axial")


def read(folder: Path, limits: Limits) -> Voxels:
  """All slices of the one series in `folder`.  Raises BadRecord unless they form one volume."""
  slices, notes = one_series(folder, limits)
  headers = [dataset for _, dataset in slices]
  sizes = {header.shape(dataset)[1:] for dataset in headers}
  if len(sizes) > 1:
    raise BadRecord("geometry", f"slices of {len(sizes)} different sizes; expected one")
  if any(header.shape(dataset)[0] != 1 for dataset in headers):
    raise BadRecord("geometry", f"{len(headers)} multi-frame files in one series; give one file")
  limits.check(len(headers), *next(iter(sizes)))
  order, affine, more = stack([plane(dataset, dataset, dataset) for dataset in headers])
  # Slices keep their own type where it is shared; mixed types meet in the wider one.
  values = np.stack([_slice(slices[k][0]) for k in order], axis=-1)
  return voxels(values, affine, headers[order[0]], headers[order[0]], (*notes, *more))


def voxels(
  values: np.ndarray, affine: np.ndarray, dataset: Dataset, scale: Dataset, notes: tuple[str, ...]
) -> Voxels:
  """values: [row, column, slice] in modality units; scale: carries rescale type and window."""
  normal = np.cross(affine[:3, 0], affine[:3, 1])
  return Voxels(
    values=values,
    affine=affine,
    look=values_lib.look(dataset, scale),
    plane=_PLANES[int(np.argmax(np.abs(normal)))],
    notes=(*notes, *annotations.warnings(dataset, cropped=False)),
  )


def _slice(path: Path) -> np.ndarray:
  """[row, column] in modality units, by this slice's own slope and intercept."""
  frames, dataset = pixels.decode(path, np.arange(1))
  if frames.ndim != 3:
    raise BadRecord("format", "a colour slice in a series; expected grey slices")
  scaled = values_lib.rescale(
    frames[0], dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
  )
  low, high = scaled.min(), scaled.max()
  small = scaled.dtype == np.int32 and -32768 <= low and high <= 32767
  return scaled.astype(np.int16) if small else scaled
