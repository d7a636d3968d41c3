"""VQA-RAD: clinicians' questions about radiology images of MedPix.

Layout, of osf.io/89kps: `VQA_RAD Dataset Public.json` (a list of {"qid", "image_name",
"image_case_url", "question", "answer", "answer_type", "phrase_type", ...}) and
`VQA_RAD Image Folder/*.jpg`.  A folder with `qa.jsonl` and `images/` is read as it is.

The authors' test set (451 questions, `phrase_type` test_freeform and test_para) is about images
that their training set also asks of.  So `train` leaves out every case that the test set shows, and
`test` is the authors' own.

Example:
  {"id": "vqarad-16", "group": "42202", "answer_type": "closed", "messages": [
    {"role": "user", "content": [
      {"type": "image", "path": "/data/vqa_rad/VQA_RAD Image Folder/synpic42202.jpg"},
      {"type": "text", "text": "Is there a pneumothorax?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "no"}]}]}
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="VQA-RAD",
  licence="CC0 1.0; the images are MedPix's",
  url="https://osf.io/89kps/",
  kinds=("image",),
  group="case, the image where none is given",
  split="published test; train without the test's cases",
  caveats=(
    "the published training set shows images of the test set: scores trained on it are not "
    "comparable",
    "a third of the questions are other wordings of another",
    "probably part of Hulu-Med's own training mix",
  ),
)
_PUBLIC = "VQA_RAD Dataset Public.json"

Line = Mapping[str, Any]


class Source(_source.Base[Line]):
  """One question a row.

  root: the folder of the set; split: train, test or all.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows.
  """

  def __init__(self, *, root: str, split: str):
    self._root = _source.folder(root)
    file = _source.first_of(self._root, "qa.jsonl", _PUBLIC)
    if file.suffix == ".jsonl":
      found = _tables.objects(file)
    else:
      found = _published(_tables.listing(file))
    super().__init__(
      (Placed(row, row["group"], row["source_split"]) for row in found), split, [file]
    )

  def _record(self, item: Line) -> dict[str, Any]:
    return _source.from_qa_line(item, self._root)


def _published(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
  for row in rows:
    image = str(row.get("image_name"))
    answer = row.get("answer")  # of some a number
    yield {
      "id": f"vqarad-{row.get('qid')}",
      "image": f"VQA_RAD Image Folder/{image}",
      "question": row.get("question"),
      "answer": None if answer is None else str(answer),
      "answer_type": str(row.get("answer_type", "")).strip().lower() or None,
      "group": str(row.get("image_case_url") or image),
      "source_split": "test" if str(row.get("phrase_type")).startswith("test") else "train",
    }
