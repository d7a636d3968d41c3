"""The smallest file of every format, as bytes: what damage, time-outs and canaries are tried on."""

from collections.abc import Callable
from fractions import Fraction
import gzip
import io

import av
import nibabel
import numpy as np
from PIL import Image
import pydicom
from pydicom import encaps
from pydicom import uid
from pydicom.dataset import Dataset

from tests.media.made import US_MULTI_CLASS
from tests.media.made import dicom_dataset


def grey(height: int = 16, width: int = 24) -> np.ndarray:
  """uint8 [height, width], a ramp with some noise."""
  noise = np.random.default_rng(0).integers(0, 20, (height, width))
  return (np.add.outer(np.arange(height), np.arange(width)) * 3 + noise).astype(np.uint8)


def picture(form: str) -> bytes:
  """A colour picture in one of Pillow's formats."""
  out = io.BytesIO()
  Image.fromarray(np.stack([grey()] * 3, axis=-1)).save(out, form)
  return out.getvalue()


def nifti() -> bytes:
  """int16 [12, 10, 4] with a qform."""
  values = np.arange(480, dtype=np.int16).reshape(12, 10, 4)
  return nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])).to_bytes()


def npy() -> bytes:
  """int16 [4, 10, 12]."""
  out = io.BytesIO()
  np.save(out, np.arange(480, dtype=np.int16).reshape(4, 10, 12))
  return out.getvalue()


def saved(dataset: pydicom.FileDataset) -> bytes:
  """A dataset as a DICOM file."""
  out = io.BytesIO()
  dataset.save_as(out, enforce_file_format=True)
  return out.getvalue()


def ct(**elements) -> pydicom.FileDataset:
  """One CT slice with its geometry."""
  place = {
    "Modality": "CT",
    "RescaleSlope": 1,
    "RescaleIntercept": -1024,
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "ImagePositionPatient": [0, 0, 0],
    "PixelSpacing": [2.0, 1.5],
  }
  return dicom_dataset(grey().astype(np.uint16) * 8, **(place | elements))


def cine() -> pydicom.FileDataset:
  """Five colour frames of ultrasound."""
  frames = np.stack([np.stack([grey() + k] * 3, axis=-1) for k in range(5)])
  return dicom_dataset(frames, Modality="US", SOPClassUID=US_MULTI_CLASS, FrameTime=40)


def enhanced() -> pydicom.FileDataset:
  """An enhanced CT of three frames."""
  dataset = dicom_dataset(np.stack([grey().astype(np.uint16) * 8] * 3), Modality="CT")
  shared, measures, turn, scale = Dataset(), Dataset(), Dataset(), Dataset()
  measures.PixelSpacing = [2.0, 1.5]
  turn.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
  scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 1, -1024, "HU"
  shared.PixelMeasuresSequence = [measures]
  shared.PlaneOrientationSequence = [turn]
  shared.PixelValueTransformationSequence = [scale]
  dataset.SharedFunctionalGroupsSequence = [shared]
  groups = []
  for z in range(3):
    place, group = Dataset(), Dataset()
    place.ImagePositionPatient = [0, 0, 2.5 * z]
    group.PlanePositionSequence = [place]
    groups.append(group)
  dataset.PerFrameFunctionalGroupsSequence = groups
  return dataset


def compressed(syntax: str) -> pydicom.FileDataset:
  """`ct` in a transfer syntax that pydicom itself can write."""
  dataset = ct()
  dataset.compress(syntax, generate_instance_uid=False)
  return dataset


def codestream(form: str, syntax: str, **options) -> pydicom.FileDataset:
  """An 8-bit picture in a codestream that Pillow writes."""
  out = io.BytesIO()
  Image.fromarray(grey()).save(out, form, **options)
  dataset = dicom_dataset(grey(), Modality="CR")
  dataset.file_meta.TransferSyntaxUID = syntax
  dataset.PixelData = encaps.encapsulate([out.getvalue()])
  dataset["PixelData"].is_undefined_length = True
  return dataset


def clip(form: str, codec: str, frames: int = 6, metadata: dict[str, str] | None = None) -> bytes:
  """Frames of 48 x 32 at 10 a second (MPEG-1 knows no less than 24)."""
  out = io.BytesIO()
  rate = 25 if form == "mpeg" else 10
  with av.open(out, "w", format=form) as container:
    container.metadata.update(metadata or {})
    stream = container.add_stream(codec, rate=rate)
    stream.width, stream.height = 48, 32
    stream.pix_fmt = "rgb8" if form == "gif" else "yuv420p"
    for k in range(frames):
      shade = np.full((32, 48, 3), 40 * k % 256, np.uint8)
      frame = av.VideoFrame.from_ndarray(shade, format="rgb24")
      frame.pts, frame.time_base = k, Fraction(1, rate)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return out.getvalue()


MADE: dict[str, Callable[[], bytes]] = {
  "a.png": lambda: picture("PNG"),
  "a.jpg": lambda: picture("JPEG"),
  "a.webp": lambda: picture("WEBP"),
  "a.tiff": lambda: picture("TIFF"),
  "a.nii": nifti,
  "a.nii.gz": lambda: gzip.compress(nifti(), mtime=0),
  "a.npy": npy,
  "plain.dcm": lambda: saved(ct()),
  "cine.dcm": lambda: saved(cine()),
  "enhanced.dcm": lambda: saved(enhanced()),
  "rle.dcm": lambda: saved(compressed(uid.RLELossless)),
  "jpegls.dcm": lambda: saved(compressed(uid.JPEGLSLossless)),
  "jpeg.dcm": lambda: saved(codestream("JPEG", uid.JPEGBaseline8Bit)),
  "j2k.dcm": lambda: saved(codestream("JPEG2000", uid.JPEG2000, no_jp2=True)),
  "a.mp4": lambda: clip("mp4", "mpeg4"),
  "a.avi": lambda: clip("avi", "mpeg4"),
  "a.webm": lambda: clip("webm", "libvpx"),
  "a.mpeg": lambda: clip("mpeg", "mpeg1video"),
  "a.gif": lambda: clip("gif", "gif"),
}
