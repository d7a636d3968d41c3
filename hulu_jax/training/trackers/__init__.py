"""Where a run's numbers may go beside metrics.jsonl: one file per tracker, found by its name.

A tracker is a module with `PACKAGE`, the package that it needs, and `start(run)`, which gives a
`Tracker`.  Those that do not come with hulu_jax come with its extra `track`.
"""

from collections.abc import Mapping, Sequence
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from absl import logging

from hulu_jax.core import plugins


class Run(NamedTuple):
  """What a tracker may want to know.  id: the same after a resume; config: of the experiment."""

  workdir: Path
  id: str
  config: Mapping[str, Any]


class Tracker(Protocol):
  """One open tracker.

  failures: what its methods raise where a disk is full or nobody answers; anything else is a
  mistake of ours, and ends the run.
  """

  failures: tuple[type[Exception], ...]

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Takes one step's metrics by name."""

  def close(self) -> None:
    """Returns when what was written is safe."""


def check(names: Sequence[str]) -> None:
  """Raises where a tracker cannot be had, before anything starts.

  Raises:
    ValueError: no tracker of that name, or its package is not installed.
  """
  if isinstance(names, str):
    raise ValueError(f"trackers = {names!r}; expected a tuple of names, such as ({names!r},)")
  for name in names:
    package = plugins.load(__name__, name).PACKAGE
    if importlib.util.find_spec(package) is None:
      raise ValueError(
        f"trackers names {name!r}, but the package {package} is not installed: "
        "pip install 'hulu_jax[track]', or take the name away"
      )


class Trackers:
  """All trackers of a run.  One that fails is given up with a warning; the run goes on."""

  def __init__(self, names: Sequence[str], run: Run):
    self._open: dict[str, Tracker] = {}
    for name in names:
      module = plugins.load(__name__, name)
      try:
        self._open[name] = module.start(run)
      except module.FAILURES as error:
        _warn(name, error)

  def close(self) -> None:
    """Closes all of them."""
    for name, tracker in self._open.items():
      try:
        tracker.close()
      except tracker.failures as error:
        _warn(name, error)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Hands a step's metrics to every tracker that has not failed yet."""
    for name, tracker in list(self._open.items()):
      try:
        tracker.write(step, scalars)
      except tracker.failures as error:
        del self._open[name]
        _warn(name, error)


def _warn(name: str, error: Exception) -> None:
  logging.warning(
    "tracker %s failed and is left out from here on, metrics.jsonl is not: %s: %s",
    name,
    type(error).__name__,
    error,
  )
