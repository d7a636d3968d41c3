"""The numbers of a step by name (docs/metrics.md lists them), and the file that always has them."""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any

from hulu_jax.data.schema import MODALITIES

FILE = "metrics.jsonl"
EVALUATION = "eval/"


class Lines:
  """Appends to `workdir/metrics.jsonl`; what it cannot write ends the run."""

  def __init__(self, workdir: Path):
    self._file = (workdir / FILE).open("a")

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """One line {"step": ..., name: value, ...}; values are floats."""
    self._file.write(json.dumps({"step": step, **scalars}) + "\n")
    self._file.flush()


def scalars(metrics: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, float]:
  """A step's metrics, fetched from the device, as named floats; sums of losses become means."""
  names = ("loss", "weight", "visual_tokens", "visual_overflow")
  out = {name: float(metrics[name]) for name in names}
  out |= {name: float(metrics[name]) for name in metrics if name.startswith("grad_norm")}
  out |= means("loss", metrics, datasets)
  return out


def means(name: str, sums: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, float]:
  """`name/DATASET` and `name_by_modality/KIND` of those that the sums of losses hold.

  sums: "loss_by_X" and "weight_by_X", X being dataset (float [datasets]) and modality (float [4]).
  """
  return {
    **_means(name, datasets, sums["loss_by_dataset"], sums["weight_by_dataset"]),
    **_means(
      f"{name}_by_modality", MODALITIES, sums["loss_by_modality"], sums["weight_by_modality"]
    ),
  }


def _means(name: str, keys: Sequence[str], losses: Any, weights: Any) -> dict[str, float]:
  pairs = zip(keys, losses, weights, strict=True)
  return {f"{name}/{key}": float(loss / weight) for key, loss, weight in pairs if weight > 0}
