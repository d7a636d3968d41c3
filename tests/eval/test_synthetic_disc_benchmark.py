"""The quick start's report: an oracle passes, every kind of cheat is named."""

import json

import numpy as np
import pytest

from hulu_jax.data.datasets import synthetic_disc as dataset
from hulu_jax.eval.benchmarks import synthetic_disc as benchmark

SEED, N = 5, 48


def key(prompt):
  *media, question = prompt[-1]["content"]
  return b"".join(item["frames"].tobytes() for item in media), question["text"]


@pytest.fixture(scope="module")
def oracle():
  """Knows every test medium by heart; of a medium it has never seen it says "yes"."""
  known = {}
  for kind, tasks in dataset.TASKS.items():
    pool = 0 if kind == "text" else benchmark._POOL
    source = dataset.Source(
      kind=kind, split="test", seed=SEED, size=N * len(tasks), pool=pool, fade=0.0
    )
    for record in (source[i] for i in range(len(source))):
      known[key(record["messages"][:-1])] = record["messages"][-1]["content"][0]["text"]
  return lambda prompts: [known.get(key(prompt), "yes") for prompt in prompts]


@pytest.fixture(scope="module")
def result(oracle):
  return benchmark.run(oracle, seed=SEED, n=N)


def test_oracle_keeps_every_promise(result):
  assert benchmark.verdict(result) == []
  assert set(result["kinds"]) == {"text", "2D", "3D", "video"}
  assert set(result["tasks"]) == {"presence", "quadrant", "third_3D", "third_video", "text"}
  assert all(entry["accuracy"] == 1 for entry in result["tasks"].values())
  assert result["note"] == "synthetic disc: checks the wiring, not clinical ability"


def test_report_survives_json_and_states_each_count(result):
  again = json.loads(json.dumps(result))
  assert again["kinds"] == result["kinds"]
  assert {name: entry["n"] for name, entry in again["kinds"].items()} == {
    "text": N, "2D": 2 * N, "3D": N, "video": N
  }  # fmt: skip
  assert again["split"] == "file" and again["seed"] == SEED


def test_controls_guess_at_chance(result):
  majority = {name: entry["majority"]["accuracy"] for name, entry in result["tasks"].items()}
  assert majority == pytest.approx(
    {"presence": 1 / 2, "quadrant": 1 / 4, "third_3D": 1 / 3, "third_video": 1 / 3, "text": 1 / 2}
  )
  # To a blank picture the oracle says "yes".
  assert result["tasks"]["presence"]["blank"]["accuracy"] == pytest.approx(1 / 2)
  assert result["tasks"]["quadrant"]["blank"]["accuracy"] == 0
  for name in ("text", "kinds"):
    entry = result["tasks"]["text"] if name == "text" else result["kinds"]["text"]
    assert entry["blank"] is None and entry["other_image"] is None


def test_another_samples_picture_has_an_unrelated_answer():
  """Whoever answers by the picture alone, right or not, is right about another's at chance."""
  labels = {}

  def by_picture(prompts):
    return [labels[key(prompt)[0]] for prompt in prompts]

  source = dataset.Source(kind="3D", split="test", seed=SEED, size=300, pool=300, fade=0.0)
  for record in (source[i] for i in range(len(source))):
    labels[key(record["messages"][:-1])[0]] = record["messages"][-1]["content"][0]["text"]
  prompts = [source[i]["messages"][:-1] for i in range(300)]
  expected = by_picture(prompts)
  others = by_picture(prompts[1:] + prompts[:1])
  # 1/3 with a standard deviation of 0.027.
  assert abs(np.mean([a == b for a, b in zip(expected, others, strict=True)]) - 1 / 3) < 0.09


def test_examples_show_every_kind(result):
  assert len(result["examples"]) == 12
  assert {kind for kind, *_ in result["examples"]} == set(result["kinds"])
  for _, question, expected, answered in result["examples"]:
    assert question.endswith("?") and expected == answered


def test_answers_are_compared_without_case_and_margins(oracle, result):
  shouted = benchmark.run(
    lambda prompts: [f" {a.upper()}\n" for a in oracle(prompts)], seed=SEED, n=N
  )
  assert shouted["tasks"] == result["tasks"]


def test_constant_answers_fail_every_task():
  result = benchmark.run(lambda prompts: ["yes"] * len(prompts), seed=SEED, n=N)
  problems = benchmark.verdict(result)
  for task in benchmark.THRESHOLDS:
    assert any(problem.startswith(f"{task}: ") for problem in problems)


def test_a_control_that_does_as_well_fails(result):
  entry = dict(result["tasks"]["third_3D"])
  entry["blank"] = {"n": N, "accuracy": 1.0, "low": 0.92, "high": 1.0}
  tampered = result | {"tasks": result["tasks"] | {"third_3D": entry}}
  (problem,) = benchmark.verdict(tampered)
  assert problem.startswith("third_3D: lower bound 0.9") and "control blank" in problem


def test_missing_answers_are_an_error():
  with pytest.raises(ValueError, match="gave 1 answers to 48 prompts"):
    benchmark.run(lambda prompts: ["yes"], seed=SEED, n=N)
