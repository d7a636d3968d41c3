"""What several media tests make: DICOM datasets and an asymmetric phantom."""

from collections.abc import Sequence
import datetime
from pathlib import Path
import random

import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from pydicom.dataset import FileMetaDataset

from hulu_jax.media import DEFAULT
from hulu_jax.media.dicom import folder as folder_lib
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import series
from hulu_jax.media.volume import Voxels

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


def dicom_slices(values: np.ndarray, affine: np.ndarray, **elements) -> list[FileDataset]:
  """values: [row, column, slice]; affine: [4, 4] of their indices to LPS millimetres, as DICOM has
  it.  One file per slice, not written yet; elements override the defaults."""
  lengths = np.linalg.norm(affine[:3, :3], axis=0)
  turn = [*affine[:3, 1] / lengths[1], *affine[:3, 0] / lengths[0]]
  slices = []
  for k in range(values.shape[2]):
    place = affine[:3] @ [0, 0, k, 1]
    defaults = {
      "Modality": "MR",
      "ImageOrientationPatient": [f"{v:.12f}" for v in turn],
      "ImagePositionPatient": [f"{v:.10f}" for v in place],
      "PixelSpacing": [f"{lengths[0]:.10f}", f"{lengths[1]:.10f}"],
      "InstanceNumber": k + 1,
    }
    picture = np.ascontiguousarray(values[:, :, k])
    slices.append(dicom_dataset(picture, **(defaults | elements)))
  return slices


def write_files(folder: Path, datasets: Sequence[FileDataset], seed: int = 0) -> Path:
  """Writes them in `folder`, which it returns, under names in an order that `seed` draws."""
  folder.mkdir(exist_ok=True, parents=True)
  names = [f"IM{seed}{n:04}" for n in range(len(datasets))]
  random.Random(seed).shuffle(names)
  for name, dataset in zip(names, datasets, strict=True):
    dataset.save_as(folder / name, enforce_file_format=True)
  return folder


def dicom_voxels(path: Path, phase: str | None = None, number: int | None = None) -> Voxels:
  """A DICOM folder or file as voxels with an affine, before anything is done for display."""
  if path.is_file():
    return series.read([(path, header.read(path, DEFAULT))], phase, DEFAULT)
  return series.read(
    folder_lib.pick(*folder_lib.survey(path, DEFAULT), number).files, phase, DEFAULT
  )
