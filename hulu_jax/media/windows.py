"""Named windows and ranges of values, and the functions that turn values into grey levels."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import numpy as np

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import FUNCTIONS
from hulu_jax.media.types import Range

# (centre, width) in HU; NOT yet signed off by a radiologist.  Lung, mediastinum, bone, brain, spine
# and, of the ranges given there, stroke and subdural are those of Radiopaedia, "Windowing (CT)".
# It has 400/50 for the abdomen and 150/30 for the liver: 40 is the centre that CT consoles preset
# for the abdomen, 60 suits a liver with contrast in the portal phase.  Angio is the preset of CT
# consoles for contrast-filled vessels.
TABLE = {
  "lung": (-600, 1500),
  "mediastinum": (50, 350),
  "abdomen": (40, 400),
  "liver": (60, 150),
  "bone": (400, 1800),
  "brain": (40, 80),
  "stroke": (40, 40),
  "subdural": (75, 200),
  "angio": (300, 600),
  "spine": (50, 250),
}

# Black and white of PET where values are SUV: the fixed scale of 0 to 10 usual when lymphoma is
# read against liver and blood pool, so that one patient's scans compare with another's.
SUV_RANGE = (0.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Quantity:
  """What the values of a map measure, and the fixed range it is shown in.

  low, high: shown as black and as white, in the first of `units`.  units: names of units and how
  many of the first one each is worth.  typical: where the top of the values (percentile 99.5 of the
  foreground) lies in any real map, in the first unit; narrower than the step between two units, so
  that it tells which unit a file is in.  source: of low and high.
  """

  low: float
  high: float
  units: tuple[tuple[str, float], ...]
  typical: Range
  source: str


# Not yet signed off by a radiologist.  Names and units that DICOM codes (UCUM) are `CODED_UNITS`.
QUANTITIES = {
  "ADC": Quantity(
    low=0,
    high=3000,
    units=(("1e-6 mm2/s", 1), ("1e-3 mm2/s", 1e3), ("mm2/s", 1e6)),
    typical=(200, 2e4),
    source="free water at body temperature diffuses at 3e-3 mm2/s, the most that tissue can show",
  ),
  "FA": Quantity(
    low=0,
    high=1,
    units=(("1", 1), ("1e-3", 1e-3)),
    typical=(0.2, 1.5),
    source="fractional anisotropy lies between 0 and 1 by definition",
  ),
  "T1": Quantity(
    low=0,
    high=3000,
    units=(("ms", 1), ("s", 1e3)),
    typical=(300, 2e4),
    source="tissue and blood at 1.5 and 3 T lie between 250 (fat) and 2000 ms; fluid is white",
  ),
  "T2": Quantity(
    low=0,
    high=200,
    units=(("ms", 1), ("s", 1e3)),
    typical=(30, 2e4),
    source="tissue at 1.5 and 3 T lies between 20 and 120 ms, blood up to 200; fluid is white",
  ),
  "T2STAR": Quantity(
    low=0,
    high=100,
    units=(("ms", 1), ("s", 1e3)),
    typical=(10, 5e3),
    source="tissue at 1.5 and 3 T lies below 80 ms; iron overload of the heart below 20",
  ),
  "R2STAR": Quantity(
    low=0,
    high=300,
    units=(("1/s", 1), ("1/ms", 1e3)),
    typical=(20, 5e3),
    source="liver at 1.5 T: 40 per second is normal, 300 moderate iron overload",
  ),
  "PDFF": Quantity(
    low=0,
    high=100,
    units=(("%", 1), ("1", 100), ("1e-3", 0.1)),
    typical=(40, 150),
    source="a fraction of the signal lies between 0 and 100 % by definition",
  ),
}

# UCUM codes of MeasurementUnitsCodeSequence, as the names used above.
CODED_UNITS = {
  "um2/s": "1e-6 mm2/s",
  "10*-6.mm2/s": "1e-6 mm2/s",
  "10*-3.mm2/s": "1e-3 mm2/s",
  "mm2/s": "mm2/s",
  "ms": "ms",
  "s": "s",
  "/s": "1/s",
  "1/s": "1/s",
  "Hz": "1/s",
  "/ms": "1/ms",
  "%": "%",
  "1": "1",
  "{ratio}": "1",
}


@dataclasses.dataclass(frozen=True)
class Table:
  """A look-up table of DICOM (PS3.3 C.11.1.1): `entries` [n] for the values from `first` on; values
  below and above take the first and the last entry.  top: the entry that means white."""

  first: int
  entries: np.ndarray
  top: int

  def __call__(self, values: np.ndarray) -> np.ndarray:
    """values of any shape, rounded to whole numbers -> their entries; not-a-number is the first."""
    if values.dtype.kind == "f":
      values = np.rint(np.nan_to_num(values, nan=self.first))
    last = self.first + len(self.entries) - 1
    # int64 also for 16-bit values: the difference of two of them needs 17 bits.
    return self.entries.take(np.clip(values, self.first, last).astype(np.int64) - self.first)


# Values worked on at a time: float64 of as many fit in a core's cache.
_CACHED = 1 << 15


def lookup(window: Any) -> Range:
  """Centre and width of a name in `TABLE`, of "centre/width", or of a pair; BadRecord if none.

  window: str, or a sequence of two numbers (a list where it came from JSON).
  """
  parts: Sequence[Any] = window
  if isinstance(window, str):
    parts = TABLE.get(window.strip()) or window.split("/")
  expected = f"expected one of {', '.join(TABLE)} or centre/width such as 40/400"
  centre, width = pair(parts, f"window {repr(window)[:40]}; {expected}")
  if not width >= 1:
    raise BadRecord("options", f"window width {width:g}; expected at least 1")
  return centre, width


def lookup_all(window: Any) -> tuple[Range, ...]:
  """One window, or three for red, green and blue where the parts are joined by "+".

  Raises BadRecord for names that do not exist and for two, or more than three, windows.
  """
  if not (isinstance(window, str) and "+" in window):
    return (lookup(window),)
  found = tuple(lookup(part) for part in window.split("+"))
  if len(found) != 3:
    raise BadRecord(
      "options", f"{len(found)} windows joined by +; expected one, or three for red, green and blue"
    )
  return found


def pair(value: Any, message: str) -> Range:
  """Two finite numbers from whatever JSON or a caller gave; BadRecord with `message` otherwise."""
  if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
    raise BadRecord("options", message)
  try:
    first, second = float(value[0]), float(value[1])
  except (TypeError, ValueError):
    raise BadRecord("options", message) from None
  if not (np.isfinite(first) and np.isfinite(second)):
    raise BadRecord("options", message)
  return first, second


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
  """uint8 grey levels of `values` (any shape): DICOM PS3.3 C.11.2.1.2.1, function LINEAR.

  Black up to `centre - width / 2`, white from `centre + width / 2 - 1` on; a width of 1 is a step.
  """
  x = values - np.float64(centre - 0.5)
  if width <= 1:
    return np.where(x > 0, np.uint8(255), np.uint8(0))
  return to_uint8(x / (width - 1) + 0.5)


def linear_exact(values: np.ndarray, centre: float, width: float) -> np.ndarray:
  """DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT: `centre` -+ `width / 2` are black and white."""
  return to_uint8((values - np.float64(centre)) / width + 0.5)


def sigmoid(values: np.ndarray, centre: float, width: float) -> np.ndarray:
  """DICOM PS3.3 C.11.2.1.3.1, SIGMOID: 1 / (1 + exp(-4 (x - centre) / width))."""
  # Beyond 40 widths the curve is flat, and exp would overflow.
  slope = np.clip(-4 * (values - np.float64(centre)) / width, -160, 160)
  return to_uint8(1 / (1 + np.exp(slope)))


def function(name: str) -> Callable[[np.ndarray, float, float], np.ndarray]:
  """The window function of one of `types.FUNCTIONS`; BadRecord for other names."""
  if name not in FUNCTIONS:
    known = ", ".join(FUNCTIONS)
    raise BadRecord("options", f"function {repr(name)[:40]}; expected one of {known}")
  return {"linear": linear, "linear_exact": linear_exact, "sigmoid": sigmoid}[name]


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
  """uint8 grey levels of `values`, `low` to black and `high` to white; flat input is black."""
  if not high > low:
    return np.zeros(values.shape, np.uint8)
  return to_uint8((values - np.float64(low)) / (high - low))


def to_uint8(scaled: np.ndarray) -> np.ndarray:
  """Rounds [0, 1] to 0..255; values outside are clipped, not-a-number is black."""
  return (np.clip(np.nan_to_num(scaled, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)


def min_max(
  frames: Sequence[np.ndarray] | np.ndarray, clip: Range | None = None, keep_constant: bool = False
) -> np.ndarray:
  """Each frame, [H, W] of real numbers, stretched by itself as the released code does: uint8.

  Spec 1.9: clipped to (lowest, highest) of `clip` first if given, from its own minimum to its own
  maximum in float64, truncated; so Hounsfield units are lost.  A constant frame is black, or, with
  `keep_constant`, its value cast to 8 bits (local path; modulo 256, as the cast does on x86).  A
  frame with a number that is not finite is black.  The result [T, H, W] has the memory order of
  `frames`, which need not be C.
  """
  height, width = frames[0].shape
  turned = frames[0].strides[0] < frames[0].strides[1]
  out = np.zeros((len(frames), *((width, height) if turned else (height, width))), np.uint8)
  for target, frame in zip(out, frames, strict=True):
    _min_max(frame.T if turned else frame, target, clip, keep_constant)
  return out.swapaxes(1, 2) if turned else out


def _min_max(
  frame: np.ndarray, target: np.ndarray, clip: Range | None, keep_constant: bool
) -> None:
  low, high = frame.min(), frame.max()
  ends = np.array([low, high], np.float64)
  if clip is not None:
    ends = np.clip(ends, *clip)
  if not np.isfinite(ends).all():
    return
  if ends[0] == ends[1]:
    target[...] = int(ends[0]) % 256 if keep_constant else 0
    return
  # Rounding keeps order, so a table over the integers that occur gives the same bits.
  table = None
  if frame.dtype.kind in "iu" and frame.dtype.itemsize <= 4 and int(high) - int(low) < frame.size:
    table = np.empty(int(high) - int(low) + 1, np.uint8)
    _stretch_alone(np.arange(int(low), int(high) + 1), table, ends, clip)
  rows = max(1, _CACHED // frame.shape[1])
  for top in range(0, len(frame), rows):
    part, place = frame[top : top + rows], target[top : top + rows]
    if table is None:
      _stretch_alone(part, place, ends, clip)
    else:
      index = np.subtract(part, int(low), dtype=np.intp)
      np.take(table, index, out=place, mode="clip")  # the only mode that writes without a copy


def _stretch_alone(
  values: np.ndarray, target: np.ndarray, ends: np.ndarray, clip: Range | None
) -> None:
  """target = (values - low) / (high - low) * 255 in float64, truncated; low and high are `ends`."""
  scaled = values.astype(np.float64)
  if clip is not None:
    np.clip(scaled, *clip, out=scaled)
  scaled -= ends[0]
  scaled /= ends[1] - ends[0]
  scaled *= 255
  target[...] = scaled
