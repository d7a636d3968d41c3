"""The rule that decides which visual tokens survive, as the integers that a kernel compares.

With d the sum of absolute grey-level differences over the n bytes of a token, "mean change > t" is
d > t * n.  d is an integer, so that is d > floor(t * n): the host works out the floor in Python's
float64 (the product that `data.compression` compares with), the device compares two int32.
"""

import dataclasses
import math

MODES = ("off", "hulumed", "fixed", "videollama3")
AGAINST = ("previous", "last_kept")

# Thresholds of the modes that have their own, in grey levels; `data.compression` says where from.
_GREY = {"hulumed": 12.75, "videollama3": 0.05}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """limit: keep iff the change score is greater; first_whole: whether the first frame is kept whole
  (else only its first token); last_kept: compare with the last kept version of the token, not with
  the previous frame.  `limit` may be traced, so that thresholds share one compiled program."""

  limit: int
  first_whole: bool
  last_kept: bool


def of(*, mode: str, frames: int, values: int, grey: float | None, against: str) -> Rule:
  """The rule of a mode for one entry of `frames` frames; values: bytes of a visual token.

  grey: threshold of `fixed` in grey levels of mean change, None for every other mode.

  Raises:
    ValueError: an unknown mode or `against`; `fixed` without a threshold, or another mode with one.
  """
  if mode not in MODES:
    raise ValueError(f"unknown compression {mode!r}; there are: {', '.join(MODES)}")
  if against not in AGAINST:
    raise ValueError(f"against={against!r}; expected one of {', '.join(AGAINST)}")
  if (mode == "fixed") != (grey is not None):
    raise ValueError(f"compression {mode!r} with grey={grey}; only 'fixed' has one, and needs it")
  if mode == "off" or frames == 1:
    return Rule(limit=-1, first_whole=True, last_kept=False)
  threshold = _GREY[mode] if grey is None else grey
  limit = math.floor(min(max(threshold * values, -1.0), 255.0 * values))
  last_kept = mode == "fixed" and against == "last_kept"
  return Rule(limit=limit, first_whole=mode != "hulumed", last_kept=last_kept)
