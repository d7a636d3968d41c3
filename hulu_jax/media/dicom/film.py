"""Frames of DICOM whose pixels are an MPEG-2, MPEG-4 or HEVC stream."""

import io
from typing import BinaryIO

import av
import numpy as np
from pydicom import uid as uids

from hulu_jax.media.dicom import encapsulated
from hulu_jax.media.dicom.form import Form
from hulu_jax.media.errors import BadRecord

_FIRST, _LAST = 100, 108  # 1.2.840.10008.1.2.4.100 (MPEG-2) to .108 (HEVC main 10), and their parts
_CONTAINERS = {"mpegvideo", "mpeg", "mpegts", "mov", "mp4", "h264", "hevc"}


def is_film(syntax: uids.UID) -> bool:
  """True for the transfer syntaxes that hold one stream of video instead of frames."""
  parts = syntax.split(".")
  return syntax.startswith("1.2.840.10008.1.2.4.") and _FIRST <= int(parts[7]) <= _LAST


def decode(file: BinaryIO, form: Form, wanted: list[int]) -> list[np.ndarray]:
  """uint8 RGB [H, W, 3] of the asked frames.

  Raises BadRecord unless the stream has as many frames, of the size, as the header says.
  """
  fragments = encapsulated.scan(file)
  data = io.BytesIO(encapsulated.frame(file, fragments, (0, len(fragments.items))))
  count, rows, columns, _ = form.shape
  kept: dict[int, np.ndarray] = {}
  number = -1
  with av.open(data, "r") as container:
    if not set(container.format.name.split(",")) & _CONTAINERS:
      raise BadRecord("format", f"a stream that is not as {form.syntax_name} needs")
    stream = container.streams.video[0]
    _check_size(stream.height or rows, stream.width or columns, form)
    for number, frame in enumerate(container.decode(stream)):
      _check_size(frame.height, frame.width, form)
      if number in wanted:
        kept[number] = frame.to_ndarray(format="rgb24")
      if number >= count:
        break
  if number + 1 != count:
    found = f"more than {count}" if number >= count else f"{number + 1}"
    raise BadRecord("format", f"{found} frames in the stream; the header says {count}")
  return [kept[k] for k in wanted]


def _check_size(height: int, width: int, form: Form) -> None:
  if (height, width) != form.shape[1:3]:
    size = f"{height} x {width}; the header says {form.shape[1]} x {form.shape[2]}"
    raise BadRecord("format", f"a stream of frames of {size}")
