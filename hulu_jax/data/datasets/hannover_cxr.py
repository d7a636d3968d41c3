"""Hannover COVID-19 radiographs: which way the X-rays went.

Layout, of github.com/ml-workgroup/covid-19-image-repository: `data.csv` (`patient_id`, `image_id`,
`modality`, `projection`, ...) and `png/<image_id>.png`.  A folder with `qa.jsonl` and `images/` is
read as it is.

Example:
  {"id": "hannover-a2eba651", "group": "57f37ffa", "derived": true, "messages": [
    {"role": "user", "content": [
      {"type": "image", "path": "/data/hannover/png/a2eba651.png", "modality": "DX"},
      {"type": "text", "text": "Was this chest radiograph taken in anteroposterior (AP) or ..."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "PA"}]}]}
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="COVID-19 Image Repository, Hannover Medical School",
  licence="CC BY 3.0",
  url="https://doi.org/10.6084/m9.figshare.12275009",
  kinds=("image",),
  group="patient",
  split="by patient",
  caveats=(
    _card.DERIVED,
    "adult COVID-19 in-patients of one hospital",
    "bedside radiographs are AP, so lines and tubes give the projection away",
  ),
)
_QUESTION = (
  "Was this chest radiograph taken in anteroposterior (AP) or posteroanterior (PA) projection?"
)

Line = Mapping[str, Any]


class Source(_source.Base[Line]):
  """One question a radiograph whose projection is AP or PA.

  root: the folder of the set; split: train, validation, test or all.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows.
  """

  def __init__(self, *, root: str, split: str):
    self._root = _source.folder(root)
    file = _source.first_of(self._root, "qa.jsonl", "data.csv")
    found = _tables.objects(file) if file.suffix == ".jsonl" else _published(file)
    super().__init__((Placed(row, row["group"]) for row in found), split, [file])

  def _record(self, item: Line) -> dict[str, Any]:
    return _source.from_qa_line(item, self._root)


def _published(table: Path) -> Iterator[dict[str, Any]]:
  for row in _tables.small(table, ("patient_id", "image_id", "modality", "projection")):
    if row["projection"].upper() in ("AP", "PA"):
      yield {
        "id": f"hannover-{row['image_id']}",
        "image": f"png/{row['image_id']}.png",
        "question": _QUESTION,
        "answer": row["projection"].upper(),
        "answer_type": "closed",
        "group": row["patient_id"],
        "modality_code": row["modality"],
        "derived": True,
      }
