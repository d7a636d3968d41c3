"""Draws what a run measured."""

import json
import os
from pathlib import Path
import tempfile

from matplotlib import figure
import numpy as np

# The smoothed line averages over this share of the run.
SMOOTHING = 0.04


def loss_curve(metrics_jsonl_path: str | os.PathLike, png_path: str | os.PathLike) -> None:
  """Writes the loss over the steps, raw and smoothed, as a PNG that appears whole or not at all.

  metrics_jsonl_path: one JSON object a line with "step" and "loss"; where a resumed run wrote a
    step twice, the later line counts.

  Raises:
    ValueError: no line, or a line that is not such an object.
  """
  steps, losses = _read(Path(metrics_jsonl_path))
  # A Figure without pyplot draws with Agg and leaves the process's own backend alone.
  fig = figure.Figure(figsize=(7, 4), dpi=120, layout="constrained")
  ax = fig.add_subplot()
  ax.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label="each step")
  width = max(1, round(SMOOTHING * len(steps)))
  ax.plot(steps, _smooth(losses, width), color="tab:blue", label=f"mean over {width} steps")
  ax.set_xlabel("training step")
  ax.set_ylabel("loss per supervised token (nats)")
  ax.set_ylim(bottom=0)
  ax.grid(alpha=0.3)
  ax.legend(frameon=False)
  _save(fig, Path(png_path))


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
  loss_at: dict[int, float] = {}
  with path.open() as lines:
    for number, line in enumerate(lines, 1):
      try:
        row = json.loads(line)
        loss_at[int(row["step"])] = float(row["loss"])
      except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
          f'{path.name} line {number}: expected a JSON object with "step" and "loss", '
          f"found {line.strip()[:60]!r}"
        ) from error
  if not loss_at:
    raise ValueError(f'{path.name} is empty: expected JSON lines with "step" and "loss"')
  steps = np.array(sorted(loss_at))
  return steps, np.array([loss_at[step] for step in steps])


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
  """Centred moving average; near the ends over as many neighbours as there are."""
  box = np.ones(width)
  count = np.convolve(np.ones_like(values), box, mode="same")
  return np.convolve(values, box, mode="same") / count


def _save(fig: figure.Figure, path: Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".png")
  os.close(handle)
  try:
    fig.savefig(name, format="png")
    # mkstemp makes the file private to the owner; a picture should be as readable as its folder.
    os.chmod(name, 0o644)
    os.replace(name, path)
  except BaseException:
    os.unlink(name)
    raise
