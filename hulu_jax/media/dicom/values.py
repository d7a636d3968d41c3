"""Stored numbers to modality units (HU, ...), and how the header asks for them to be shown."""

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header
from hulu_jax.media.intensity import Look


def look(dataset: Dataset, scale: Dataset) -> Look:
  """dataset: of the file; scale: carries the elements of rescale and window (the same, or a frame's
  functional groups)."""
  modality = header.modality(dataset)
  return Look(
    modality=modality,
    units="HU" if is_hounsfield(modality, scale) else None,
    window=own_window(scale) if modality != "MR" else None,
    inverted=header.text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
  )


def measured(
  stored: np.ndarray, dataset: Dataset, scale: Dataset
) -> tuple[np.ndarray, np.ndarray | None]:
  """Stored numbers in the units that `look(dataset, scale)` names, and where they are padding.

  The second is bool of the same shape, None where the scanner measured every pixel.
  """
  del dataset
  return rescale(stored, scale.get("RescaleSlope"), scale.get("RescaleIntercept")), None


def rescale(frames: np.ndarray, slope: float | None, intercept: float | None) -> np.ndarray:
  """Stored values to modality units (HU for CT): int32 where both numbers are whole, or float32."""
  slope = 1.0 if slope is None else float(slope)
  intercept = 0.0 if intercept is None else float(intercept)
  if slope.is_integer() and intercept.is_integer():
    return frames.astype(np.int32) * int(slope) + int(intercept)
  return frames.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def is_hounsfield(code: str | None, source: Dataset) -> bool:
  """True if modality `code` and `source`, which carries the rescale elements, give HU."""
  declared = header.text(source, "RescaleType")
  return code == "CT" and source.get("RescaleIntercept") is not None and declared in (None, "HU")


def own_window(source: Dataset) -> tuple[float, float] | None:
  """The first window the file asks for."""
  centre, width = source.get("WindowCenter"), source.get("WindowWidth")
  if centre is None or width is None:
    return None
  first = [
    float(v[0] if isinstance(v, pydicom.multival.MultiValue) else v) for v in (centre, width)
  ]
  return (first[0], first[1]) if first[1] >= 1 else None
