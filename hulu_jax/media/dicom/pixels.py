"""Pixels of a DICOM file as stored: decoded by frame, colours as RGB."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom import pixels
from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header
from hulu_jax.media.errors import BadRecord


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
  if header.text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
    frames = pixels.apply_color_lut(frames, dataset)
    return (frames if frames.dtype == np.uint8 else (frames >> 8).astype(np.uint8)), dataset
  if frames.ndim == 4 and frames.dtype != np.uint8:
    top = 2 ** int(dataset.BitsStored) - 1
    frames = (frames.astype(np.float64) * 255 / top + 0.5).astype(np.uint8)
  return frames, dataset
