"""SLAKE: physicians' questions about CT, MR and X-ray images, in English and Chinese.

Layout, of med-vqa.com/slake (`Slake1.0`) and of the dataset BoKelvin/SLAKE: `train.json`,
`validate.json` (or `validation.json`) and `test.json`, lists of {"img_id",
"img_name", "question", "answer", "q_lang", "modality", "answer_type", "qid", ...}, and
`imgs/<img_name>`, such as `imgs/xmlab0/source.jpg`.

Example:
  {"id": "slake-0", "group": "1", "answer_type": "open", "messages": [
    {"role": "user", "content": [
      {"type": "image", "path": "/data/Slake1.0/imgs/xmlab1/source.jpg", "modality": "MR"},
      {"type": "text", "text": "What modality is used to take this image?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "MRI"}]}]}
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="SLAKE 1.0",
  licence="CC BY 4.0; the images keep those of MSD, CHAOS and ChestX-ray8",
  url="https://www.med-vqa.com/slake/",
  kinds=("image",),
  group="image; patients are not known, and slices of one volume may be in two splits",
  split="published",
  caveats=(
    "many questions are templates, and some can be answered from the question alone",
    "probably part of Hulu-Med's own training mix",
  ),
)
# Split -> names of its list.
_FILES = {
  "train": ("train.json",),
  "validation": ("validate.json", "validation.json"),
  "test": ("test.json",),
}
LANGUAGES = ("en", "zh")


class Source(_source.Base[Mapping[str, Any]]):
  """One question a row.

  root: the folder of the set; split: train, validation, test or all; languages: of en and zh.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: an unknown language, or a split without rows.
  """

  def __init__(self, *, root: str, split: str, languages: Sequence[str]):
    if unknown := sorted(set(languages) - set(LANGUAGES)):
      raise ValueError(f"languages {unknown}; there are {', '.join(LANGUAGES)}")
    self._root = _source.first_of(_source.folder(root), "train.json", "Slake1.0/train.json").parent
    files = {_source.first_of(self._root, *names): part for part, names in _FILES.items()}
    super().__init__(_rows(files, languages), split, files)

  def _record(self, item: Mapping[str, Any]) -> dict[str, Any]:
    name, image, question, answer = _tables.need(item, "qid", "img_name", "question", "answer")
    modality = _source.code(item.get("modality"))
    media = [_source.medium("image", self._root / "imgs" / image, modality)]
    made = _source.record(f"slake-{name}", question, str(answer), media)
    kind = str(item.get("answer_type", "")).strip().lower()
    return {**made, "group": str(item.get("img_id")), **({"answer_type": kind} if kind else {})}


def _rows(
  files: Mapping[Path, str], languages: Sequence[str]
) -> Iterator[Placed[Mapping[str, Any]]]:
  for path, split in files.items():
    for row in _tables.listing(path):
      if row.get("q_lang") in languages:
        yield Placed(row, str(row.get("img_id")), split)
