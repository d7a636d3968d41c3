"""Weights & Biases: project `hulu_jax`, the run named as its folder, resumed under one id.

Account, host and mode (`WANDB_MODE=offline`) are what wandb itself reads.
"""

from collections.abc import Mapping
from typing import Any

from hulu_jax.training.trackers import Run

PACKAGE = "wandb"
# wandb.Error and its kin are not OSErrors; the class is known only once the package is imported.
FAILURES = (OSError, RuntimeError)


class WandbRun:
  """Scalars of one run; see `trackers.Tracker`."""

  def __init__(self, run: Any, failures: tuple[type[Exception], ...]):
    self._run, self.failures = run, failures

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """wandb sends it in the background; a step that a stop undid is dropped there."""
    self._run.log(dict(scalars), step=step)

  def close(self) -> None:
    """Returns when everything was sent, or wandb gave it up."""
    self._run.finish()


def start(run: Run) -> WandbRun:
  """A run of wandb, or the former one gone on with.

  Raises:
    RuntimeError: wandb could not start: no account, nobody answers.
  """
  import wandb

  failures = (*FAILURES, wandb.Error)
  try:
    found = wandb.init(
      project="hulu_jax",
      name=run.workdir.resolve().name,
      id=run.id,
      resume="allow",
      dir=str(run.workdir),
      config=dict(run.config),
    )
  except wandb.Error as error:
    raise RuntimeError(f"wandb.init: {error}") from error
  return WandbRun(found, failures)
