"""Opens DICOM safely: what is refused, what is too large, and what is no picture."""

from pathlib import Path
import re

import pydicom
from pydicom.dataset import Dataset

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits

# Inflated as a whole before any header can be checked: a few kB may become gigabytes.
_DEFLATED = {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.95"}
# Objects that carry numbers, drawings or text but no picture of a patient.
_NOT_PICTURES = {"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "ECG", "DOC"}


def has_marker(path: Path) -> bool:
  """True if the file carries DICOM's preamble."""
  with open(path, "rb") as file:
    return file.read(132)[128:] == b"DICM"


def read(path: Path, limits: Limits) -> Dataset:
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
