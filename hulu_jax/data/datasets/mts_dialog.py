"""MTS-Dialog: a talk of doctor and patient, and the section of the note it becomes.

Layout, of github.com/abachaa/MTS-Dialog: `Main-Dataset/MTS-Dialog-{TrainingSet, ValidationSet,
TestSet-1-MEDIQA-Chat-2023, TestSet-2-MEDIQA-Sum-2023}.csv` with the columns `ID`,
`section_header`, `section_text` and `dialogue`.  A folder with `train*.jsonl` or `test*.jsonl` is
read as it is.

Example:
  {"id": "mts-train-1051", "messages": [
    {"role": "user", "content": [{"type": "text", "text": "Doctor: Can you please confirm the ...
      \n\nWrite the section MEDICATIONS of the clinical note of this conversation."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Recently finished Minocin ..."}]}]}
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="MTS-Dialog",
  licence="CC BY 4.0",
  url="https://github.com/abachaa/MTS-Dialog",
  kinds=("text",),
  group="none; one record a conversation",
  split="published",
  caveats=(
    "notes are samples for transcriptionists, and the conversations were written from them",
    "section headers are codes, such as GENHX for the history of the present illness",
  ),
)
_FILES = {
  "MTS-Dialog-TrainingSet": ("train", "train"),
  "MTS-Dialog-ValidationSet": ("validation", "validation"),
  "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023": ("test1", "test"),
  "MTS-Dialog-TestSet-2-MEDIQA-Sum-2023": ("test2", "test"),
}


class Source(_source.Base[Mapping[str, Any]]):
  """One section a conversation.

  root: the folder of the set; split: train, validation, test or all.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows.
  """

  def __init__(self, *, root: str, split: str):
    folder = _source.folder(root)
    files = sorted([*folder.glob("train*.jsonl"), *folder.glob("test*.jsonl")])
    found = _lines(files) if files else _published(tables := _published_files(folder))
    super().__init__(found, split, files or tables)

  def _record(self, item: Mapping[str, Any]) -> dict[str, Any]:
    name, section, dialogue, summary = _tables.need(item, "id", "section", "dialogue", "summary")
    task = f"Write the section {section} of the clinical note of this conversation."
    made = _source.record(name, f"{dialogue.strip()}\n\n{task}", summary)
    return {**made, "answer_type": "open"}


def _lines(files: list[Path]) -> Iterator[Placed[Mapping[str, Any]]]:
  for path in files:
    split = "train" if path.stem.startswith("train") else "test"
    for row in _tables.objects(path):
      yield Placed(row, row["id"], split)


def _published_files(folder: Path) -> list[Path]:
  folder = _source.first_of(folder, *(f"{sub}{next(iter(_FILES))}.csv" for sub in _SUB)).parent
  return [folder / f"{file}.csv" for file in _FILES]


def _published(files: list[Path]) -> Iterator[Placed[Mapping[str, Any]]]:
  columns = ("ID", "section_header", "section_text", "dialogue")
  for path, (prefix, split) in zip(files, _FILES.values(), strict=True):
    for row in _tables.small(path, columns):
      found = {
        "id": f"mts-{prefix}-{row['ID']}",
        "section": row["section_header"],
        "dialogue": row["dialogue"],
        "summary": row["section_text"],
      }
      yield Placed(found, found["id"], split)


_SUB = ("Main-Dataset/", "")
