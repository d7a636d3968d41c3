"""A window of steps under the profiler, for TensorBoard's profile view or Perfetto."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

FOLDER = "profile"


class Window:
  """Profiles `cfg.steps` steps from step `cfg.first` into `workdir/profile`; all processes do.

  cfg: {"first", "steps"}, from 1, None: no step.  A run that begins inside the window profiles what
  is left of it.
  """

  def __init__(self, cfg: ConfigDict | None, workdir: Path):
    self._steps = range(0) if cfg is None else range(cfg.first, cfg.first + cfg.steps)
    self._folder, self._open = workdir / FOLDER, False

  def __enter__(self) -> "Window":
    return self

  def __exit__(self, *exception: Any) -> None:
    """Closes a window that the end of the run cut short."""
    self._stop()

  def before(self, step: int) -> None:
    """Call it before a step is started."""
    if step in self._steps and not self._open:
      jax.profiler.start_trace(str(self._folder))
      self._open = True

  def after(self, step: int, metrics: Any) -> None:
    """Call it once a step is started.  metrics: of the step; the window's last are awaited."""
    if self._open and step + 1 not in self._steps:
      jax.block_until_ready(metrics)
      self._stop()

  def _stop(self) -> None:
    if self._open:
      jax.profiler.stop_trace()
      self._open = False
