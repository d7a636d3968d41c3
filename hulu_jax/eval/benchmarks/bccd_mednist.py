"""Scores experiments/learning.py on pictures it did not see, beside guessing without them.

A check of the pipeline, not of medicine: a good number shows that pixels reach the answers, and
nothing clinical: the questions were made from labels by a rule, and the classes of MedNIST come
from different scanners, which tell them apart.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hulu_jax.data.datasets import bccd
from hulu_jax.data.datasets import bccd_fields
from hulu_jax.data.datasets import mednist
from hulu_jax.eval import scores

NOTE = "BCCD and MedNIST: a check of the pipeline, not of medicine"
# "chest X-ray" and its kin, in pieces of a small vocabulary.
NEW_TOKENS = 12
# What the Wilson lower bound of a task must reach (the experiment's promise).  How many platelets
# there are is scored and not promised.
THRESHOLDS = {"modality": 0.85, "kind": 0.75, "field": 0.8, "platelet": 0.62}

# Folders below the experiment's data root.
BCCD, MEDNIST = "img_bccd/public", "img_mednist/public"
# The experiment trains on MedNIST's file numbers below this share of their class.
MEDNIST_SEEN = 0.525
# Task -> how its records' ids end.
_TASKS = {"platelet": "-plt", "platelets": "-nplt", "modality": "-mod", "kind": "-kind"}
# Patches of a field of a smear, about a cell and what surrounds it.
_FIELD = (4, 4)
_BLANK = 128
_EXAMPLES = 3

Messages = list[dict[str, Any]]
Generate = Callable[[list[Messages]], Sequence[str]]


def run(generate: Generate, *, seed: int, n: int, root: Path) -> dict[str, Any]:
  """Asks up to `n` questions a task about unseen pictures, then of pictures that cannot tell.

  generate: prompts (each ends with a user turn) to one short answer each, in order; it is called
    three times a task: with the true pictures, with mid-grey ones, and with another record's.
  seed: of which questions are asked, where there are more than `n`; root: the folder that holds
    BCCD and MEDNIST.

  Returns:
    {"note", "split", "seed", "n", "tasks", "examples"}.  `tasks` maps names to {"n", "accuracy",
    "low", "high"} with 95 % Wilson bounds and, under each of `scores.CONTROLS`, the same four for a
    control.  `examples` are rows (task, question, expected, answered).

  Raises:
    FileNotFoundError: a set is not there.
  """
  asked = _questions(root, seed, n)
  tasks, examples = {}, []
  for task, (prompts, expected) in asked.items():
    answered, tasks[task] = _score(generate, prompts, expected)
    for prompt, right, answer in list(zip(prompts, expected, answered, strict=True))[:_EXAMPLES]:
      examples.append((task, prompt[0]["content"][-1]["text"], right, answer))
  return {
    "note": NOTE,
    "split": "BCCD's own validation list; the highest file numbers of each MedNIST class",
    "seed": seed,
    "n": n,
    "tasks": tasks,
    "examples": examples,
  }


def verdict(result: dict[str, Any]) -> list[str]:
  """The promises that a result of `run` breaks, one sentence each; empty when it keeps them all."""
  return scores.broken(result["tasks"], THRESHOLDS)


def _questions(root: Path, seed: int, n: int) -> dict[str, tuple[list[Messages], list[str]]]:
  """Of each task up to `n` prompts and the answers that are right."""
  rng = np.random.default_rng(seed)
  smears = bccd.Source(root=str(root / BCCD), split="validation")
  pictures = mednist.Source(
    root=str(root / MEDNIST), split="all", ask=("mod", "kind"), numbers=(MEDNIST_SEEN, 1.0)
  )
  # More than are asked: one in eight is drawn around a red cell and asks for a platelet.
  fields = bccd_fields.Source(
    root=str(root / BCCD), split="validation", seed=seed, size=6 * n, fade=0.0, field=_FIELD
  )
  records = [*_records(smears), *_records(pictures)]
  found = {"field": _platelet_or_red(fields, n)}
  for task, ending in _TASKS.items():
    found[task] = [record for record in records if record["id"].endswith(ending)]
  asked = {}
  for task, those in found.items():
    rows = [those[k]["messages"] for k in rng.permutation(len(those))[:n]]
    asked[task] = ([row[:-1] for row in rows], [row[-1]["content"][0]["text"] for row in rows])
  return asked


def _records(source: Any) -> Iterable[dict[str, Any]]:
  for i in range(len(source)):
    record = source[i]
    if isinstance(record, Exception):
      raise record
    yield record


def _platelet_or_red(fields: bccd_fields.Source, n: int) -> list[dict[str, Any]]:
  """Half around a platelet, half around a red cell: to know white cells is no help."""
  asked: dict[str, list[dict[str, Any]]] = {"platelet": [], "white": [], "red": []}
  for record in _records(fields):
    if record["messages"][0]["content"][-1]["text"] == bccd_fields.PRESENCE:
      asked[record["cell"]].append(record)
  return asked["platelet"][: n // 2] + asked["red"][: n // 2]


def _score(
  generate: Generate, prompts: list[Messages], expected: list[str]
) -> tuple[Sequence[str], dict[str, Any]]:
  """The answers, and the row of one task."""
  answered = generate(prompts)
  blanks = [_with_picture(prompt, _blank(prompt)) for prompt in prompts]
  others = [
    _with_picture(prompt, _picture(other))
    for prompt, other in zip(prompts, prompts[1:] + prompts[:1], strict=True)
  ]
  hits = {
    "model": scores.right(answered, expected),
    "majority": scores.right(scores.majority(expected), expected),
    "blank": scores.right(generate(blanks), expected),
    "other_image": scores.right(generate(others), expected),
  }
  return answered, scores.entry(hits)


def _picture(prompt: Messages) -> dict[str, Any]:
  return prompt[0]["content"][0]


def _blank(prompt: Messages) -> dict[str, Any]:
  """A mid-grey picture of the same size and channels."""
  shown = _picture(prompt)
  if "frames" in shown:
    return {"type": "image", "frames": np.full_like(shown["frames"], _BLANK)}
  with Image.open(shown["path"]) as picture:
    width, height, channels = picture.width, picture.height, len(picture.getbands())
  return {"type": "image", "frames": np.full((1, height, width, channels), _BLANK, np.uint8)}


def _with_picture(prompt: Messages, picture: dict[str, Any]) -> Messages:
  turn = prompt[0]
  return [{**turn, "content": [picture, *turn["content"][1:]]}, *prompt[1:]]
