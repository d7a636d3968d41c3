"""What a file says of a slice that may tell it from others at its place: echo, b-value, time."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.dicom.stack import Plane

# Where diffusion weighting stood before the standard named it: private creator, group, element.
_B_VALUES = (
  ("SIEMENS MR HEADER", 0x0019, 0x0C),
  ("Philips Imaging DD 001", 0x2001, 0x03),
  ("GEMS_PARM_01", 0x0043, 0x39),
)
_SIEMENS_DIRECTION = ("SIEMENS MR HEADER", 0x0019, 0x0E)
PRIVATE = (*_B_VALUES, _SIEMENS_DIRECTION)
_GE_OFFSET = 1_000_000_000  # added to b-values by some of GE's releases


@dataclasses.dataclass(frozen=True)
class Marks:
  """What may tell a slice from another at its place; None or empty where the file does not say.

  echo_ms, trigger_ms, reference_ms: milliseconds.  b_value: s/mm2.  direction: of the diffusion
  gradient.  energy_kev: a monochromatic reconstruction's.  types: ImageType or FrameType.
  """

  stack: str | None = None
  b_value: float | None = None
  echo_number: int | None = None
  echo_ms: float | None = None
  types: tuple[str, ...] = ()
  kvp: float | None = None
  energy_kev: float | None = None
  temporal: int | None = None
  trigger_ms: float | None = None
  reference_ms: float | None = None
  acquisition: int | None = None
  direction: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Frame:
  """One slice: picture `index`, counted from 0, of the file at `path`; shape: rows, columns."""

  path: Path
  index: int
  shape: tuple[int, int]
  plane: Plane
  marks: Marks


def of_slice(header: Dataset) -> Marks:
  """The marks of a file with one picture."""
  return Marks(
    b_value=_b_value(header),
    echo_number=whole(header, "EchoNumbers"),
    echo_ms=number(header, "EchoTime"),
    types=strings(header, "ImageType") + strings(header, "ComplexImageComponent"),
    kvp=number(header, "KVP"),
    energy_kev=number(header, "MonoenergeticEnergyEquivalent"),
    temporal=whole(header, "TemporalPositionIdentifier", "TemporalPositionIndex"),
    trigger_ms=number(header, "TriggerTime"),
    reference_ms=number(header, "FrameReferenceTime"),
    acquisition=whole(header, "AcquisitionNumber"),
    direction=vector(header, "DiffusionGradientOrientation") or _private_direction(header),
  )


def number(header: Dataset, *keywords: str) -> float | None:
  """The first of the elements that is given, if it is finite; of several values the first."""
  for keyword in keywords:
    value = header.get(keyword)
    if value is not None and value != "":
      first = float(value if isinstance(value, int | float | str) else value[0])
      return first if np.isfinite(first) else None
  return None


def strings(header: Dataset, keyword: str) -> tuple[str, ...]:
  """All values of an element of one or several strings."""
  value = header.get(keyword)
  if not value:
    return ()
  return (value,) if isinstance(value, str) else tuple(str(v) for v in value)


def vector(header: Dataset, keyword: str) -> tuple[float, ...] | None:
  """All values of an element of several numbers, rounded to what tells directions apart."""
  value = header.get(keyword)
  return None if not value else tuple(round(float(v), 4) for v in value)


def whole(header: Dataset, *keywords: str) -> int | None:
  """`number` without its fraction."""
  value = number(header, *keywords)
  return None if value is None else int(value)


def _b_value(header: Dataset) -> float | None:
  given = number(header, "DiffusionBValue")
  if given is not None:
    return given
  for place in _B_VALUES:
    value = _private(header, *place)
    if value is not None:
      return float(np.ravel(value)[0]) % _GE_OFFSET
  return None


def _private_direction(header: Dataset) -> tuple[float, ...] | None:
  value = _private(header, *_SIEMENS_DIRECTION)
  return None if value is None else tuple(round(float(v), 4) for v in np.ravel(value))


def _private(header: Dataset, creator: str, group: int, element: int) -> Any | None:
  """A private element's value; None if absent, empty, or not decoded (its VR is not known)."""
  if creator not in header.private_creators(group):
    return None
  block = header.private_block(group, creator)
  value = block[element].value if element in block else None
  return None if value is None or isinstance(value, bytes) or np.size(value) == 0 else value
