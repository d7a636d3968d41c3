"""AdamW with one learning rate per module, in optax's words."""

from collections.abc import Mapping
import dataclasses
import math
import re
from typing import Any

import optax

from hulu_jax.core import tree

MODULES = ("vision", "projector", "decoder")
# Biases and norms take no decay.
_NO_DECAY = re.compile(r".*(bias|norm)(/.*)?$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """Peak learning rates per module, and a schedule: linear warm-up, flat, cosine to `final`.

  warmup: fraction of the stage's steps; decay_start: fraction at which the cosine begins; final:
  fraction of the peak at the last step; clip: largest global gradient norm.

  Raises:
    ValueError: a number that cannot be meant, named with its key.
  """

  learning_rates: dict[str, float]
  warmup: float
  decay_start: float
  final: float
  b1: float
  b2: float
  eps: float
  weight_decay: float
  clip: float

  def __post_init__(self) -> None:
    _check_modules(self.learning_rates)
    for module, rate in self.learning_rates.items():
      _check(f"learning_rates.{module}", rate, 0.0 <= rate < math.inf, "0 or a finite rate above")
    _check("warmup", self.warmup, 0.0 <= self.warmup < 1.0, "a fraction of the steps, 0 to below 1")
    _check("decay_start", self.decay_start, 0.0 <= self.decay_start <= 1.0, "a fraction, 0 to 1")
    _check("final", self.final, 0.0 <= self.final <= 1.0, "a fraction of the peak, 0 to 1")
    for name in ("b1", "b2"):
      value = getattr(self, name)
      _check(name, value, 0.0 <= value < 1.0, "0 to below 1")
    _check("eps", self.eps, 0.0 < self.eps < math.inf, "a finite number above 0")
    _check("weight_decay", self.weight_decay, 0.0 <= self.weight_decay < math.inf, "0 or above")
    _check("clip", self.clip, self.clip > 0.0, "a norm above 0; inf clips nothing")


def _check_modules(rates: Mapping[str, float]) -> None:
  problems = [f"has no {module}" for module in MODULES if module not in rates]
  problems += [f"has {module}" for module in rates if module not in MODULES]
  if problems:
    raise ValueError(
      f"optimizer.learning_rates {', '.join(problems)}; expected a rate for {', '.join(MODULES)}"
    )


def _check(name: str, value: float, good: bool, expected: str) -> None:
  """NaN compares as false, so it is never good."""
  if not good:
    raise ValueError(f"optimizer.{name} = {value}; expected {expected}")


def schedule(settings: Settings, steps: int) -> optax.Schedule:
  """Factor of the peak learning rate at each step.

  Raises:
    ValueError: no step to take, or a run that is over before its warm-up.
  """
  if steps < 1:
    raise ValueError(f"steps = {steps}; expected 1 or more")
  warm = round(settings.warmup * steps)
  if warm >= steps:
    raise ValueError(
      f"optimizer.warmup = {settings.warmup} of steps = {steps} is {warm} steps of warm-up and "
      "leaves none to train: lower optimizer.warmup or raise steps"
    )
  flat_until = max(warm, round(settings.decay_start * steps))
  parts = [
    optax.constant_schedule(1.0),
    optax.cosine_decay_schedule(1.0, max(steps - flat_until, 1), settings.final),
  ]
  if not warm:
    return optax.join_schedules(parts, [flat_until])
  rise = optax.linear_schedule(1.0 / warm, 1.0, warm - 1)
  return optax.join_schedules([rise, *parts], [warm, flat_until])


def make(settings: Settings, steps: int) -> optax.GradientTransformation:
  """Clip, Adam, decay, then each module's own learning rate."""
  factor = schedule(settings, steps)

  def rate(module: str) -> optax.GradientTransformation:
    peak = settings.learning_rates[module]
    return optax.scale_by_learning_rate(lambda step: peak * factor(step))

  def decayed(params: Any) -> Any:
    return tree.map_named(lambda name, _: not _NO_DECAY.match(name), params)

  def module_of(params: Any) -> Any:
    return tree.map_named(lambda name, _: name.split("/")[0], params)

  return optax.chain(
    optax.clip_by_global_norm(settings.clip),
    optax.scale_by_adam(settings.b1, settings.b2, settings.eps),
    optax.add_decayed_weights(settings.weight_decay, decayed),
    optax.partition({module: rate(module) for module in MODULES}, module_of),
  )
