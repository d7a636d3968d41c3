"""How fast a run is: the durations of its steps between two reports, and what follows from them."""

from collections.abc import Callable
import statistics
import time
from typing import NamedTuple

import jax
import numpy as np

from hulu_jax.core import chips


class _Step(NamedTuple):
  """seconds: from the end of the step before; tokens, flops: of all processes."""

  seconds: float
  tokens: int
  flops: float


class Speed:
  """Told of every step's end; a step after a pause (the first, after an evaluation) is not timed.

  peak: operations a second that all devices together are capable of; None: not known.
  """

  def __init__(self, peak: float | None, now: Callable[[], float] = time.monotonic):
    self._peak, self._now = peak, now
    self._before: float | None = None
    self._steps: list[_Step] = []

  def ended(self, tokens: int, flops: float) -> None:
    """A step has just ended.  tokens: without padding; flops: of its shape, padding included."""
    end = self._now()
    if self._before is not None:
      self._steps.append(_Step(end - self._before, tokens, flops))
    self._before = end

  def paused(self) -> None:
    """What happened since the last step's end belongs to no step."""
    self._before = None

  def metrics(self) -> dict[str, float]:
    """Of the steps since it was last asked; {} without any."""
    steps, self._steps = self._steps, []
    if not steps:
      return {}
    seconds = [step.seconds for step in steps]
    out = {
      "step_seconds": statistics.median(seconds),
      "step_seconds/p95": float(np.percentile(seconds, 95)),
      "step_seconds/deviation": statistics.pstdev(seconds),
      "tokens_per_second": sum(step.tokens for step in steps) / sum(seconds),
    }
    if self._peak is not None:
      out["utilisation"] = sum(step.flops for step in steps) / sum(seconds) / self._peak
    return out


def peak(stated: float | None, mesh: jax.sharding.Mesh) -> float | None:
  """Operations a second that a mesh is capable of: as stated for one device, else by its chip.

  None where the chip is not in `core.chips`, a CPU for one.
  """
  if stated is not None:
    return stated * mesh.size
  chip = chips.of_kind(mesh.devices.flat[0].device_kind)
  return None if chip is None else chip.flops * mesh.size
