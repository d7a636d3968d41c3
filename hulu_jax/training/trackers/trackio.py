"""trackio: the project `hulu_jax` in its local store, the run named as its folder and id.

Where the store lies is what trackio itself reads (`TRACKIO_DIR`).
"""

from collections.abc import Mapping
from typing import Any

from hulu_jax.training.trackers import Run

PACKAGE = "trackio"
FAILURES = (OSError, RuntimeError)


class TrackioRun:
  """Scalars of one run; see `trackers.Tracker`."""

  failures: tuple[type[Exception], ...] = FAILURES

  def __init__(self, run: Any):
    self._run = run

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """One line in its store."""
    self._run.log(dict(scalars), step=step)

  def close(self) -> None:
    """Returns when everything was stored."""
    self._run.finish()


def start(run: Run) -> TrackioRun:
  """A run of trackio, or the former one gone on with."""
  import trackio

  return TrackioRun(
    trackio.init(
      project="hulu_jax",
      name=f"{run.workdir.resolve().name}-{run.id[:6]}",
      config=dict(run.config),
      resume="allow",
    )
  )
