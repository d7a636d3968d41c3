"""Which volumes a face can be rebuilt from, so that nobody shares one unknowingly."""

from collections.abc import Sequence
import re

WARNING = "a face can be rebuilt from a head scan: de-face before sharing"

# BodyPartExamined (DICOM PS3.16 Annex L) of scans that hold a face, or most of one.
_BODY_PARTS = frozenset(
  "BRAIN CIRCLEOFWILLIS EAR EYE FACE FACIAL HEAD HEADNECK IAC INNEREAR JAW MANDIBLE MAXILLA MOUTH "
  "NECK NOSE ORBIT PARANASAL PITUITARY SELLA SINUS SINUSES SKULL TEMPORAL TMJ WHOLEBODY "
  "ZYGOMA".split()
)
# Millimetres, along every axis: an adult head is 130 to 170 wide, 170 to 220 long and, with what
# is scanned of the neck, 150 to 300 high.  Trunks are wider; knees, hands and spines are narrower.
_NARROWEST, _WIDEST = 130.0, 300.0
_SHOW_SKIN = ("CT", "MR", None)


def may_show_face(
  modality: str | None, body_part: str | None, extents_mm: Sequence[float] | None
) -> bool:
  """True for head CT and MR, and for volumes of undeclared modality that may be one.

  body_part: the DICOM code, which decides where it is given.  extents_mm: of the field of view,
  along its three axes.
  """
  if modality not in _SHOW_SKIN:
    return False
  if body_part:
    words = re.findall("[A-Z]+", body_part.upper())
    return not _BODY_PARTS.isdisjoint([*words, "".join(words)])
  if extents_mm is None:
    return False
  return _NARROWEST <= min(extents_mm) and max(extents_mm) <= _WIDEST
