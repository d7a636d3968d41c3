"""PathVQA: questions made from captions of pathology textbooks and of a digital library.

Layout, of github.com/UCSD-AI4H/PathVQA (`pvqa`): `images/{train,val,test}/<image>.jpg`, and
`qas/{train,val,test}/{train,val,test}_qa.pkl`, lists of {"image", "question", "answer"}.  Pickles
can run code and Parquet needs a package of its own, so neither is read: write each list once as
`{train,val,test}_qa.json` where the .pkl lies, with whatever opened it (`json.dump(rows, file)`).

Example:
  {"id": "pathvqa-train-17", "group": "train_0422", "answer_type": "open", "messages": [
    {"role": "user", "content": [
      {"type": "image", "path": "/data/pvqa/images/train/train_0422.jpg"},
      {"type": "text", "text": "Where are liver stem cells (oval cells) located?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "in the canals of hering"}]}]}
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="PathVQA",
  licence="MIT for the questions; the images belong to the books and the library",
  url="https://github.com/UCSD-AI4H/PathVQA",
  kinds=("image",),
  group="image; patients are not known",
  split="published",
  caveats=(
    "questions were made from captions by a program: some ask what the image does not show",
    "yes and no are not balanced over question types",
    "probably part of Hulu-Med's own training mix",
  ),
)
_FILES = {"train": "train", "val": "validation", "test": "test"}

Item = tuple[str, str, dict[str, Any]]


class Source(_source.Base[Item]):
  """One question a row.

  root: the folder of the set; split: train, validation, test or all.

  Raises:
    FileNotFoundError: it is not the folder of this set, or has its lists in another format.
    ValueError: a split without rows.
  """

  def __init__(self, *, root: str, split: str):
    self._root = _source.folder(root)
    lists = {file: _list_of(self._root, file) for file in _FILES}
    super().__init__(_rows(lists), split, lists.values())

  def _record(self, item: Item) -> dict[str, Any]:
    name, folder, row = item
    image, question, answer = _tables.need(row, "image", "question", "answer")
    media = [_source.medium("image", self._root / "images" / folder / f"{image}.jpg")]
    made = _source.record(name, question, str(answer), media)
    closed = made["answer"].strip().lower() in ("yes", "no")
    return {**made, "group": str(image), "answer_type": "closed" if closed else "open"}


def _rows(lists: Mapping[str, Path]) -> Iterator[Placed[Item]]:
  for file, path in lists.items():
    for number, row in enumerate(_tables.listing(path)):
      yield Placed((f"pathvqa-{file}-{number}", file, row), str(row.get("image")), _FILES[file])


def _list_of(root: Path, file: str) -> Path:
  places = [root / f"qas/{file}/{file}_qa.json", root / f"qas/{file}_qa.json"]
  for place in places:
    if place.is_file():
      return place
  other = "pickles" if any(p.with_suffix(".pkl").is_file() for p in places) else "nothing"
  raise FileNotFoundError(
    f"{root}: found {other} where qas/{file}/{file}_qa.json should be; write each list of "
    "{image, question, answer} once as JSON: neither pickles nor Parquet are read"
  )
