"""One enhanced CT or MR file to voxels: frames placed by their functional groups."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import pixels
from hulu_jax.media.dicom import series
from hulu_jax.media.dicom import values as values_lib
from hulu_jax.media.dicom.stack import plane
from hulu_jax.media.dicom.stack import stack
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.volume import Voxels


def read(path: Path, dataset: Dataset) -> Voxels:
  """One enhanced CT or MR file: its frames placed by their functional groups."""
  count = header.shape(dataset)[0]
  planes, scales = [], []
  for k in range(count):
    place = _macro(dataset, k, "PlanePositionSequence")
    turn = _macro(dataset, k, "PlaneOrientationSequence")
    planes.append(plane(place, turn, _macro(dataset, k, "PixelMeasuresSequence")))
    scales.append(_macro(dataset, k, "PixelValueTransformationSequence"))
  order, affine, notes = stack(planes)
  stored, _ = pixels.decode(path, np.arange(count))
  if stored.ndim != 3:
    raise BadRecord("format", "a colour volume; expected grey slices")
  values = [
    values_lib.rescale(stored[k], scales[k].get("RescaleSlope"), scales[k].get("RescaleIntercept"))
    for k in order
  ]
  voi = _macro(dataset, order[0], "FrameVOILUTSequence")
  merged = Dataset()
  merged.update(voi)
  merged.update(scales[order[0]])
  return series.voxels(np.stack(values, axis=-1), affine, dataset, merged, tuple(notes))


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
