"""PMC-VQA: multiple-choice questions about figures of open-access articles.

Layout, of the dataset RadGenome/PMC-VQA (README, "Dataset Structure"): version 1 is `train.csv`,
`test.csv` and `images.zip`, version 2 (single-panel figures) is `train_2.csv`, `test_2.csv` and
`images_2.zip`, each unpacked beside its tables; columns `Figure_path`, `Question`, `Choice A` to
`Choice D` (such as "A:Diffuse uptake pattern"), `Answer` and, in version 1, `Answer_label`.
Parquet copies are not read: they hold the same tables.

Example:
  {"id": "pmcvqa-1-train-93", "group": "PMC1064097", "answer": "B", "answer_type": "mcq",
   "options": {"A": "Diffuse uptake pattern", "B": "Focal uptake pattern", ...}, "messages": [
    {"role": "user", "content": [
      {"type": "image", "path": "/data/PMC-VQA/images/PMC1064097_F1.jpg"},
      {"type": "text", "text": "What is the uptake pattern in the breast?\nA. Diffuse ..."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "B"}]}]}
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
  title="PMC-VQA",
  licence="CC BY-SA; the figures are CC0 or CC BY",
  url="https://huggingface.co/datasets/RadGenome/PMC-VQA",
  kinds=("image",),
  group="article",
  split="published test; train without the test's articles",
  caveats=(
    "questions and options were written by a language model from captions",
    "some can be answered without the image",
    "share-alike: what is trained on it and shipped must carry the licence",
    "probably part of Hulu-Med's own training mix",
  ),
)
_FILES = {1: {"train": "train", "test": "test"}, 2: {"train_2": "train", "test_2": "test"}}
_IMAGES = {1: ("images",), 2: ("images_2", "images2", "figures")}
_COLUMNS = ("Figure_path", "Question", "Answer", *(f"Choice {letter}" for letter in "ABCD"))

Item = tuple[_tables.Csv, int, str]


class Source(_source.Base[Item]):
  """One question a row, read by offset.

  root: the folder of the set; split: train, test or all; version: 1 or 2.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: an unknown version, a table of other columns, or a split without rows.
  """

  def __init__(self, *, root: str, split: str, version: int):
    if version not in _FILES:
      raise ValueError(f"version is {version!r}; expected {' or '.join(map(str, _FILES))}")
    folder, self._version = _source.folder(root), version
    self._images = _source.first_of(folder, *_IMAGES[version])
    files = {folder / f"{file}.csv": part for file, part in _FILES[version].items()}
    super().__init__(_rows(files), split, files)

  def _record(self, item: Item) -> dict[str, Any]:
    table, offset, name = item
    row = table.at(offset)
    options = {k: _bare(row[f"Choice {k}"], k) for k in "ABCD" if row[f"Choice {k}"].strip()}
    right = (row.get("Answer_label") or row["Answer"]).strip()
    media = [_source.medium("image", self._images / row["Figure_path"])]
    question = row["Question"].strip()
    made = _source.multiple_choice(
      f"pmcvqa-{self._version}-{name}", question, options, right, media
    )
    return {**made, "group": _article(row["Figure_path"])}


def _rows(files: dict[Path, str]) -> Iterator[Placed[Item]]:
  for file, split in files.items():
    table = _tables.Csv(file, _COLUMNS)
    for number, (offset, row) in enumerate(table.scan()):
      key = f"{file.stem}-{number}" if isinstance(row, BadRecord) else _article(row["Figure_path"])
      yield Placed((table, offset, f"{split}-{number}"), key, split)


def _article(figure: str) -> str:
  """ "PMC1064097" of "PMC1064097_F1.jpg"."""
  return figure.partition("_")[0]


def _bare(choice: str, letter: str) -> str:
  """ "Diffuse" of " A:Diffuse "."""
  return choice.strip().removeprefix(f"{letter}:").strip()
