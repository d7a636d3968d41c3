"""MedMCQA: questions of Indian medical entrance exams with four options.

Layout, of github.com/medmcqa/medmcqa (README, "Dataset Structure"): `train.json` and `dev.json`,
one object a line: {"id", "question", "opa", "opb", "opc", "opd", "cop", "choice_type", "exp",
"subject_name", ...}, `cop` counted from 1.  (Copies on dataset hubs count it from 0 and are
refused.)  A folder with `medmcqa_*.jsonl` is read as it is.

Example:
  {"id": "medmcqa-5d46461c-...", "options": {"A": "CD 5+, CD 25-", "B": "CD 5+, CD 10+", ...},
   "answer": "D", "answer_type": "mcq", "messages": [
    {"role": "user", "content": [{"type": "text", "text": "Mantle cell Carcinoma shows
      \nA. CD 5+, CD 25-\nB. ...\nAnswer with the option's letter from the given ..."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "D"}]}]}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed
from hulu_jax.media.errors import BadRecord

CARD = _card.Card(
  title="MedMCQA",
  licence="MIT",
  url="https://github.com/medmcqa/medmcqa",
  kinds=("text",),
  group="none; one record a question",
  split="published: train and validation; the labels of its test set are not public",
  caveats=(
    "only questions with a single right option",
    "explanations vary from a citation to a page",
    "probably part of Hulu-Med's own training mix",
  ),
)
_FILES = {"train.json": "train", "dev.json": "validation"}
_OPTIONS = ("opa", "opb", "opc", "opd")

Item = tuple[_tables.Jsonl, int]


class Source(_source.Base[Item]):
  """One question a row, read by offset.

  root: the folder of the set; split: train, validation or all; explain: whether the explanation
  stands before the letter, and rows without one are left out.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows, or `cop` counted from 0.
  """

  def __init__(self, *, root: str, split: str, explain: bool):
    self._explain = explain
    folder = _source.folder(root)
    files = {path: _of_excerpt(path) for path in sorted(folder.glob("medmcqa_*.jsonl"))}
    if not files:
      _source.first_of(folder, *_FILES)
      files = {folder / name: of for name, of in _FILES.items() if (folder / name).is_file()}
    super().__init__(self._rows(files), split, files)

  def _record(self, item: Item) -> dict[str, Any]:
    table, offset = item
    row = table.at(offset)
    name, question = _tables.need(row, "id", "question")
    if "opa" in row:
      name = f"medmcqa-{name}"
      options = dict(zip("ABCD", _tables.need(row, *_OPTIONS), strict=True))
      answer, explanation = _letter(*_tables.need(row, "cop")), row.get("exp")
    else:
      options, answer = _tables.need(row, "options", "answer")
      explanation = row.get("explanation")
    made = _source.multiple_choice(name, question, options, answer)
    return _source.explained(made, explanation or "") if self._explain else made

  def _rows(self, files: dict[Path, str]) -> Iterator[Placed[Item]]:
    for path, split in files.items():
      table = _tables.Jsonl(path)
      for offset, row in table.scan():
        if isinstance(row, BadRecord):
          yield Placed((table, offset), f"{path.name}-{offset}", split)
          continue
        if row.get("cop") == 0:
          raise ValueError(f"{path}: cop counts from 0; expected the authors' file, from 1 to 4")
        explained = row.get("exp") or row.get("explanation")
        if row.get("choice_type", "single") == "single" and (explained or not self._explain):
          yield Placed((table, offset), str(row.get("id")), split)


def _of_excerpt(path: Path) -> str:
  return "train" if "train" in path.stem else "validation"


def _letter(right: Any) -> str:
  if right not in (1, 2, 3, 4):
    raise BadRecord("format", f"cop of type {type(right).__name__}; expected 1 to 4")
  return "ABCD"[right - 1]
