"""Values to grey levels: what a file says of its values, and the one mapping all frames share."""

from collections.abc import Callable
import dataclasses
import functools

import numpy as np

from hulu_jax.media import windows
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Options
from hulu_jax.media.types import Range

_PERCENTILES = (0.5, 99.5)


@dataclasses.dataclass(frozen=True)
class Look:
  """What a file, or the caller for it, says about its values and how they are to be shown.

  units: "HU", "SUVbw", "Bq/ml", ...; None if unknown.  window: what the file itself asks for, in
  these units.  full: values stored to be shown as they are, from black to white (8-bit pictures).
  inverted: low values are bright (MONOCHROME1).
  """

  modality: str | None = None
  units: str | None = None
  window: Range | None = None
  full: Range | None = None
  inverted: bool = False


@dataclasses.dataclass(frozen=True)
class Shade:
  """The mapping from values to grey levels that all frames of a file share.

  grey: values of any shape to uint8 of the same shape.  window, value_range: see `Media`.
  """

  grey: Callable[[np.ndarray], np.ndarray]
  inverted: bool = False
  window: Range | None = None
  value_range: Range | None = None

  def __call__(self, values: np.ndarray) -> np.ndarray:
    """values [..., H, W] -> uint8 [..., H, W, 1]; the inversion comes last, as in the standard."""
    shown = self.grey(values)
    return (255 - shown if self.inverted else shown)[..., None]


def declared(options: Options) -> Look:
  """The look of a file that says nothing itself (NIfTI, .npy): what the caller declares."""
  return Look(options.modality, units="HU" if options.modality == "CT" else None)


def shading(values: np.ndarray, look: Look, options: Options, notes: list[str]) -> Shade:
  """The mapping for `values`, all frames of the file.

  Adds to `notes` what was decided without asking.  Raises BadRecord for a window on values that may
  not be HU.
  """
  hounsfield = look.units == "HU"
  if options.window is not None and not hounsfield:
    raise BadRecord(
      "options", 'a window in HU on values not known to be HU; expected modality "CT"'
    )
  if hounsfield and options.window is None and look.window is None:
    notes.append("no window was given: abdomen (centre 40, width 400 HU) was used")
  elif options.window is None and look.window is not None:
    notes.append("no window was given: the file's own was used")
  if hounsfield or look.window is not None:
    centre, width = windows.lookup(options.window or look.window or "abdomen")
    grey = functools.partial(windows.linear, centre=centre, width=width)
    if hounsfield:
      return Shade(grey, look.inverted, window=(centre, width))
    return Shade(grey, look.inverted, value_range=(centre - width / 2, centre + width / 2 - 1))
  low, high = look.full or _percentiles(values)
  if look.full is None:
    notes.append("grey levels span percentiles 0.5 to 99.5 of the whole file")
  grey = functools.partial(windows.stretch, low=low, high=high)
  return Shade(grey, look.inverted, value_range=(low, high))


def _percentiles(values: np.ndarray) -> Range:
  if values.dtype.kind == "f":
    values = values[np.isfinite(values)]
  if values.size == 0:
    raise BadRecord("format", "no voxel holds a finite number")
  low, high = np.percentile(values, _PERCENTILES)
  if not high > low:  # a small bright object on nothing
    low, high = values.min(), values.max()
  return float(low), float(high)
