"""What a run tells of a step once it has ended: its numbers by name, where a report is due."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from hulu_jax.core import tree
from hulu_jax.data import counts as counts_lib
from hulu_jax.data.counts import Counts
from hulu_jax.models import flops
from hulu_jax.training import metrics as metrics_lib
from hulu_jax.training import speed as speed_lib
from hulu_jax.training.build import Program
from hulu_jax.training.stages import Stage
from hulu_jax.training.state import TrainState


class Report(NamedTuple):
  """Where a run is.

  step: counted through all stages; scalars: the step's metrics by name, the same whenever the run
  is repeated, those of an evaluation (`eval/...`) among them; speed: what the clock said.
  """

  stage: str
  step: int
  scalars: Mapping[str, float]
  speed: Mapping[str, float]


class Ended(NamedTuple):
  """A step that was started.  shape: its number; counts: waits for those of all processes."""

  step: int
  shape: int
  metrics: Any
  counts: Callable[[], Counts]


class Reports:
  """Of one stage.  Every process keeps one and tells it of every step.

  write: what to do with a report; None on all processes but the first.
  """

  def __init__(
    self,
    stage: Stage,
    program: Program,
    state: TrainState,
    mesh: jax.sharding.Mesh,
    write: Callable[[Report], None] | None,
  ):
    self._stage, self._write = stage, write
    self._names = [entry["label"] for entry in stage.cfg.data.mixture]
    self._speed = speed_lib.Speed(speed_lib.peak(stage.cfg.peak_flops, mesh))
    trains = tree.names(state.trainable)
    self._flops = [
      flops.step(program.config, program.specs, trains, shape).total for shape in program.shapes
    ]

  def finish(self, ended: Ended, evaluate: Callable[[], Mapping[str, float]] | None = None) -> None:
    """Waits for the step; writes what is due.  evaluate: run after it, and written with it."""
    jax.block_until_ready(ended.metrics)
    counts = ended.counts()
    tokens = sum(counts[f"tokens/{kind}"] for kind in counts_lib.MODALITIES)
    self._speed.ended(tokens, self._flops[ended.shape])
    found = evaluate() if evaluate is not None else {}
    if found:
      self._speed.paused()
    due = ended.step % self._stage.cfg.report_every == 0 or ended.step == self._stage.last
    if not due and not found:
      return
    speed = self._speed.metrics()
    if self._write is None:
      return
    scalars = metrics_lib.scalars(ended.metrics, self._names) | counts_lib.metrics(counts)
    self._write(Report(self._stage.name, ended.step, {**scalars, **found}, speed))
