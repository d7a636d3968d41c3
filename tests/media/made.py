"""What several media tests make: DICOM datasets and an asymmetric phantom."""

import datetime

import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from pydicom.dataset import FileMetaDataset

CANARY = "CANARY^NAME"
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
US_MULTI_CLASS = "1.2.840.10008.5.1.4.1.1.3.1"


def dicom_dataset(pixels: np.ndarray, **elements) -> FileDataset:
  """pixels: [H, W], [T, H, W] or uint8 [T, H, W, 3]; elements override the defaults below."""
  meta = FileMetaDataset()
  meta.MediaStorageSOPClassUID = CT_CLASS
  meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
  meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
  dataset.SOPClassUID = CT_CLASS
  dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
  dataset.SeriesInstanceUID = "1.2.3.4"
  dataset.PatientName, dataset.PatientID = CANARY, "CANARY_ID"
  dataset.StudyDate = datetime.date(1999, 1, 2).strftime("%Y%m%d")
  colour = pixels.ndim == 4
  dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
  if pixels.ndim > 2:
    dataset.NumberOfFrames = len(pixels)
  dataset.SamplesPerPixel = 3 if colour else 1
  dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
  if colour:
    dataset.PlanarConfiguration = 0
  bits = pixels.dtype.itemsize * 8
  dataset.BitsAllocated = dataset.BitsStored = bits
  dataset.HighBit = bits - 1
  dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
  for keyword, value in elements.items():
    setattr(dataset, keyword, value)
  dataset.PixelData = pixels.tobytes()
  return dataset


def phantom() -> np.ndarray:
  """int16 [R, A, S] = [12, 10, 8]: a bright mark at the patient's right, front and top.

  100 HU to the right of the middle, 200 in front of it, 400 above it, added up: every octant has
  its own value, so any wrong flip or transpose shows.
  """
  x, y, z = np.meshgrid(*(np.arange(n) for n in (12, 10, 8)), indexing="ij")
  return (100 * (x >= 6) + 200 * (y >= 5) + 400 * (z >= 4)).astype(np.int16)
