"""MedNIST: 64 x 64 pictures of six kinds, as questions about organ and modality.

Layout, of the archive of the MONAI tutorials (`2d_classification/mednist_tutorial.ipynb`):
`<class>/<number>.jpeg` with the classes AbdomenCT, BreastMRI, CXR, ChestCT, Hand and HeadCT.
A folder with `qa.jsonl` and `images/` is read as it is.

Example:
  {"id": "mednist-CXR-000045-mod", "derived": true, "answer_type": "closed", "messages": [
    {"role": "user", "content": [
      {"type": "image", "path": "/data/MedNIST/CXR/000045.jpeg"},
      {"type": "text", "text": "Which imaging modality was used: X-ray, CT or MRI?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "X-ray"}]}]}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
import re
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="MedNIST",
  licence="CC BY-SA 4.0",
  url="https://github.com/Project-MONAI/tutorials",
  kinds=("image",),
  group="none; patients are not known",
  split="by file number: the first 70 %, 15 % and 15 % of each class",
  caveats=(
    _card.DERIVED,
    "the classes come from different sources and scanners, which tell them apart without anatomy",
    "share-alike: what is trained on it and shipped must carry the licence",
  ),
)
# Class -> (what it shows, modality in words, pictures in the published set).
_CLASSES = {
  "AbdomenCT": ("abdomen CT", "CT", 10_000),
  "BreastMRI": ("breast MRI", "MRI", 8_954),
  "CXR": ("chest X-ray", "X-ray", 10_000),
  "ChestCT": ("chest CT", "CT", 10_000),
  "Hand": ("hand X-ray", "X-ray", 10_000),
  "HeadCT": ("head CT", "CT", 10_000),
}
# Neighbours are slices of one scan: whole runs of numbers stay together.
_BORDERS = ((0.7, "train"), (0.85, "validation"), (1.0, "test"))
_ID = re.compile(r"mednist-(\w+)-(\d+)-(\w+)")
# What can be asked of a picture: its kind by a letter, its modality, its kind in words.
QUESTIONS = ("type", "mod", "kind")
_KIND = "Which kind of medical image is this?"

Item = dict[str, Any] | tuple[str, Path, str]


class Source(_source.Base[Item]):
  """Two questions a picture, or those of QUESTIONS that are asked.

  root: the folder of the set; split: train, validation, test or all; ask: of QUESTIONS; numbers:
  only file numbers from the first up to the second, as shares of their class: an excerpt may lie
  within one split, and neighbours are slices of one scan.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows, or a question that is not known.
  """

  def __init__(
    self,
    *,
    root: str,
    split: str,
    ask: Sequence[str] = ("type", "mod"),
    numbers: Sequence[float] = (0.0, 1.0),
  ):
    if unknown := sorted(set(ask) - set(QUESTIONS)):
      raise ValueError(f"ask names {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    self._root, self._ask, self._numbers = _source.folder(root), ask, numbers
    lines = self._root / "qa.jsonl"
    if lines.is_file():
      super().__init__(self._lines(lines), split, [lines])
    else:  # nothing but pictures: their names say all
      super().__init__(self._published(), split, [])

  def _record(self, item: Item) -> dict[str, Any]:
    if isinstance(item, dict):
      return _source.from_qa_line(item, self._root)
    name, path, kind = item
    title, modality, _ = _CLASSES[path.parent.name]
    media = [_source.medium("image", path, _source.code(modality))]
    if kind == "mod":
      question = "Which imaging modality was used: X-ray, CT or MRI?"
      made = {**_source.record(name, question, modality, media), "answer_type": "closed"}
    elif kind == "kind":
      made = {**_source.record(name, _KIND, title, media), "answer_type": "closed"}
    else:
      options = _source.shuffled(name, (title for title, _, _ in _CLASSES.values()))
      answer = next(letter for letter, text in options.items() if text == title)
      made = _source.multiple_choice(name, _KIND, options, answer, media)
    return {**made, "derived": True}

  def _lines(self, path: Path) -> Iterator[Placed[Item]]:
    for row in _tables.objects(path):
      found = _ID.fullmatch(row["id"])
      if found is None:
        raise ValueError(f"{path}: an id of another form; expected mednist-<class>-<number>-<kind>")
      name, number = found[1], int(found[2])
      asked = [row] if found[3] in self._ask else []
      if found[3] == "type" and "kind" in self._ask:
        asked.append(_in_words(row))
      for line in asked if self._takes(name, number) else ():
        yield Placed(line, f"{name}-{found[2]}", _split(name, number))

  def _published(self) -> Iterator[Placed[Item]]:
    _source.first_of(self._root, *_CLASSES)
    for name in _CLASSES:
      for path in sorted((self._root / name).glob("*.jpeg")):
        key, number = f"{name}-{path.stem}", int(path.stem)
        for kind in self._ask if self._takes(name, number) else ():
          yield Placed((f"mednist-{key}-{kind}", path, kind), key, _split(name, number))

  def _takes(self, name: str, number: int) -> bool:
    first, end = self._numbers
    return first <= number / _CLASSES[name][2] < end


def _in_words(row: dict[str, Any]) -> dict[str, Any]:
  """A line that asks for a letter, as one that asks for what stands under it."""
  kept = {key: value for key, value in row.items() if key != "options"}
  name = row["id"].removesuffix("type") + "kind"
  return {**kept, "id": name, "answer": row["options"][row["answer"]], "answer_type": "closed"}


def _split(name: str, number: int) -> str:
  share = number / _CLASSES[name][2]
  return next((split for border, split in _BORDERS if share < border), "test")
