"""What a run holds between two steps."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """trainable and frozen are one parameter tree in two parts, each with None where the other has a
  leaf; opt exists for the trainable part only, and so does ema, its moving average: None where the
  run keeps none."""

  step: jax.Array
  trainable: Any
  frozen: Any
  opt: Any
  ema: Any = None
