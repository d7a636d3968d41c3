"""Everything that the first process of a run writes of it beside checkpoints."""

from collections.abc import Callable, Mapping
import json
from pathlib import Path
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from hulu_jax.training.build import Program
from hulu_jax.training.metrics import Lines
from hulu_jax.training.reports import Report
from hulu_jax.training.run_file import RunFile
from hulu_jax.training.stages import Stage
from hulu_jax.training.trackers import Run
from hulu_jax.training.trackers import Trackers


class Writers:
  """metrics.jsonl, run.json, the trackers of `cfg.trackers`, and the caller's `report`."""

  def __init__(self, workdir: Path, cfg: ConfigDict, report: Callable[[Report], None]):
    self._started = time.monotonic()
    self._workdir, self._cfg, self._report = workdir, cfg, report
    self._lines = Lines(workdir)
    self._file = RunFile(workdir, cfg)
    self._trackers: Trackers | None = None

  def __enter__(self) -> "Writers":
    return self

  def __exit__(self, *exception: Any) -> None:
    self._lines.close()
    self._file.write(time.monotonic() - self._started)
    if self._trackers is not None:
      self._trackers.close()

  def begin(
    self, stage: Stage, program: Program, mesh: jax.sharding.Mesh, fingerprint: Mapping[str, str]
  ) -> None:
    """A stage begins or goes on.  fingerprint: of its data, see `data.fingerprint`."""
    self._file.stage(stage, program, mesh, fingerprint)
    if self._trackers is None:
      config = json.loads(self._cfg.to_json_best_effort())
      self._trackers = Trackers(self._cfg.trackers, Run(self._workdir, self._file.id, config))

  def write(self, told: Report) -> None:
    """To the file first: it is what a run is judged by."""
    scalars = {**told.scalars, **told.speed}
    self._lines.write(told.step, scalars)
    if self._trackers is not None:
      self._trackers.write(told.step, scalars)
    self._report(told)
