"""POCUS lung ultrasound clips with two doctors' comments, as questions about signs and diagnosis.

Layout, of github.com/jannisborn/covid19_ultrasound, `data/`: `dataset_metadata.csv` and
`pocus_videos/{convex,linear}/<Filename>.<mp4, mov, avi, mpeg, gif>`.  A folder with `qa.jsonl` and
`clips/` is read as it is.

Example:
  {"id": "pocus-Cov_convex_volpecelli_sonographic_v1.mov-b-lines", "group": "patient-134",
   "license": "CC BY 4.0", "derived": true, "messages": [
    {"role": "user", "content": [
      {"type": "video", "path": "/data/pocus_videos/convex/Cov_convex_....mov", "modality": "US"},
      {"type": "text", "text": "Are B-lines visible in this lung ultrasound clip? ..."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]}
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
import re
from typing import Any, NamedTuple

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="POCUS lung ultrasound",
  licence="per clip, in `license`: CC BY 4.0, CC BY 2.0, CC BY-NC 4.0 and others",
  url="https://github.com/jannisborn/covid19_ultrasound",
  kinds=("video",),
  group="patient; the clip where none is given",
  split="by patient",
  caveats=(
    _card.DERIVED,
    "diagnoses come from different sites and probes, which tell them apart without the lung",
    "a diagnosis is not to be seen in one clip; a few dozen patients in all",
  ),
)
_DIAGNOSES = {
  "COVID-19": "COVID-19 pneumonia",
  "Viral pneumonia": "viral pneumonia",
  "Bacterial pneumonia": "bacterial pneumonia",
  "regular": "healthy lung",
}


class Sign(NamedTuple):
  """column: its flag; words: in a comment that name it; question: what is asked."""

  column: str
  words: str
  question: str


_SIGNS = (
  Sign("B-lines", r"b-?\s?li", "Are B-lines visible in this lung ultrasound clip?"),
  Sign("Consolidations", r"consolidat", "Is a lung consolidation visible in this ultrasound clip?"),
  Sign(
    "Pleural line irregularities",
    r"pleura",
    "Is the pleural line irregular in this ultrasound clip?",
  ),
)
_COMMENTS = ("Comments first medical doctor (MD1)", "MD2")
_PATIENT = "Patient ID / Name"
_FLAGS = tuple(sign.column for sign in _SIGNS)
_COLUMNS = ("Filename", "Label", "License", "Type", _PATIENT, *_COMMENTS, *_FLAGS)
# A shorter comment is a word, not a description.
_MIN_COMMENT = 10

Line = Mapping[str, Any]


class Source(_source.Base[Line]):
  """Up to five questions a clip.

  root: the folder of the set; split: train, validation, test or all.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows.
  """

  def __init__(self, *, root: str, split: str):
    self._root = _source.folder(root)
    names = ("qa.jsonl", "dataset_metadata.csv", "data/dataset_metadata.csv")
    file = _source.first_of(self._root, *names)
    self._root = file.parent
    rows = _tables.objects(file) if file.suffix == ".jsonl" else self._published(file)
    super().__init__((Placed(row, row["group"]) for row in rows), split, [file])

  def _record(self, item: Line) -> dict[str, Any]:
    return _source.from_qa_line(item, self._root)

  def _published(self, table: Path) -> Iterator[dict[str, Any]]:
    clips = {path.stem: path for path in sorted((self._root / "pocus_videos").rglob("*.*"))}
    for row in _tables.small(table, _COLUMNS):
      path = clips.get(row["Filename"], clips.get(Path(row["Filename"]).stem))
      if row["Type"] == "video" and path is not None:
        yield from questions(row, str(path.relative_to(self._root)))


def questions(row: Mapping[str, str], clip: str) -> Iterator[dict[str, Any]]:
  """The questions about one clip; row: of the table; clip: its path.

  A sign is asked where its flag is 0 or 1; not where it is 0 and a doctor's comment names it.
  """
  name = f"pocus-{Path(clip).name}"
  patient = row[_PATIENT].strip()
  common = {
    "video": clip,
    "modality": "lung ultrasound",
    "group": f"patient-{patient}" if patient else f"clip-{Path(clip).name}",
    "license": row["License"],
    "derived": True,
  }
  comments = [row[column].strip() for column in _COMMENTS]
  if row["Label"] in _DIAGNOSES:
    options = _source.shuffled(name, _DIAGNOSES.values())
    right = next(k for k, title in options.items() if title == _DIAGNOSES[row["Label"]])
    question = "Which diagnosis fits this lung ultrasound clip best?"
    made = {"id": f"{name}-dx", "question": question, "options": options, "answer": right}
    yield {**common, **made, "answer_type": "mcq"}
  for sign in _SIGNS:
    flag = row[sign.column].strip()
    named = any(re.search(sign.words, comment, re.IGNORECASE) for comment in comments)
    if flag == "1" or (flag == "0" and not named):
      yield {
        **common,
        "id": f"{name}-{sign.column.split()[0].lower()}",
        "question": f"{sign.question} Answer yes or no.",
        "answer": "yes" if flag == "1" else "no",
        "answer_type": "closed",
      }
  if told := next((c for c in comments if len(c) >= _MIN_COMMENT), None):
    question = "Describe the main sonographic findings in this lung ultrasound clip."
    made = {"id": f"{name}-desc", "question": question, "answer": told}
    yield {**common, **made, "answer_type": "open"}
