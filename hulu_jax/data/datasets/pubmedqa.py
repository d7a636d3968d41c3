"""PubMedQA, expert-labelled part: an abstract, a question, and yes, no or maybe.

Layout, of github.com/pubmedqa/pubmedqa, `data/`: `ori_pqal.json` ({PMID: {"QUESTION", "CONTEXTS",
"final_decision", "LONG_ANSWER", ...}}) and `test_ground_truth.json` ({PMID: decision}).  A folder
with `pubmedqa_*.jsonl` is read as it is; its file is of the training fold unless its name has
"test".

Example:
  {"id": "pubmedqa-23774337", "options": {"A": "yes", "B": "no", "C": "maybe"}, "messages": [
    {"role": "user", "content": [{"type": "text", "text": "Despite a previous meta-analysis ...
      \n\nDoes the central venous pressure predict fluid responsiveness?
      \nAnswer yes, no or maybe."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "no"}]}]}
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="PubMedQA (PQA-L)",
  licence="MIT; the abstracts belong to their authors",
  url="https://github.com/pubmedqa/pubmedqa",
  kinds=("text",),
  group="none; one record an article",
  split="published: train and test",
  caveats=(
    "the conclusion of each abstract was taken out and is the long answer",
    "probably part of Hulu-Med's own training mix",
  ),
)
_OPTIONS = {"A": "yes", "B": "no", "C": "maybe"}


class Source(_source.Base[Mapping[str, Any]]):
  """One question an abstract.

  root: the folder of the set; split: train, test or all; explain: whether the long answer (the
  abstract's conclusion) stands before the short one.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows.
  """

  def __init__(self, *, root: str, split: str, explain: bool):
    self._explain = explain
    folder = _source.folder(root)
    files = sorted(folder.glob("pubmedqa_*.jsonl"))
    found = _lines(files) if files else _published(*(files := _published_files(folder)))
    super().__init__(found, split, files)

  def _record(self, item: Mapping[str, Any]) -> dict[str, Any]:
    name, question, context, answer = _tables.need(item, "id", "question", "context", "answer")
    asked = f"{context}\n\n{question}\nAnswer yes, no or maybe."
    made = _source.record(name, asked, answer)
    made = {**made, "options": _OPTIONS, "answer_type": "mcq"}
    return _source.explained(made, *_tables.need(item, "long_answer")) if self._explain else made


def _lines(files: list[Path]) -> Iterator[Placed[Mapping[str, Any]]]:
  for path in files:
    split = "test" if "test" in path.stem else "train"
    for row in _tables.objects(path):
      yield Placed(row, row["id"], split)


def _published_files(folder: Path) -> list[Path]:
  questions = _source.first_of(folder, "ori_pqal.json", "data/ori_pqal.json")
  return [questions, questions.parent / "test_ground_truth.json"]


def _published(questions: Path, test: Path) -> Iterator[Placed[Mapping[str, Any]]]:
  tested = _tables.load(test)
  for number, found in _tables.load(questions).items():
    row = {
      "id": f"pubmedqa-{number}",
      "question": found.get("QUESTION"),
      "context": "\n".join(found.get("CONTEXTS", ())),
      "answer": found.get("final_decision"),
      "long_answer": found.get("LONG_ANSWER"),
    }
    yield Placed(row, row["id"], "test" if number in tested else "train")
