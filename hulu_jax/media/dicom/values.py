"""Stored numbers to measured ones (HU, SUV, ...), and how the header asks for them to be shown."""

import dataclasses
import math
import re

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from hulu_jax.media import windows
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import lut
from hulu_jax.media.dicom import pet
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.intensity import Look
from hulu_jax.media.types import Range

# Defined terms of RescaleType and ModalityLUTType (PS3.3 C.11.1.1.2) that name a unit.  US is
# "unspecified".  HU_MOD, of multi-energy CT, is HU from which materials were taken or changed: a
# window made for tissue in HU does not hold for it.
_UNITS = {
  "HU": "HU",
  "HU_MOD": "modified HU",
  "OD": "1e-3 OD",
  "MGML": "mg/ml",
  "Z_EFF": "effective atomic number",
  "ED": "1e23 electrons/ml",
  "EDW": "electron density of water",
  "PCT": "%",
}
# Values of ImageType, without separators, that say what a map of MR measures.
_QUANTITIES = {
  "ADC": "ADC",
  "FA": "FA",
  "T1MAP": "T1",
  "T2MAP": "T2",
  "T2STARMAP": "T2STAR",
  "R2STARMAP": "R2STAR",
  "PDFF": "PDFF",
  "FATFRACTION": "PDFF",
}
_SUV_CODES = {"{SUVbw}g/ml": pet.SUV}
# MR is shown over percentiles and PET over SUV: their windows are made by scanners, slice by slice.
_WITHOUT_VOI = ("MR", "PT")
_FUNCTIONS = {"LINEAR": "linear", "LINEAR_EXACT": "linear_exact", "SIGMOID": "sigmoid"}


@dataclasses.dataclass(frozen=True)
class _Mapping:
  """From stored to measured: by `table`, or else stored x slope + intercept."""

  slope: float = 1.0
  intercept: float = 0.0
  table: windows.Table | None = None
  units: str | None = None
  notes: tuple[str, ...] = ()


def look(dataset: Dataset, scale: Dataset) -> Look:
  """How the header asks for the values to be shown.

  dataset: of the file; scale: carries the elements of rescale and window (the same, or a frame's
  functional groups).  Slices of one volume must agree in `units`: SUV of one may not be computable.
  """
  modality = header.modality(dataset)
  mapping = _mapping(dataset, scale)
  notes = list(mapping.notes)
  found = Look(
    modality=modality,
    units=mapping.units,
    quantity=_quantity(dataset),
    inverted=_inverted(dataset),
  )
  if modality == "PT" and mapping.units is not None:
    # As on nuclear medicine's workstations: uptake is dark on a white ground.
    notes.append("PET is shown inverted, high uptake dark")
    fixed = windows.SUV_RANGE if mapping.units == pet.SUV else None
    found = dataclasses.replace(found, value_range=fixed, inverted=True)
  if modality not in _WITHOUT_VOI:
    found = _with_voi(found, dataset, scale, notes)
  return dataclasses.replace(found, notes=tuple(notes))


def measured(
  stored: np.ndarray, dataset: Dataset, scale: Dataset
) -> tuple[np.ndarray, np.ndarray | None]:
  """Stored numbers in the units that `look(dataset, scale)` names, and where they are padding.

  int16 where that holds them, wider integers where slope and intercept are whole, else float32.
  The second is bool of the same shape, None where the scanner measured every pixel.  Raises
  BadRecord for a slope that would make all values equal or not finite.
  """
  mapping = _mapping(dataset, scale)
  padding = _padding(stored, dataset)
  if mapping.table is not None:
    return rescale(mapping.table(stored), None, None), padding
  return rescale(stored, mapping.slope, mapping.intercept), padding


def rescale(frames: np.ndarray, slope: float | None, intercept: float | None) -> np.ndarray:
  """Stored values to modality units; the dtype is as in `measured`."""
  slope = 1.0 if slope is None else float(slope)
  intercept = 0.0 if intercept is None else float(intercept)
  if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
    raise BadRecord(
      "format", f"a rescale of slope {slope:g}, intercept {intercept:g}; expected numbers, not 0"
    )
  whole = slope.is_integer() and intercept.is_integer()
  if whole and frames.dtype.kind in "iu" and frames.size:
    ends = [int(v) * int(slope) + int(intercept) for v in (frames.min(), frames.max())]
    for dtype in (np.int16, np.int32, np.int64):
      if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
        return _rescale_whole(frames, int(slope), int(intercept), dtype)
  out = np.empty(frames.shape, np.float32)
  # By frame, so that double precision costs no memory.
  for target, frame in zip(out, frames, strict=True):
    target[...] = frame.astype(np.float64) * slope + intercept
  return out


def _rescale_whole(
  frames: np.ndarray, slope: int, intercept: int, dtype: type[np.signedinteger]
) -> np.ndarray:
  """Integer arithmetic of fixed width is exact modulo its range, so that steps in between may
  overflow as long as the result, checked before, does not."""
  bits = np.iinfo(dtype).bits
  out = frames.astype(dtype)
  for step, number in ((np.multiply, slope), (np.add, intercept)):
    wrapped = (number + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
    if number != (1 if step is np.multiply else 0):
      step(out, dtype(wrapped), out=out)
  return out


def _mapping(dataset: Dataset, scale: Dataset) -> _Mapping:
  """The real-world mapping where it names a unit that is understood, else the modality LUT, else
  slope and intercept."""
  modality, quantity = header.modality(dataset), _quantity(dataset)
  if quantity is not None:
    worth = dict(windows.QUANTITIES[quantity].units)
    known = {code: unit for code, unit in windows.CODED_UNITS.items() if unit in worth}
  else:
    known = _SUV_CODES if modality == "PT" else {}
  real = _real_world(dataset, scale, known)
  if real is not None:
    return real
  if scale.get("ModalityLUTSequence"):
    return _by_table(dataset, scale)
  slope, intercept = scale.get("RescaleSlope"), scale.get("RescaleIntercept")
  mapping = _Mapping(
    slope=1.0 if slope in (None, "") else float(slope),
    intercept=0.0 if intercept in (None, "") else float(intercept),
  )
  if modality == "PT":
    found = pet.scale(dataset)
    return dataclasses.replace(
      mapping,
      slope=mapping.slope * found.factor,
      intercept=mapping.intercept * found.factor,
      units=found.units,
      notes=found.notes,
    )
  kind = header.text(scale, "RescaleType")
  if modality == "CT" and kind is None:
    kind = None if intercept in (None, "") else "HU"
  units, notes = _units(modality, kind)
  return dataclasses.replace(mapping, units=units, notes=notes)


def _by_table(dataset: Dataset, scale: Dataset) -> _Mapping:
  item = scale.ModalityLUTSequence[0]
  signed = int(dataset.get("PixelRepresentation") or 0) == 1
  table = lut.read(item, signed=signed, big_endian=_big_endian(dataset))
  units, notes = _units(header.modality(dataset), header.text(item, "ModalityLUTType"))
  return _Mapping(table=table, units=units, notes=notes)


def _units(modality: str | None, kind: str | None) -> tuple[str | None, tuple[str, ...]]:
  """The unit that a RescaleType names; HU are believed of CT only, and missed in CT aloud."""
  units = _UNITS.get((kind or "").upper())
  if modality != "CT":
    return (None if units == "HU" else units), ()
  if units == "HU":
    return units, ()
  if units is not None:
    return units, (f"the values of this CT are {units}, not HU",)
  return None, ("this CT does not say that its values are HU: no window in HU applies",)


def _real_world(dataset: Dataset, scale: Dataset, known: dict[str, str]) -> _Mapping | None:
  """The first linear real-world value mapping into one of the `known` UCUM codes."""
  for source in (scale, dataset):
    for item in source.get("RealWorldValueMappingSequence") or ():
      codes = item.get("MeasurementUnitsCodeSequence") or ()
      code = header.text(codes[0], "CodeValue") if codes else None
      slope, intercept = item.get("RealWorldValueSlope"), item.get("RealWorldValueIntercept")
      if code in known and slope is not None and intercept is not None:
        return _Mapping(float(slope), float(intercept), units=known[code])
  return None


def _quantity(dataset: Dataset) -> str | None:
  """Name in `windows.QUANTITIES` of what ImageType says that an MR map measures."""
  if header.modality(dataset) != "MR":
    return None
  for value in _many(dataset.get("ImageType")):
    code = re.sub("[ _-]", "", str(value).upper().replace("*", "STAR"))
    if code in _QUANTITIES:
      return _QUANTITIES[code]
  return None


def _inverted(dataset: Dataset) -> bool:
  """MONOCHROME1, or a presentation LUT of shape INVERSE: X-ray IODs state the same twice (PS3.3
  C.8.11.3.1.2), so that both together still invert once."""
  return (
    header.text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    or header.text(dataset, "PresentationLUTShape") == "INVERSE"
  )


def _with_voi(found: Look, dataset: Dataset, scale: Dataset, notes: list[str]) -> Look:
  """`found` with the first table for display, or else the first window, of the header."""
  tables = list(scale.get("VOILUTSequence") or ())
  centres, widths = _many(scale.get("WindowCenter")), _many(scale.get("WindowWidth"))
  offered = len(tables) + min(len(centres), len(widths))
  if tables:
    intercept = scale.get("RescaleIntercept")
    signed = int(dataset.get("PixelRepresentation") or 0) == 1 or float(intercept or 0) < 0
    # What a modality LUT puts out is never negative.
    signed = signed and not scale.get("ModalityLUTSequence")
    table = lut.read(tables[0], signed=signed, big_endian=_big_endian(dataset))
    return dataclasses.replace(found, voi=table, offered=offered)
  if offered == 0:
    return found
  code = header.text(scale, "VOILUTFunction") or "LINEAR"
  if code not in _FUNCTIONS:
    notes.append("the file names a window function that does not exist: linear was used")
  function = _FUNCTIONS.get(code, "linear")
  window = _valid_window(centres[0], widths[0], function)
  if window is None:
    notes.append("the file's own window is not valid")
  return dataclasses.replace(found, window=window, function=function, offered=offered)


def _valid_window(centre: object, width: object, function: str) -> Range | None:
  """PS3.3 C.11.2.1.2: LINEAR needs a width of at least 1, the others one above 0."""
  window = float(str(centre)), float(str(width))
  if not all(math.isfinite(v) for v in window):
    return None
  return window if (window[1] >= 1 if function == "linear" else window[1] > 0) else None


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
  """bool like `stored`: PixelPaddingValue, up to PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2), both
  compared before any rescale; None if no pixel is padding."""
  if stored.dtype.kind == "f":
    names = ("FloatPixelPadding", "DoubleFloatPixelPadding")
    name = names[stored.dtype.itemsize == 8]
  else:
    name = "PixelPadding"
  ends = [dataset.get(f"{name}Value"), dataset.get(f"{name}RangeLimit")]
  if not isinstance(ends[0], (int, float)):
    return None
  numbers = [_as_stored(v, stored.dtype) for v in ends if isinstance(v, (int, float))]
  padding = (stored >= min(numbers)) & (stored <= max(numbers))
  return padding if padding.any() else None


def _as_stored(value: float, dtype: np.dtype) -> float:
  """Writers give 63536 for -2000 and the reverse: the same bits, read as the pixels are."""
  if dtype.kind == "f":
    return float(value)
  bits = dtype.itemsize * 8
  wrapped = int(value) % (1 << bits)
  return wrapped - (1 << bits) if dtype.kind == "i" and wrapped >= 1 << bits - 1 else wrapped


def _many(value: object) -> list[object]:
  if value in (None, ""):
    return []
  return list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]


def _big_endian(dataset: Dataset) -> bool:
  return dataset.original_encoding[1] is False
