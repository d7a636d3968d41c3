"""Which visual tokens survive: named modes over uint8 patches, in exact integer arithmetic.

A token is compared with the same place in an earlier frame.  With d the sum of absolute grey-level
differences over its n values, mean |change| > t grey levels is d > t * n: no rounding anywhere.
"""

import dataclasses

import numpy as np

PRUNES = ("after", "before")
MODES = ("off", "hulumed", "fixed", "videollama3")

# 0.1 in the encoder's [-1, 1] units: one grey level is 1 / 127.5.
_HULUMED_GREY = 12.75
# 0.1 / 255 in the same units.
_VIDEOLLAMA3_GREY = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compression:
  """A mode and, for `fixed`, its thresholds: a clinical choice, so never a default.

  grey: mean absolute change in grey levels; hu: the same in Hounsfield units, used for CT in a
  known window; against: "previous" frame, or the "last_kept" version of the token (catches drift).
  prune: whether dropped tokens leave "after" the encoder, which has then seen all patches, or
  "before" it: cheaper, with other features, so a model must be trained for it.
  """

  mode: str
  grey: float | None = None
  hu: float | None = None
  against: str = "previous"
  prune: str = "after"

  def __post_init__(self) -> None:
    if self.mode not in MODES:
      raise ValueError(f"unknown compression {self.mode!r}; there are: {', '.join(MODES)}")
    if self.against not in ("previous", "last_kept"):
      raise ValueError(f"against={self.against!r}; expected 'previous' or 'last_kept'")
    if self.prune not in PRUNES:
      raise ValueError(f"prune={self.prune!r}; expected one of {', '.join(PRUNES)}")
    if self.prune == "before" and self.mode not in ("off", "fixed"):
      raise ValueError(
        f"compression {self.mode!r} is for equality with released code, which encodes every patch; "
        "prune='before' goes with 'fixed'"
      )
    if self.mode == "fixed" and self.grey is None:
      raise ValueError("compression 'fixed' needs grey=..., its threshold in grey levels")

  def threshold(self, window: tuple[float, float] | None) -> float:
    """Grey levels of mean change above which a `fixed` token is kept; window: HU centre, width."""
    assert self.grey is not None
    if self.hu is None or window is None:
      return self.grey
    return self.hu * 255.0 / window[1]


OFF = Compression(mode="off")


def keep_mask(
  tokens: np.ndarray, compression: Compression, window: tuple[float, float] | None = None
) -> np.ndarray:
  """tokens: uint8 [T, N, values], one volume, phase or clip -> keep: bool [T, N].

  At least one token of every frame stays (the first).  A single frame is kept whole.
  """
  keep = np.ones(tokens.shape[:2], bool)
  if compression.mode == "off" or len(tokens) == 1:
    return keep
  match compression.mode:
    case "hulumed":
      # The released code divides its first-frame sentinel by 255, so nothing of frame 0 passes.
      keep[0] = False
      keep[1:] = _changed(tokens[:-1], tokens[1:], _HULUMED_GREY)
    case "videollama3":
      keep[1:] = _changed(tokens[:-1], tokens[1:], _VIDEOLLAMA3_GREY)
    case "fixed":
      _keep_fixed(tokens, keep, compression.threshold(window), compression.against)
  keep[:, 0] |= ~keep.any(axis=1)
  return keep


def _keep_fixed(tokens: np.ndarray, keep: np.ndarray, grey: float, against: str) -> None:
  if against == "previous":
    keep[1:] = _changed(tokens[:-1], tokens[1:], grey)
    return
  last = tokens[0].copy()
  for frame, kept in zip(tokens[1:], keep[1:], strict=True):
    kept[:] = _changed(last, frame, grey)
    last[kept] = frame[kept]


def _changed(before: np.ndarray, after: np.ndarray, grey: float) -> np.ndarray:
  return change_scores(before, after) > grey * after.shape[-1]


def change_scores(before: np.ndarray, after: np.ndarray) -> np.ndarray:
  """Sum of absolute differences over the last axis of two uint8 arrays, int64."""
  return (np.maximum(before, after) - np.minimum(before, after)).sum(axis=-1, dtype=np.int64)
