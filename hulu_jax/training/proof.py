"""Hashes what a run saves, beside its steps, so that a restore can tell damage from data."""

from concurrent import futures
import json
from pathlib import Path
import threading
import time

from absl import logging
import jax

from hulu_jax.training import processes
from hulu_jax.weights import manifest

# Between looks whether a step is committed, or another process has hashed its share: seconds.
_PAUSE = 0.05
# A process that has not hashed its share by then has died, and the run with it.
_PATIENCE = 600.0


class Prover:
  """Writes the manifest of every step it is told of, once the step is committed.

  Each process hashes its share of the files, which all of them see; the first puts the shares
  together.  A step that is deleted meanwhile needs none.
  """

  def __init__(self, steps: Path):
    self._steps = steps
    self._over = threading.Event()
    self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="proof")
    self._jobs: list[futures.Future[None]] = []

  def submit(self, step: int) -> None:
    """To be called when the save of `step` has been started; errors of those before are raised."""
    self._jobs = [job for job in self._jobs if not _finished(job)]
    self._jobs.append(self._thread.submit(self._prove, step))

  def close(self) -> None:
    """Returns when every committed step has its manifest; call it when no save is under way."""
    self._over.set()
    self._thread.shutdown()
    for job in self._jobs:
      job.result()

  def _prove(self, step: int) -> None:
    place = self._steps / str(step)
    while not place.is_dir():
      # A save that failed never gets there; the checkpoints say so.
      if self._over.wait(_PAUSE) and not place.is_dir():
        return
    try:
      own = manifest.digests(place, _share(manifest.names(place)))
      found = own if jax.process_count() == 1 else _together(place, own)
      if found is not None:
        manifest.write(place, found)
    except FileNotFoundError:
      if place.is_dir():
        raise
      logging.info("step %d was deleted before it was hashed", step)


def _together(place: Path, own: manifest.Digests) -> manifest.Digests | None:
  """The digests of all processes on the first, None on the others, which leave theirs in files.

  Raises:
    TimeoutError: a process does not come up with its share.
  """
  if not processes.is_first():
    path = manifest.draft(place, jax.process_index())
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(own))
    new.replace(path)
    return None
  found = dict(own)
  for process in range(1, jax.process_count()):
    path, until = manifest.draft(place, process), time.monotonic() + _PATIENCE
    while not path.exists():
      if time.monotonic() > until:
        raise TimeoutError(f"process {process} did not hash its share of {place}")
      time.sleep(_PAUSE)
    found |= json.loads(path.read_text())
    path.unlink()
  return found


def _share(names: list[str]) -> list[str]:
  return names[jax.process_index() :: jax.process_count()]


def _finished(job: futures.Future[None]) -> bool:
  """Whether a job is over; raises what it raised."""
  if not job.done():
    return False
  job.result()
  return True
