"""The loss of held-out answers under a run's parameters: same mesh and arithmetic, no gradient."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hulu_jax.core import sharding
from hulu_jax.data.schema import Batch
from hulu_jax.training import build
from hulu_jax.training import metrics
from hulu_jax.training import step
from hulu_jax.training.build import Program
from hulu_jax.training.state import TrainState


def make(
  program: Program, datasets: Sequence[str], mesh: jax.sharding.Mesh
) -> Callable[[TrainState, Iterable[tuple[int, Batch]]], Mapping[str, float]]:
  """(state, batches of (number of the step shape, this process's rows)) -> metrics.

  datasets: labels of those that `Batch.source` counts.  Metrics are `loss`, the mean cross entropy
  of supervised tokens in nats, without the run's z-loss and weighting, and the same by dataset and
  by modality.  Every process calls it with as many batches.
  """

  def sums_of(shape: Any) -> Callable[[TrainState, Batch], Mapping[str, jax.Array]]:
    merges = tuple(group.merge for group in shape.groups)
    loss_fn = step.make_loss(program.config, merges, program.compute, len(datasets), 0.0)

    def sums(state: TrainState, batch: Batch) -> Mapping[str, jax.Array]:
      loss, found = loss_fn(state.trainable, state.frozen, batch)
      return {"loss": loss, **found}

    return jax.jit(sums)

  compiled = [sums_of(shape) for shape in program.shapes]
  rows = sharding.batch_sharding(mesh)

  def answer_loss(state: TrainState, batches: Iterable[tuple[int, Batch]]) -> Mapping[str, float]:
    total: dict[str, Any] = defaultdict(float)
    for shape, batch in batches:
      for name, value in compiled[shape](state, build.to_global(batch, rows)).items():
        total[name] = total[name] + np.asarray(value, np.float64)
    mean = float(total["loss"] / total["weight"])
    return {"loss": mean, **metrics.means("loss", total, datasets)}

  return answer_loss
