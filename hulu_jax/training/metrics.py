"""Where the numbers of a run go: one JSON line per report, and TensorBoard."""

from collections.abc import Mapping
import json
from pathlib import Path
import time
from typing import Any

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto import summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

FILE = "metrics.jsonl"


class Writer:
  """Appends to `workdir/metrics.jsonl` and to TensorBoard event files beside it."""

  def __init__(self, workdir: Path):
    self._file = (workdir / FILE).open("a")
    self._events = EventFileWriter(str(workdir / "tensorboard"))

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, *exception: Any) -> None:
    self._file.close()
    self._events.close()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """One line {"step": ..., name: value, ...}; values are floats."""
    self._file.write(json.dumps({"step": step, **scalars}) + "\n")
    self._file.flush()
    values = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in scalars.items()]
    summary = summary_pb2.Summary(value=values)
    self._events.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))


def scalars(metrics: Mapping[str, Any], datasets: list[str]) -> dict[str, float]:
  """A step's metrics, fetched from the device, as named floats; per-dataset sums become means."""
  names = ("loss", "weight", "visual_tokens", "visual_overflow")
  out = {name: float(metrics[name]) for name in names}
  out |= {name: float(metrics[name]) for name in metrics if name.startswith("grad_norm")}
  sums = zip(datasets, metrics["loss_by_dataset"], metrics["weight_by_dataset"], strict=True)
  return out | {f"loss/{name}": float(loss / weight) for name, loss, weight in sums if weight > 0}
