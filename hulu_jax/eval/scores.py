"""Right answers as proportions with their intervals, beside what guessing would score."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hulu_jax.eval import stats

# Guesses that a score must beat: the most frequent answer, and the model's own answers to a
# picture that shows nothing and to another record's.
CONTROLS = ("majority", "blank", "other_image")


def right(answered: Sequence[str], expected: Sequence[str]) -> np.ndarray:
  """bool [n]: which answers are the expected ones, white space at the ends and case aside.

  Raises:
    ValueError: another number of answers than of prompts.
  """
  if len(answered) != len(expected):
    raise ValueError(f"generate gave {len(answered)} answers to {len(expected)} prompts")
  pairs = zip(answered, expected, strict=True)
  return np.array([a.strip().lower() == e.strip().lower() for a, e in pairs])


def majority(expected: Sequence[str]) -> list[str]:
  """The most frequent answer, in every place."""
  return [Counter(expected).most_common(1)[0][0]] * len(expected)


def rate(hits: np.ndarray) -> dict[str, float | int]:
  """{"n", "accuracy", "low", "high"} of bool [n], with 95 % Wilson bounds."""
  low, high = stats.wilson(int(hits.sum()), len(hits))
  return {"n": len(hits), "accuracy": float(hits.mean()), "low": low, "high": high}


def entry(hits: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The row of a task: `rate` of "model" and, under each of CONTROLS, of that control or None."""
  controls = {name: rate(hits[name]) if name in hits else None for name in CONTROLS}
  return rate(hits["model"]) | controls


def broken(tasks: Mapping[str, Mapping[str, Any]], thresholds: Mapping[str, float]) -> list[str]:
  """One sentence for each promise that tasks break; empty when all are kept.

  thresholds: what the lower bound of a task must reach; it must also lie above the upper bound of
  every control.
  """
  problems = []
  for task, threshold in thresholds.items():
    found = tasks[task]
    if found["low"] < threshold:
      problems.append(f"{task}: lower bound {found['low']:.3f}, expected at least {threshold:.2f}")
    for control in CONTROLS:
      if found[control] is not None and found["low"] <= found[control]["high"]:
        problems.append(
          f"{task}: lower bound {found['low']:.3f}, expected above the upper bound "
          f"{found[control]['high']:.3f} of the control {control}"
        )
  return problems
