"""Opens DICOM safely: what is refused, what is too large, and what is no picture."""

from pathlib import Path
import struct
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits

# Inflated as a whole before any header can be checked: a few kB may become gigabytes.
_DEFLATED = {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.95"}
# Enough of a file for `looks_like_dicom`.
HEAD_BYTES = 540
# (byte order, explicit VR) as uncompressed DICOM is written.
_ENCODINGS = (("<", False), ("<", True), (">", True))
_SYNTAXES = {
  (True, True): pydicom.uid.ImplicitVRLittleEndian,
  (False, True): pydicom.uid.ExplicitVRLittleEndian,
  (False, False): pydicom.uid.ExplicitVRBigEndian,
}
_UNDEFINED = 0xFFFFFFFF
# Of the identifying text that a header starts with; the longest is a text of 10,240 characters.
_LONGEST_AT_START = 20_480
# PS3.5 table 7.1-1: value representations with 32 and with 16 bits of length.
_LONG_VRS = {bytes(v, "ascii") for v in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()}
_SHORT_VRS = {
  bytes(v, "ascii")
  for v in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
}
# Objects that carry numbers, drawings or text but no picture of a patient: by Modality, and by SOP
# class (PS3.6 table A-1), since a wrong modality is common in what software derives.
_NOT_PICTURES = {
  *"ANN ASMT AU DOC ECG EPS FID HD KO M3D PLAN PR REG RESP RTDOSE RTINTENT RTPLAN".split(),
  *"RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SMR SR STAIN TEXTUREMAP".split(),
}
# PS3.3 C.7.3.1.1.1, defined terms of Modality; the last line is retired.
_MODALITIES = {
  *_NOT_PICTURES,
  *"AR BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DX EEG EMG EOG ES GM HC IO IOL IVOCT IVUS".split(),
  *"KER LEN LS MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA POS PT PX RF RG".split(),
  *"RTIMAGE SM SRF TG US VA XA XAPROTOCOL XC".split(),
  *"AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF".split(),
}
_IMAGE_CLASSES = "1.2.840.10008.5.1.4.1.1."
_NOT_PICTURE_CLASSES = {
  "4.2": "MR spectroscopy",
  "9.": "waveform",
  "11.": "PR",
  "66": "raw data, registration or SEG",
  "67": "RWV",
  "68.": "surface",
  "88.": "SR",
  "104.": "encapsulated document",
  "481.2": "RTDOSE",
  "481.3": "RTSTRUCT",
  "481.4": "RTRECORD",
  "481.5": "RTPLAN",
  "481.8": "RTPLAN",
}
_CAPTURE_CLASS = f"{_IMAGE_CLASSES}7"
_SLICED = {"CT", "MR", "PT"}
# Values of ImageType: the standard's LOCALIZER, makers' names for it, and sheets of numbers.
_KINDS = {
  **dict.fromkeys("LOCALIZER SCANO SCANOGRAM SCOUT SURVIEW TOPOGRAM".split(), "a localizer"),
  **dict.fromkeys(("CT_SOM5 TOP", "CT_SOM7 TOP", "CT_SOM8 TOP"), "a localizer"),
  **dict.fromkeys(("CT_SOM5 PROT", "CT_SOM7 PROT", "CT_SOM8 PROT"), "a dose sheet"),
  **dict.fromkeys(("DOSE", "DOSE_INFO", "DOSE INFO", "DOSE REPORT"), "a dose sheet"),
  **dict.fromkeys(("SCREEN SAVE", "SCREENSAVE", "SCREENSHOT", "SCREEN CAPTURE"), "a screenshot"),
}
_SLIDE_KINDS = {"LABEL": "a slide label", "OVERVIEW": "a slide overview"}


def looks_like_dicom(head: bytes) -> bool:
  """True if a file that starts with `head` (132 bytes or more) is DICOM, with or without preamble.

  Without one, as in old archives, at least two data elements must follow each other as DICOM writes
  them, from group 0002 or 0008 on: other files would have to hit ten bytes by chance.
  """
  if head[128:132] == b"DICM":
    return True
  return any(_elements_at_start(head, *encoding) >= 2 for encoding in _ENCODINGS)


def _elements_at_start(head: bytes, order: str, explicit: bool) -> int:
  """How many elements in ascending order `head` starts with; 0 as soon as anything is odd."""
  position = before = count = 0
  while position + 12 <= len(head):
    group, element = struct.unpack_from(f"{order}HH", head, position)
    tag = group << 16 | element
    known = group in (2, 8) if count == 0 else group <= 0x7FE0
    if not known or (tag <= before and count > 0):
      return 0
    if before >> 16 == 2 and group != 2:  # what follows may be encoded in another way
      break
    if not explicit:
      size, skip = struct.unpack_from(f"{order}L", head, position + 4)[0], 8
    elif (vr := head[position + 4 : position + 6]) in _LONG_VRS:
      size, skip = struct.unpack_from(f"{order}L", head, position + 8)[0], 12
    elif vr in _SHORT_VRS:
      size, skip = struct.unpack_from(f"{order}H", head, position + 6)[0], 8
    else:
      return 0
    count += 1
    if size == _UNDEFINED:
      break
    if size % 2 or size > _LONGEST_AT_START:
      return 0
    position, before = position + skip + size, tag
  return count


def has_marker(path: Path) -> bool:
  """True if the file is DICOM, with or without preamble."""
  with open(path, "rb") as file:
    return looks_like_dicom(file.read(HEAD_BYTES))


def read(path: Path, limits: Limits) -> Dataset:
  """Everything before the pixels.  Raises BadRecord for deflated, oversized or non-DICOM files."""
  limits.check_bytes(path.stat().st_size)
  with open(path, "rb") as file:
    return read_to_pixels(file)


def read_to_pixels(file: BinaryIO) -> Dataset:
  """Everything before the pixels; `file` then stands at the pixels' element, if there is one.

  `file_meta` of the result always names a transfer syntax: of a file without one, the syntax of
  its elements, since nothing else could be read in it.  Raises BadRecord as `read` does.
  """
  head = file.read(HEAD_BYTES)
  if not looks_like_dicom(head):
    raise BadRecord("format", "no DICM marker at byte 128; expected a DICOM file")
  file.seek(132 if head[128:132] == b"DICM" else 0)
  meta = pydicom.filereader.read_dataset(file, False, True, stop_when=_after_meta)
  if str(meta.get("TransferSyntaxUID", "")) in _DEFLATED:
    raise BadRecord("format", "a deflated transfer syntax, refused; expected it to be re-encoded")
  file.seek(0)
  dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
  if dataset.file_meta.get("TransferSyntaxUID") in (None, ""):
    implicit, little = dataset.original_encoding
    dataset.file_meta.TransferSyntaxUID = _SYNTAXES[bool(implicit), bool(little)]
  return dataset


def _after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
  del vr, length
  return tag.group != 2


def why_not_picture(dataset: Dataset) -> str | None:
  """Why the object cannot be shown as a patient's picture, None if it can."""
  code = modality(dataset)
  if code in _NOT_PICTURES:
    return f"a {code} object"
  known = str(dataset.get("SOPClassUID") or "").removeprefix(_IMAGE_CLASSES)
  for prefix, what in _NOT_PICTURE_CLASSES.items():
    if known == prefix.rstrip(".") or known.startswith(f"{prefix.rstrip('.')}."):
      return f"an object of class {what}"
  types = dataset.get("ImageType") or ()
  types = [types] if isinstance(types, str) else [str(v) for v in types]
  kinds = _KINDS | (_SLIDE_KINDS if code == "SM" else {})
  found = next((kinds[value] for value in types if value in kinds), None)
  if found is not None:
    return found
  if code in _SLICED and is_secondary_capture(dataset) and "ImagePositionPatient" not in dataset:
    return "a secondary capture (a dose sheet or a screenshot)"
  if text(dataset, "PresentationIntentType") == "FOR PROCESSING":
    return "an X-ray for processing, not for presentation"
  if dataset.get("Rows") is None or dataset.get("Columns") is None:
    return "an object without a picture"
  return None


def is_secondary_capture(dataset: Dataset) -> bool:
  """True for pictures of a screen, of paper or of film, by SOP class."""
  found = str(dataset.get("SOPClassUID") or "")
  return found == _CAPTURE_CLASS or found.startswith(f"{_CAPTURE_CLASS}.")


def shape(dataset: Dataset) -> tuple[int, int, int]:
  """Declared frames, rows and columns."""
  return int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)


def text(dataset: Dataset, keyword: str) -> str | None:
  """A coded element of the header as a string, None if absent or empty; not for display."""
  value = dataset.get(keyword)
  return str(value) if value not in (None, "") else None


def modality(dataset: Dataset) -> str | None:
  """The Modality code; None if absent or not one of the standard's: a name may stand there."""
  value = text(dataset, "Modality")
  return value if value in _MODALITIES else None
