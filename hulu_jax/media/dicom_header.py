"""Opens DICOM safely: what is refused, what is too large, and the pixels in modality units."""

from pathlib import Path
import re

import numpy as np
import pydicom
from pydicom import pixels
from pydicom.dataset import Dataset

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits

# Inflated as a whole before any header can be checked: a few kB may become gigabytes.
_DEFLATED = {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.95"}
# Objects that carry numbers, drawings or text but no picture of a patient.
_NOT_PICTURES = {"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "ECG", "DOC"}
_SPATIAL_2D = 1
_OFTEN_ANNOTATED = {"US", "IVUS", "SC", "OT", "XA", "RF", "ES"}


def has_marker(path: Path) -> bool:
  """True if the file carries DICOM's preamble."""
  with open(path, "rb") as file:
    return file.read(132)[128:] == b"DICM"


def header(path: Path, limits: Limits) -> Dataset:
  """Everything before the pixels.  Raises BadRecord for deflated, oversized or non-DICOM files."""
  limits.check_bytes(path.stat().st_size)
  if not has_marker(path):
    raise BadRecord("format", "no DICM marker at byte 128; expected a DICOM file")
  meta = pydicom.filereader.read_file_meta_info(path)
  if str(meta.get("TransferSyntaxUID", "")) in _DEFLATED:
    raise BadRecord("format", "a deflated transfer syntax, refused; expected it to be re-encoded")
  return pydicom.dcmread(path, stop_before_pixels=True)


def why_not_picture(dataset: Dataset) -> str | None:
  """Why the object cannot be shown as a patient's picture, None if it can."""
  code = modality(dataset)
  if code in _NOT_PICTURES:
    return f"a {code} object"
  if code == "SM":
    return "a whole-slide image (not read yet)"
  if "LOCALIZER" in [str(v) for v in dataset.get("ImageType") or ()]:
    return "a localizer"
  if text(dataset, "PresentationIntentType") == "FOR PROCESSING":
    return "an X-ray for processing, not for presentation"
  if dataset.get("Rows") is None or dataset.get("Columns") is None:
    return "an object without a picture"
  return None


def shape(dataset: Dataset) -> tuple[int, int, int]:
  """Declared frames, rows and columns."""
  return int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)


def text(dataset: Dataset, keyword: str) -> str | None:
  """A coded element of the header as a string, None if absent or empty; not for display."""
  value = dataset.get(keyword)
  return str(value) if value not in (None, "") else None


def modality(dataset: Dataset) -> str | None:
  """The Modality code; None if absent or not shaped like one, so that no free text gets out."""
  value = text(dataset, "Modality") or ""
  return value if re.fullmatch("[A-Z]{2,16}", value) else None


def decode(path: Path, taken: np.ndarray) -> tuple[np.ndarray, Dataset]:
  """Frames `taken` as stored: [T, H, W] or, in colour, uint8 RGB [T, H, W, 3]; and the dataset."""
  dataset = pydicom.dcmread(path)
  if "PixelData" not in dataset:
    raise BadRecord("format", "a DICOM file without PixelData")
  try:
    frames = np.stack(list(pixels.iter_pixels(dataset, indices=[int(k) for k in taken])))
  except (RuntimeError, NotImplementedError):
    uid = pydicom.uid.UID(str(dataset.file_meta.TransferSyntaxUID))
    name = uid.name if uid.is_transfer_syntax else "an unknown transfer syntax"
    raise BadRecord("format", f"pixels in {name} that no installed decoder reads") from None
  if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
    frames = pixels.apply_color_lut(frames, dataset)
    return (frames if frames.dtype == np.uint8 else (frames >> 8).astype(np.uint8)), dataset
  if frames.ndim == 4 and frames.dtype != np.uint8:
    top = 2 ** int(dataset.BitsStored) - 1
    frames = (frames.astype(np.float64) * 255 / top + 0.5).astype(np.uint8)
  return frames, dataset


def rescale(frames: np.ndarray, slope: float | None, intercept: float | None) -> np.ndarray:
  """Stored values to modality units (HU for CT): int32 where both numbers are whole, or float32."""
  slope = 1.0 if slope is None else float(slope)
  intercept = 0.0 if intercept is None else float(intercept)
  if slope.is_integer() and intercept.is_integer():
    return frames.astype(np.int32) * int(slope) + int(intercept)
  return frames.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def is_hounsfield(code: str | None, source: Dataset) -> bool:
  """True if modality `code` and `source`, which carries the rescale elements, give HU."""
  declared = text(source, "RescaleType")
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


def ultrasound_region(dataset: Dataset) -> tuple[int, int, int, int]:
  """(top, left, bottom, right) around all 2D regions of SequenceOfUltrasoundRegions.

  Outside of it scanners write names, dates and findings.  Raises BadRecord if none is declared.
  """
  regions = list(dataset.get("SequenceOfUltrasoundRegions") or ())
  flat = [r for r in regions if r.get("RegionSpatialFormat") == _SPATIAL_2D]
  if not flat:
    raise BadRecord(
      "geometry", "no 2D ultrasound region is declared; give top, left, bottom, right"
    )
  return (
    min(int(r.RegionLocationMinY0) for r in flat),
    min(int(r.RegionLocationMinX0) for r in flat),
    max(int(r.RegionLocationMaxY1) for r in flat) + 1,
    max(int(r.RegionLocationMaxX1) for r in flat) + 1,
  )


def warnings(dataset: Dataset, cropped: bool) -> list[str]:
  """What a user must know before such pixels leave the house."""
  if text(dataset, "BurnedInAnnotation") == "YES":
    return ["the file says that text is burned into its pixels"]
  if not cropped and modality(dataset) in _OFTEN_ANNOTATED:
    return ["this kind of picture often carries burned-in text: look before sharing it"]
  return []
