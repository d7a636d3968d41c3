"""MedQuAD: questions and answers from pages of the US National Institutes of Health.

Layout, of github.com/abachaa/MedQuAD: `<n>_<source>_QA/<document>.xml` (and `8_NHLBI_QA_XML`), each
with `QAPairs/QAPair` of `Question` (`qid`, `qtype`) and `Answer`.  Folders 10 to 12 have no answers
for copyright reasons and yield nothing.  A folder with `medquad*.jsonl` is read as it is.

Example:
  {"id": "medquad-1_CancerGov_QA/0000027_1-7", "group": "1_CancerGov_QA/0000027_1.xml",
   "answer_type": "open", "messages": [
    {"role": "user", "content": [{"type": "text", "text": "What is the outlook for Breast ...?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Certain factors affect ..."}]}]}
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="MedQuAD",
  licence="CC BY 4.0",
  url="https://github.com/abachaa/MedQuAD",
  kinds=("text",),
  group="document",
  split="by document",
  caveats=(
    "questions were written by a rule from the headings of a page",
    "written for patients, in the United States, before 2020",
    "probably part of Hulu-Med's own training mix",
  ),
)


class Source(_source.Base[Mapping[str, Any]]):
  """One record a question that has an answer.

  root: the folder of the set; split: train, validation, test or all.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows.
  """

  def __init__(self, *, root: str, split: str):
    folder = _source.folder(root)
    files = sorted(folder.glob("medquad*.jsonl"))
    found = _lines(files) if files else _published(files := _documents(folder))
    super().__init__((Placed(row, row["doc"]) for row in found), split, files)

  def _record(self, item: Mapping[str, Any]) -> dict[str, Any]:
    name, question, answer, document = _tables.need(item, "id", "question", "answer", "doc")
    # Documents of different folders have the same number, and so the same id in the excerpt.
    name = f"medquad-{document.removesuffix('.xml')}-{name.rpartition('-')[2]}"
    made = _source.record(name, question, answer)
    return {**made, "answer_type": "open", "group": document}


def _lines(files: list[Path]) -> Iterator[dict[str, Any]]:
  for path in files:
    yield from _tables.objects(path)


def _documents(root: Path) -> list[Path]:
  paths = sorted(root.glob("*_QA*/*.xml"))
  if not paths:
    raise FileNotFoundError(f"{root}: no *_QA*/*.xml; is it the folder of this set?")
  return paths


def _published(paths: list[Path]) -> Iterator[dict[str, Any]]:
  for path in paths:
    document = ElementTree.parse(path)
    for pair in document.iterfind("QAPairs/QAPair"):
      question, answer = ((pair.findtext(key) or "").strip() for key in ("Question", "Answer"))
      if question and answer:
        yield {
          "id": f"medquad-{pair.get('pid')}",
          "question": question,
          "answer": answer,
          "doc": f"{path.parent.name}/{path.name}",
        }
