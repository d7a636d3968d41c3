"""CT windows: named centre and width in HU, and the function that turns HU into grey levels."""

from collections.abc import Sequence

import numpy as np

from hulu_jax.media.errors import BadRecord

# (centre, width) in HU.  Common values of radiology teaching texts; NOT yet signed off by a
# radiologist.
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


def lookup(window: str | tuple[float, float]) -> tuple[float, float]:
  """Centre and width of a name in `TABLE`, of "centre/width", or of a pair; BadRecord if none."""
  parts: Sequence[str | float] = window
  if isinstance(window, str):
    parts = TABLE.get(window) or window.split("/")
  try:
    centre, width = (float(v) for v in parts)
  except ValueError as error:
    expected = f"one of {', '.join(TABLE)} or centre/width such as 40/400"
    raise BadRecord("options", f"window {window!r}; expected {expected}") from error
  if not (np.isfinite(centre) and np.isfinite(width) and width >= 1):
    raise BadRecord("options", f"window width {width:g}; expected at least 1")
  return centre, width


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
  """uint8 grey levels of `values` (any shape): DICOM PS3.3 C.11.2.1.2.1, function LINEAR.

  The lowest grey is reached at `centre - width / 2`, the highest at `centre + width / 2 - 1`.
  """
  scaled = (values.astype(np.float32) - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
  return to_uint8(scaled)


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
  """uint8 grey levels of `values`, `low` to black and `high` to white; flat input is black."""
  if not high > low:
    return np.zeros(values.shape, np.uint8)
  return to_uint8((values.astype(np.float32) - np.float32(low)) / np.float32(high - low))


def to_uint8(scaled: np.ndarray) -> np.ndarray:
  """Rounds [0, 1] to 0..255; values outside are clipped, not-a-number is black."""
  return (np.clip(np.nan_to_num(scaled, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)


def min_max(values: np.ndarray) -> np.ndarray:
  """Each frame of `values` [T, H, W] stretched by itself, as the released code does.

  Spec 1.9, HF column: float64, truncated, a constant slice is black.  Hounsfield units are lost.
  """
  out = np.zeros(values.shape, np.uint8)
  for target, frame in zip(out, values, strict=True):
    frame = frame.astype(np.float64)
    low, high = frame.min(), frame.max()
    if high > low:
      target[...] = ((frame - low) / (high - low) * 255).astype(np.uint8)
  return out
