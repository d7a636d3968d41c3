"""How a header says that pixels are stored, checked before anything is made of them."""

import dataclasses

import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header
from hulu_jax.media.errors import BadRecord

INTEGERS, FLOATS, DOUBLES = 0x7FE00010, 0x7FE00008, 0x7FE00009  # tags of pixels
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")
_FLOAT_BITS = {FLOATS: 32, DOUBLES: 64}


@dataclasses.dataclass(frozen=True)
class Form:
  """The Image Pixel module (PS3.3 C.7.6.3) of a file.

  shape: frames, rows, columns and samples of a pixel.  allocated, stored and high: bits of a
  sample, those used, and the number of the topmost used.  order: of bytes in the file, "<" or ">".
  dtype: of an uncompressed sample, in this order.  planar: colours plane by plane.  swapped: bytes
  in pairs, the second first.
  """

  shape: tuple[int, int, int, int]
  photometric: str
  allocated: int
  stored: int
  high: int
  order: str
  dtype: np.dtype
  planar: bool
  swapped: bool
  syntax: uids.UID

  @property
  def syntax_name(self) -> str:
    """Of the transfer syntax, from DICOM's own list: a file may say anything in its place."""
    known = self.syntax in uids.UID_dictionary
    return self.syntax.name if known else "an unknown transfer syntax"


def describe(dataset: Dataset, tag: int, vr: str) -> Form:
  """The form of the pixels under `tag`.  Raises BadRecord for one that DICOM does not have."""
  samples = _number(dataset, "SamplesPerPixel", 1)
  order = "<" if dataset.original_encoding[1] else ">"
  allocated = _FLOAT_BITS.get(tag) or _number(dataset, "BitsAllocated", 0)
  stored = allocated if tag in _FLOAT_BITS else _number(dataset, "BitsStored", allocated)
  high = stored - 1 if tag in _FLOAT_BITS else _number(dataset, "HighBit", stored - 1)
  signed = samples == 1 and _number(dataset, "PixelRepresentation", 0) == 1
  if allocated not in (1, 8, 16, 32, 64) or not 0 < stored <= high + 1 <= allocated:
    found = f"{allocated} bits allocated, {stored} stored, high bit {high}"
    raise BadRecord("format", f"pixels with {found}; DICOM has no such form")
  kind = "f" if tag in _FLOAT_BITS else "i" if signed and allocated > 1 else "u"
  return Form(
    shape=(*header.shape(dataset), samples),
    photometric=_photometric(dataset, samples),
    allocated=allocated,
    stored=stored,
    high=high,
    order=order,
    dtype=np.dtype(f"{order}{kind}{max(allocated // 8, 1)}"),
    planar=samples == 3 and _number(dataset, "PlanarConfiguration", 0) == 1,
    swapped=allocated == 8 and order == ">" and vr == "OW",
    syntax=uids.UID(str(dataset.file_meta.TransferSyntaxUID)),
  )


def _photometric(dataset: Dataset, samples: int) -> str:
  found = header.text(dataset, "PhotometricInterpretation") or "nothing"
  if found not in {1: _GREY, 3: _COLOUR}.get(samples, ()):
    named = found if found in (*_GREY, *_COLOUR, "nothing") else "another colour space"
    expected = f"{', '.join(_GREY)} of 1 sample or {', '.join(_COLOUR)} of 3"
    raise BadRecord("format", f"{named} of {samples} samples; expected {expected}")
  return found


def _number(dataset: Dataset, keyword: str, absent: int) -> int:
  value = dataset.get(keyword)
  return absent if value is None else int(value)
