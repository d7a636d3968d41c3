"""Scores the quick start on held-out files, beside what guessing without the picture scores."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hulu_jax.data.datasets import synthetic_disc
from hulu_jax.eval import scores

NOTE = "synthetic disc: checks the wiring, not clinical ability"

Messages = list[dict[str, Any]]
Generate = Callable[[list[Messages]], Sequence[str]]

# The name of a scored task in the report.
_TASKS = {
  ("2D", "presence"): "presence",
  ("2D", "quadrant"): "quadrant",
  ("3D", "third"): "third_3D",
  ("video", "third"): "third_video",
  ("text", "side"): "text",
}
# What the Wilson lower bound of each task must reach (the quick start's promise).
THRESHOLDS = {
  "quadrant": 0.75,
  "presence": 0.70,
  "third_3D": 0.60,
  "third_video": 0.60,
  "text": 0.55,
}

# Crops per kind on which the test discs are drawn; the held-out files bound what more would add.
_POOL = 300
_BLANK = 128
_EXAMPLES = 3
# Answers are one or two words; byte by byte the longest is 11.
NEW_TOKENS = 8


def run(generate: Generate, *, seed: int, n: int) -> dict[str, Any]:
  """Asks `n` questions per task about held-out files, and the same of pictures that cannot tell.

  generate: prompts (each ends with a user turn) to one short answer each, in order; it is called
    once per kind with the true media and, for kinds with media, once with a mid-grey medium and
    once with another sample's.
  seed: of the test set; the same seed gives the same set.

  Returns:
    {"note", "split", "seed", "n", "kinds", "tasks", "examples"}.  `kinds` and `tasks` map names to
    {"n", "accuracy", "low", "high"} with 95 % Wilson bounds and, under each of `scores.CONTROLS`,
    the same four for a control (None where it does not apply).  `examples` are rows (kind,
    question, expected, answered).
  """
  kinds, tasks, examples = {}, {}, []
  for kind in synthetic_disc.KINDS:
    names = synthetic_disc.TASKS[kind]
    source = synthetic_disc.Source(
      kind=kind,
      split="test",
      seed=seed,
      size=n * len(names),
      pool=0 if kind == "text" else _POOL,
      fade=0.0,
    )
    records = [source[i] for i in range(len(source))]
    answered, hits = _answer(generate, kind, records)
    kinds[kind] = _entry(hits, slice(None))
    for k, name in enumerate(names):
      tasks[_TASKS[kind, name]] = _entry(hits, slice(k, None, len(names)))
    for record, answer in list(zip(records, answered, strict=True))[:_EXAMPLES]:
      question, expected = _texts(record["messages"])
      examples.append((kind, question, expected, answer))
  return {
    "note": NOTE,
    "split": "file",
    "seed": seed,
    "n": n,
    "kinds": kinds,
    "tasks": tasks,
    "examples": examples,
  }


def verdict(result: dict[str, Any]) -> list[str]:
  """The promises that a result of `run` breaks, one sentence each; empty when it keeps them all."""
  return scores.broken(result["tasks"], THRESHOLDS)


def _answer(
  generate: Generate, kind: str, records: list[dict[str, Any]]
) -> tuple[list[str], dict[str, np.ndarray]]:
  """The answers, and for "model" and each control that applies bool [records]: was it right."""
  prompts = [record["messages"][:-1] for record in records]
  expected = [_texts(record["messages"])[1] for record in records]
  answered = list(generate(prompts))
  stride = len(synthetic_disc.TASKS[kind])
  hits = {
    "model": scores.right(answered, expected),
    "majority": scores.right(_majority(expected, stride), expected),
  }
  if kind != "text":
    # `stride` places on lies the next sample of the same task; answers are dealt at random, so it
    # shares the right one no more often than chance.
    others = prompts[stride:] + prompts[:stride]
    blanks = [_with_frames(p, np.full_like(_frames(p), _BLANK)) for p in prompts]
    swapped = [_with_frames(p, _frames(other)) for p, other in zip(prompts, others, strict=True)]
    hits["blank"] = scores.right(generate(blanks), expected)
    hits["other_image"] = scores.right(generate(swapped), expected)
  return answered, hits


def _majority(expected: list[str], stride: int) -> list[str]:
  """For each of `stride` interleaved tasks its most frequent answer, in every place."""
  best = [Counter(expected[k::stride]).most_common(1)[0][0] for k in range(stride)]
  return [best[i % stride] for i in range(len(expected))]


def _entry(hits: dict[str, np.ndarray], part: slice) -> dict[str, Any]:
  return scores.entry({name: found[part] for name, found in hits.items()})


def _texts(messages: Messages) -> tuple[str, str]:
  """Question and answer of a record with one of each."""
  question, answer = (turn["content"][-1]["text"] for turn in messages)
  return question, answer


def _frames(prompt: Messages) -> np.ndarray:
  return prompt[0]["content"][0]["frames"]


def _with_frames(prompt: Messages, frames: np.ndarray) -> Messages:
  turn = prompt[0]
  medium, *rest = turn["content"]
  return [{**turn, "content": [{**medium, "frames": frames}, *rest]}, *prompt[1:]]
