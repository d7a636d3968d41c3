"""Where text about a patient, or a face, may be seen in the pixels themselves."""

import re

from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header
from hulu_jax.media.errors import BadRecord

_SPATIAL_2D = 1  # PS3.3 C.8.5.5.1.1; others are M-mode, spectra, waveforms and graphics
# PS3.3 C.8.5.5.1.2: tissue, colour flow, integrated backscatter; others are traces and bars.
_BODY = (1, 2, 15)
# Ultrasound, captured screens, angiography, fluoroscopy, endoscopy, photographs, digitised film.
_OFTEN_ANNOTATED = {"US", "IVUS", "SC", "OT", "XA", "RF", "ES", "XC", "GM", "DG"}
# ConversionType: of film, video, paper, drawings and screens.
_CAPTURED = {"DF", "DI", "DRW", "DV", "SD", "SI", "SYN", "WSD"}
_BODY_PART = "[A-Z ]{2,16}"  # shaped like a code; anything longer may be free text
# Codes of the head, brain, face and skull (SNOMED CT, and SRT before it): PS3.16 annex L.
_HEAD_CODES = {"69536005", "T-D1100", "12738006", "T-A0100", "89546000", "T-11100", "89545001"}

Box = tuple[int, int, int, int]


LOSSY = "lossy: the file says that its pixels were once compressed with loss"


def is_lossy(dataset: Dataset) -> bool:
  """True if the pixels were compressed with loss at any time, whatever they are stored in now."""
  return header.text(dataset, "LossyImageCompression") == "01"


def ultrasound_region(dataset: Dataset) -> Box:
  """(top, left, bottom, right) around the 2D pictures that SequenceOfUltrasoundRegions declares.

  Outside of them scanners write names, dates and findings.  M-mode and Doppler traces are left out,
  and so is what lies beyond the pictures.  Raises BadRecord if none is declared, or if one leaves
  the picture: then the regions are those of another picture, made smaller or cut since.
  """
  rows, columns = header.shape(dataset)[1:]
  boxes = [
    _box(region, rows, columns)
    for region in dataset.get("SequenceOfUltrasoundRegions") or ()
    if region.get("RegionSpatialFormat") == _SPATIAL_2D
    and region.get("RegionDataType", _BODY[0]) in _BODY
  ]
  if not boxes:
    raise BadRecord(
      "geometry", "no 2D ultrasound region is declared; give top, left, bottom, right"
    )
  for top, left, bottom, right in boxes:
    if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
      found = f"rows {top} to {bottom}, columns {left} to {right}"
      raise BadRecord(
        "geometry",
        f"an ultrasound region of {found}; the picture has {rows} x {columns}: "
        "give top, left, bottom, right",
      )
  tops, lefts, bottoms, rights = zip(*boxes, strict=True)
  return min(tops), min(lefts), max(bottoms), max(rights)


def _box(region: Dataset, rows: int, columns: int) -> Box:
  """The region's corners, which DICOM counts from 0 and includes.

  Some scanners mean the end: a last corner of exactly the picture's size is taken so.
  """
  bottom, right = int(region.RegionLocationMaxY1), int(region.RegionLocationMaxX1)
  return (
    int(region.RegionLocationMinY0),
    int(region.RegionLocationMinX0),
    bottom if bottom == rows else bottom + 1,
    right if right == columns else right + 1,
  )


def warnings(dataset: Dataset, cropped: bool) -> list[str]:
  """What a user must know before such pixels leave the house.

  cropped: only a part is shown, chosen by the caller; what the file says of its text may not be
  true of that part.
  """
  notes = []
  says = header.text(dataset, "BurnedInAnnotation")
  if says == "YES":
    part = "; look whether the part shown still has it" if cropped else ""
    notes.append(f"the file says that text is burned into its pixels{part}")
  elif not cropped and _often_annotated(dataset):
    doubt = "the file says that this one does not" if says == "NO" else "the file does not say"
    notes.append(
      f"this kind of picture often carries burned-in text ({doubt}): look before sharing it"
    )
  features = header.text(dataset, "RecognizableVisualFeatures")
  if features == "YES":
    notes.append("the file says that its patient can be recognised, as by a face")
  return notes


def body_part(dataset: Dataset) -> str | None:
  """BodyPartExamined if it is shaped like a code, or "HEAD" for the anatomic codes of one."""
  named = header.text(dataset, "BodyPartExamined") or ""
  if re.fullmatch(_BODY_PART, named):
    return named
  regions = dataset.get("AnatomicRegionSequence") or ()
  codes = {str(item.get("CodeValue")) for item in regions}
  return "HEAD" if codes & _HEAD_CODES else None


def _often_annotated(dataset: Dataset) -> bool:
  if header.is_secondary_capture(dataset):
    return True
  converted = header.text(dataset, "ConversionType") in _CAPTURED
  return converted or header.modality(dataset) in _OFTEN_ANNOTATED
