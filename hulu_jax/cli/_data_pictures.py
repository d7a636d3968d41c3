"""Histograms of what `hulu data stats` counted."""

from collections.abc import Mapping, Sequence
import os
from pathlib import Path

from matplotlib import figure

_BINS = 40


def histogram(path: Path, values: Mapping[str, Sequence[float]], label: str) -> Path:
  """Writes one PNG, a histogram for each name one upon the other, whole or not at all."""
  # A Figure without pyplot draws with Agg and leaves the process's own backend alone.
  fig = figure.Figure(figsize=(7, 4), dpi=120, layout="constrained")
  ax = fig.add_subplot()
  shown = {name: list(found) for name, found in values.items() if len(found)}
  ax.hist(list(shown.values()), bins=_BINS, stacked=True, label=list(shown))
  ax.set_xlabel(label)
  ax.set_ylabel("count")
  ax.grid(alpha=0.3)
  ax.legend(frameon=False)
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(f".{path.name}.draft")
  fig.savefig(draft, format="png")
  os.replace(draft, path)
  return path
