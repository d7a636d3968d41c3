"""TensorBoard: event files in `workdir/tensorboard`, by its own writer, without TensorFlow."""

from collections.abc import Mapping
import time

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto import summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from hulu_jax.training.trackers import Run

PACKAGE = "tensorboard"
FAILURES = (OSError,)


class Events:
  """Scalars of one run; see `trackers.Tracker`."""

  failures: tuple[type[Exception], ...] = FAILURES

  def __init__(self, run: Run):
    self._file = EventFileWriter(str(run.workdir / "tensorboard"))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """One event; `hulu train` reports rarely, so each is on the disk when this returns."""
    values = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in scalars.items()]
    summary = summary_pb2.Summary(value=values)
    self._file.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
    self._file.flush()

  def close(self) -> None:
    """Ends the writer's thread."""
    self._file.close()


def start(run: Run) -> Events:
  """A new event file; TensorBoard shows those of one folder as one run."""
  return Events(run)
