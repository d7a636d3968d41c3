"""Values to grey levels: what a file says of its values, and the one mapping all frames share."""

from collections.abc import Callable
import dataclasses
import functools

import numpy as np

from hulu_jax.media import foreground
from hulu_jax.media import windows
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Options
from hulu_jax.media.types import Range

# DICOM codes (PS3.3 C.7.3.1.1.1) of modalities that make pictures.
MODALITIES = (
  *("CT", "MR", "PT", "NM", "US", "IVUS", "CR", "DX", "MG", "IO", "PX", "XA", "RF", "RG"),
  *("ES", "GM", "SM", "OP", "OPT", "OCT", "IVOCT", "XC", "BMD", "SC", "OT"),
)
# Low values may be tissue and high ones air, or the other way round: no foreground can be told.
_PROJECTIONS = ("CR", "DX", "MG", "IO", "PX", "XA", "RF", "RG")
_DEFAULT_WINDOW = "abdomen"
_MOST_LEVELS = 1 << 16


@dataclasses.dataclass(frozen=True)
class Look:
  """What a file, or the caller for it, says about its values and how they are to be shown.

  units: "HU", "SUVbw", "Bq/ml", ...; None if unknown.  window: what the file itself asks for, in
  these units, by `function`.  voi: its look-up table for display instead of a window.  offered: how
  many windows and tables it offers.  full: values stored to be shown as they are, from black to
  white (8-bit pictures).  quantity: name in `windows.QUANTITIES` of what the values measure.
  value_range: fixed by `units`, to be shown from black to white.  inverted: low values are bright.
  notes: what the file could not say, or what was made of it.
  """

  modality: str | None = None
  units: str | None = None
  window: Range | None = None
  full: Range | None = None
  inverted: bool = False
  function: str = "linear"
  voi: windows.Table | None = None
  offered: int = 1
  quantity: str | None = None
  value_range: Range | None = None
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Shade:
  """The mapping from values to grey levels that all frames of a file share.

  grey: values [..., H, W] to uint8 [..., H, W, 1 or 3].  units: of the values, if known.  window,
  rgb_windows, value_range: see `Media`.
  """

  grey: Callable[[np.ndarray], np.ndarray]
  inverted: bool = False
  window: Range | None = None
  rgb_windows: tuple[Range, Range, Range] | None = None
  value_range: Range | None = None
  units: str | None = None

  def __call__(self, values: np.ndarray, padding: np.ndarray | None = None) -> np.ndarray:
    """values [..., H, W] -> uint8 [..., H, W, 1 or 3]; the inversion is last, as in the standard.

    padding: bool like `values`; black also where the picture is inverted.
    """
    shown = self.grey(values)
    if self.inverted:
      np.subtract(255, shown, out=shown)
    if padding is not None:
      shown[padding] = 0
    return shown


def declared(options: Options) -> Look:
  """The look of a file that says nothing itself (NIfTI, .npy): what the caller declares.

  Raises BadRecord for a modality that does not exist.
  """
  if options.modality is not None and options.modality not in MODALITIES:
    found = repr(options.modality)[:40]
    raise BadRecord("options", f"modality {found}; expected one of {', '.join(MODALITIES)}")
  units = "HU" if options.modality == "CT" else None
  return Look(options.modality, units=units, quantity=_quantity(options))


def check_hulumed(options: Options) -> None:
  """Refuses what the preset `hulumed`, which stretches each frame by itself, knows nothing of."""
  asked = {
    "function": options.function is not None,
    "value_range": options.value_range is not None,
    "quantity": options.quantity is not None,
    "three windows": options.window is not None and len(windows.lookup_all(options.window)) > 1,
  }
  for name, given in asked.items():
    if given:
      raise BadRecord("options", f'{name} with the preset hulumed; expected the preset "radiology"')


def shading(
  values: np.ndarray,
  look: Look,
  options: Options,
  notes: list[str],
  padding: np.ndarray | None = None,
) -> Shade:
  """The mapping for `values` (real numbers), all frames of the file; `padding`: bool like them.

  HU are shown through a window: the caller's, else the file's, else abdomen.  Other values are
  shown over the caller's `value_range`, else the fixed range of the quantity or unit, else the VOI
  that the file asks for, else as stored (8-bit pictures), else over percentiles.  Adds to `notes`
  what was decided without asking.  Raises BadRecord for options that do not apply to such values.
  """
  _check(look, options)
  notes.extend(look.notes)
  if look.units == "HU":
    return _hounsfield(values, look, options, notes)
  fixed, units = _fixed(values, look, options, notes, padding)
  if fixed is None and (look.voi is not None or look.window is not None):
    return _voi(values, look, options, notes)
  if options.function is not None:
    raise BadRecord(
      "options", "a function shapes a window; this file is shown over a range of values"
    )
  if fixed is None:
    fixed = look.full or _percentiles(values, look, notes, padding)
  grey = functools.partial(_stretched, low=fixed[0], high=fixed[1])
  shown = _black_and_white(fixed, look)
  return Shade(_quick(grey, values.dtype), look.inverted, value_range=shown, units=units)


def _check(look: Look, options: Options) -> None:
  """Refuses options that no values, or not values in these units, can be shown by."""
  hounsfield = look.units == "HU"
  if options.window is not None and not hounsfield:
    raise BadRecord(
      "options", 'a window in HU on values not known to be HU; expected modality "CT"'
    )
  if options.function is not None:
    windows.function(options.function)
  if options.value_range is not None:
    _value_range(options)
    if hounsfield:
      raise BadRecord("options", "a value_range for values in HU; expected a window")
  asked = _quantity(options)
  if asked is not None and hounsfield:
    raise BadRecord("options", f"quantity {asked} of values in HU; expected none")
  if asked is not None and look.quantity not in (None, asked):
    raise BadRecord("options", f"quantity {asked} was given; the file says {look.quantity}")


def _quantity(options: Options) -> str | None:
  if options.quantity is not None and options.quantity not in windows.QUANTITIES:
    found, known = repr(options.quantity)[:40], ", ".join(windows.QUANTITIES)
    raise BadRecord("options", f"quantity {found}; expected one of {known}")
  return options.quantity


def _value_range(options: Options) -> Range:
  expected = "expected two numbers, the lower one first"
  low, high = windows.pair(options.value_range, f"value_range is not a pair; {expected}")
  if not high > low:
    raise BadRecord("options", f"value_range {low:g} to {high:g}; {expected}")
  return low, high


def _hounsfield(values: np.ndarray, look: Look, options: Options, notes: list[str]) -> Shade:
  if options.window is None and (look.window is not None or look.voi is not None):
    return _voi(values, look, options, notes)
  if options.window is None:
    centre, width = windows.TABLE[_DEFAULT_WINDOW]
    notes.append(
      f"no window was given: {_DEFAULT_WINDOW} (centre {centre}, width {width} HU) was used"
    )
  asked = windows.lookup_all(_DEFAULT_WINDOW if options.window is None else options.window)
  # The file's own function belongs to its own window.
  grey = functools.partial(_windowed, asked=asked, function=options.function or "linear")
  quick = _quick(grey, values.dtype)
  if len(asked) == 3:
    return Shade(quick, look.inverted, rgb_windows=asked, units=look.units)
  return Shade(quick, look.inverted, window=asked[0], units=look.units)


def _voi(values: np.ndarray, look: Look, options: Options, notes: list[str]) -> Shade:
  """By the first look-up table, or else window, that the file asks for; a table has precedence."""
  function = options.function or look.function
  curve = "" if function == "linear" else f" ({function})"
  name = f"window{curve}" if look.voi is None else "table for display (VOI LUT)"
  notes.append(f"no window was given: the file's own {name} was used")
  if look.offered > 1:
    notes.append(f"the file offers {look.offered} windows or tables: the first was used")
  if look.voi is not None:
    if options.function is not None:
      raise BadRecord("options", "a function shapes a window; this file asks for a table (VOI LUT)")
    grey = functools.partial(_by_voi, table=look.voi)
    shown = _black_and_white(_ends(look.voi), look)
    return Shade(_quick(grey, values.dtype), look.inverted, value_range=shown, units=look.units)
  assert look.window is not None
  grey = functools.partial(_windowed, asked=(look.window,), function=function)
  quick = _quick(grey, values.dtype)
  if look.units == "HU":
    return Shade(quick, look.inverted, window=look.window, units=look.units)
  centre, width = look.window
  white = centre + width / 2 - (1 if function == "linear" else 0)
  shown = _black_and_white((centre - width / 2, white), look)
  return Shade(quick, look.inverted, value_range=shown, units=look.units)


def _ends(table: windows.Table) -> Range:
  """The values at a table's two ends, that with the darker entry first."""
  ends = float(table.first), float(table.first + len(table.entries) - 1)
  return ends if table.entries[-1] >= table.entries[0] else ends[::-1]


def _black_and_white(low_and_high: Range, look: Look) -> Range:
  return low_and_high[::-1] if look.inverted else low_and_high


def _fixed(
  values: np.ndarray,
  look: Look,
  options: Options,
  notes: list[str],
  padding: np.ndarray | None,
) -> tuple[Range | None, str | None]:
  """The range that the caller, the quantity or the unit fixes, None if none does; and the unit."""
  if options.value_range is not None:
    return _value_range(options), look.units
  name = options.quantity or look.quantity
  if name is None:
    return look.value_range, look.units
  quantity = windows.QUANTITIES[name]
  unit, worth = look.units, dict(quantity.units).get(look.units or "")
  if worth is None:
    top = foreground.percentiles(values, padding)[1]
    unit, worth = _unit_by_size(quantity, top)
    if worth is None and options.quantity is not None:
      known = ", ".join(u for u, _ in quantity.units)
      raise BadRecord(
        "options",
        f"values up to {top:.4g} cannot be {name} in {known}; expected another quantity, or a "
        "value_range",
      )
    if worth is None:
      notes.append(f"the file says {name}, but its values cannot be: no fixed range was used")
      return None, look.units
    notes.append(f"{name}: the values were taken to be in units of {unit}, by their size")
  notes.append(f"{name} is shown from {quantity.low:g} to {quantity.high:g} {quantity.units[0][0]}")
  return (quantity.low / worth, quantity.high / worth), unit


def _unit_by_size(quantity: windows.Quantity, top: float) -> tuple[str | None, float | None]:
  low, high = quantity.typical
  for unit, worth in quantity.units:
    if low <= top * worth <= high:
      return unit, worth
  return None, None


def _percentiles(
  values: np.ndarray, look: Look, notes: list[str], padding: np.ndarray | None
) -> Range:
  # PET is inverted by custom: its low values are still what lies around the patient.
  inverted = look.inverted and look.modality != "PT"
  everything = inverted or look.modality in _PROJECTIONS
  what = "all values" if everything else "the foreground"
  notes.append(
    f"grey levels span percentiles {foreground.LOWEST:g} to {foreground.HIGHEST:g} of {what} of "
    "the whole file"
  )
  return foreground.percentiles(values, padding, everything=everything)


def _windowed(values: np.ndarray, asked: tuple[Range, ...], function: str) -> np.ndarray:
  """One channel for each window asked."""
  apply = windows.function(function)
  return np.stack([apply(values, *window) for window in asked], axis=-1)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
  return windows.stretch(values, low, high)[..., None]


def _by_voi(values: np.ndarray, table: windows.Table) -> np.ndarray:
  return windows.to_uint8(table(values) / table.top)[..., None]


def _quick(grey: Callable[[np.ndarray], np.ndarray], dtype: np.dtype) -> Callable:
  """`grey` with little memory: by one gather for integers of small range, else by frame.

  A 512 x 512 frame of int16 takes 0.2 ms instead of 0.6 (measured on one core), and no copy in
  floating point is ever made of it.  The result is bit-equal: the table is `grey` of every value.
  """
  if dtype.kind not in "iu" or dtype.itemsize > 2:
    return functools.partial(_by_frame, grey=grey)
  unsigned = np.dtype(f"u{dtype.itemsize}")
  every = np.arange(256**dtype.itemsize).astype(unsigned)
  table = grey(every.view(dtype.newbyteorder("=")))
  return functools.partial(_gathered, table=table, dtype=dtype, grey=grey)


def _gathered(
  values: np.ndarray, table: np.ndarray, dtype: np.dtype, grey: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
  if values.dtype != dtype:
    return _by_frame(values, grey)
  return table.take(values.view(dtype.str.replace("i", "u")), axis=0)


def _by_frame(values: np.ndarray, grey: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
  if values.ndim > 2:
    return np.stack([_by_frame(frame, grey) for frame in values])
  if values.dtype.kind in "iu" and values.size:
    low, high = int(values.min()), int(values.max())
    if high - low < min(_MOST_LEVELS, values.size):
      table = grey(np.arange(low, high + 1, dtype=values.dtype))
      return table.take(values - values.dtype.type(low), axis=0)
  return grey(values)
