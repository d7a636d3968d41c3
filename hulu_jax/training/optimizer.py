"""AdamW with one learning rate per module, in optax's words."""

import dataclasses
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

  warmup: steps; decay_start: fraction of the run at which the cosine begins; final: fraction of the
  peak at the last step; clip: largest global gradient norm.
  """

  learning_rates: dict[str, float]
  warmup: int
  decay_start: float
  final: float
  b1: float
  b2: float
  eps: float
  weight_decay: float
  clip: float

  def __post_init__(self) -> None:
    if sorted(self.learning_rates) != sorted(MODULES):
      raise ValueError(f"learning rates for {sorted(self.learning_rates)}; expected {MODULES}")


def schedule(settings: Settings, steps: int) -> optax.Schedule:
  """Factor of the peak learning rate at each step.

  Raises:
    ValueError: a run that is over before its warm-up.
  """
  if settings.warmup >= steps:
    raise ValueError(f"optimizer.warmup = {settings.warmup} is not below steps = {steps}")
  flat_until = max(settings.warmup, round(settings.decay_start * steps))
  return optax.join_schedules(
    [
      optax.linear_schedule(1.0 / settings.warmup, 1.0, settings.warmup - 1),
      optax.constant_schedule(1.0),
      optax.cosine_decay_schedule(1.0, max(steps - flat_until, 1), settings.final),
    ],
    [settings.warmup, flat_until],
  )


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
