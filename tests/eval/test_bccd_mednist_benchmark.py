"""The report of the learning experiment: who looks passes, who guesses is named."""

import json

import numpy as np
from PIL import Image
import pytest

from hulu_jax.data.datasets import bccd_fields
from hulu_jax.eval import scores
from hulu_jax.eval import stats
from hulu_jax.eval.benchmarks import bccd_mednist as benchmark

# Class -> (grey level of its pictures here, modality, kind).
CLASSES = {
  "AbdomenCT": (40, "CT", "abdomen CT"),
  "CXR": (90, "X-ray", "chest X-ray"),
  "BreastMRI": (200, "MRI", "breast MRI"),
}
LETTERS = {"A": "abdomen CT", "B": "chest X-ray", "C": "breast MRI"}
SMEARS = 80
UNSEEN = 60


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """Miniatures of both sets in the excerpt's form; of a smear the red says how many platelets."""
  root = tmp_path_factory.mktemp("data")
  smears, pictures = root / benchmark.BCCD, root / benchmark.MEDNIST
  lines, boxes = [], {}
  for n in range(SMEARS):
    picture = np.full((48, 64, 3), (100 * (n % 3), 99, 99), np.uint8)
    asked = {"plt": "yes" if n % 3 else "no", "nplt": str(n % 3), "nwbc": "1"}
    name, split = f"Smear{n:03}", "val" if n >= 10 else "train"
    cells = {"Platelets": [[30, 20, 34, 24]] * (n % 3)}
    boxes[name] = cells if n % 3 else {"WBC": [[10, 10, 30, 30]], "RBC": [[40, 30, 50, 40]]}
    lines += _lines("bccd-" + name, asked, f"images/{name}.png", picture, smears, split)
  _write(smears, lines)
  (smears / "boxes.json").write_text(json.dumps(boxes))
  lines = []
  for name, (grey, modality, kind) in CLASSES.items():
    letter = next(letter for letter, said in LETTERS.items() if said == kind)
    for n in (0, *range(9000 - UNSEEN // 3, 9000)) if name != "BreastMRI" else range(8000, 8020):
      asked = {"mod": modality, "type": letter}
      picture = np.full((28, 28), grey, np.uint8)
      path = f"images/{name}_{n:06}.png"
      lines += _lines(f"mednist-{name}-{n:06}", asked, path, picture, pictures, None)
  _write(pictures, lines)
  return root


def _lines(name, asked, path, picture, folder, split):
  (folder / "images").mkdir(parents=True, exist_ok=True)
  Image.fromarray(picture).save(folder / path)
  for kind, answer in asked.items():
    line = {"id": f"{name}-{kind}", "question": f"{kind}?", "answer": answer, "image": path}
    line |= {"source_split": split} if split else {}
    yield line | ({"options": LETTERS} if kind == "type" else {})


def _write(folder, lines):
  (folder / "qa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def looks(prompts):
  """Answers from the pixels; to a blank picture what its grey is nearest to."""
  answers = []
  for prompt in prompts:
    item, question = prompt[0]["content"]
    pixels = item["frames"][0] if "frames" in item else np.asarray(Image.open(item["path"]))
    number = round(int(pixels[0, 0, 0]) / 100) if pixels.ndim == 3 and pixels.shape[2] == 3 else 0
    nearest = min(CLASSES.values(), key=lambda row: abs(int(pixels.flat[0]) - row[0]))
    presence = "yes" if number else "no"
    said = {
      "plt?": presence,
      bccd_fields.PRESENCE: presence,
      "nplt?": str(number),
      "mod?": nearest[1],
    }
    answers.append(" " + said.get(question["text"], nearest[2]).upper())
  return answers


def test_who_looks_keeps_every_promise(root):
  result = benchmark.run(looks, seed=1, n=300, root=root)
  assert benchmark.verdict(result) == []
  assert {task: row["n"] for task, row in result["tasks"].items()} == {
    "field": 300,
    "platelet": SMEARS - 10,
    "platelets": SMEARS - 10,
    "modality": UNSEEN,
    "kind": UNSEEN,
  }
  for row in result["tasks"].values():
    assert row["accuracy"] == 1
    assert (row["low"], row["high"]) == stats.wilson(row["n"], row["n"])
    assert all(row[control]["high"] < row["low"] for control in scores.CONTROLS)
  # A grey of 128 is nearest to 90, an X-ray, and its red to one platelet.
  assert result["tasks"]["modality"]["blank"]["accuracy"] == pytest.approx(1 / 3)
  assert result["tasks"]["platelet"]["blank"]["accuracy"] == pytest.approx(2 / 3, abs=0.02)
  assert json.loads(json.dumps(result)) == result | {
    "examples": [list(row) for row in result["examples"]]
  }


def test_who_guesses_is_named(root):
  often = {bccd_fields.PRESENCE: "yes", "plt?": "yes", "nplt?": "1", "mod?": "CT"}

  def guesses(prompts):
    return [often.get(p[0]["content"][1]["text"], "chest X-ray") for p in prompts]

  result = benchmark.run(guesses, seed=1, n=40, root=root)
  field = result["tasks"]["field"]
  assert field["majority"]["accuracy"] == field["accuracy"] == 0.5, "as many red cells as platelets"
  assert all(row["n"] == 40 for row in result["tasks"].values())
  problems = " ".join(benchmark.verdict(result))
  for task in benchmark.THRESHOLDS:
    assert f"{task}: lower bound" in problems and "of the control blank" in problems


def test_answers_are_compared_by_their_words_alone():
  assert scores.right([" YES\n", "ct", "2"], ["yes", "CT", "12"]).tolist() == [True, True, False]
  with pytest.raises(ValueError, match="2 answers to 1 prompts"):
    scores.right(["a", "b"], ["a"])


def test_files_that_are_not_there(tmp_path):
  with pytest.raises(FileNotFoundError, match="no such folder"):
    benchmark.run(looks, seed=1, n=3, root=tmp_path)
