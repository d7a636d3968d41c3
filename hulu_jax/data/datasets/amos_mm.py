"""AMOS-MM: abdominal CT with reports by region, and questions made from them.

Layout, of era-ai-biomed.github.io/amos: `imagesTr/*.nii.gz`, `imagesVa/*.nii.gz`, and two lists,
`report_generation_train_val.json` and `vqa_train_val.json`: {"training": [{"image":
"./imagesTr/amos_0001.nii.gz", "labels": {"report": {"findings": {"chest", "abdomen", "pelvis"}},
"qa": [{"question", "options": {"A", ...}, "answer"}]}}], "validation": [...]}.

Example:
  {"id": "amos-amos_0001-abdomen", "group": "amos_0001", "answer_type": "open", "messages": [
    {"role": "user", "content": [
      {"type": "volume", "path": "/data/amos_mm/imagesTr/amos_0001.nii.gz", "modality": "CT"},
      {"type": "text", "text": "Report the findings in the abdomen on this CT."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "The liver is normal in ..."}]}]}
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed

CARD = _card.Card(
  title="AMOS-MM",
  licence="CC BY-ND 4.0, as the report file says",
  url="https://era-ai-biomed.github.io/amos/",
  kinds=("volume",),
  group="examination; patients are not known",
  split="published: train and validation; the test reports are not public",
  caveats=(
    "reports are translated from Chinese",
    "questions were made from reports by a language model",
    "no derivatives: prepared shards of it must not be passed on",
  ),
)
TASKS = {"report": "report_generation_train_val.json", "vqa": "vqa_train_val.json"}
_SPLITS = {"training": ("train", "imagesTr"), "validation": ("validation", "imagesVa")}
REGIONS = ("chest", "abdomen", "pelvis")

Item = tuple[str, Path, Mapping[str, Any]]


class Source(_source.Base[Item]):
  """One region of a report, or one question, a record.

  root: the folder of the set; split: train, validation or all; task: report or vqa.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: an unknown task, or a split without rows.
  """

  def __init__(self, *, root: str, split: str, task: str):
    if task not in TASKS:
      raise ValueError(f"task is {task!r}; expected one of {', '.join(TASKS)}")
    self._task, self._root = task, _source.folder(root)
    file = _source.first_of(self._root, TASKS[task])
    super().__init__(self._rows(_tables.load(file)), split, [file])

  def _record(self, item: Item) -> dict[str, Any]:
    name, path, row = item
    media = [_source.medium("volume", path, "CT")]
    question, answer = _tables.need(row, "question", "answer")
    if row.get("options"):
      made = _source.multiple_choice(name, question, row["options"], answer, media)
    else:
      made = {**_source.record(name, question, answer, media), "answer_type": "open"}
    return {**made, "group": _scan(path)}

  def _rows(self, lists: Mapping[str, Any]) -> Iterator[Placed[Item]]:
    for key, (split, folder) in _SPLITS.items():
      for case in lists.get(key, ()):
        path = self._root / folder / Path(case["image"]).name
        found = _findings(case) if self._task == "report" else case["labels"].get("qa", ())
        for number, row in enumerate(found):
          name = f"amos-{_scan(path)}-{row.get('region', number)}"
          yield Placed((name, path, row), _scan(path), split)


def _findings(case: Mapping[str, Any]) -> Iterator[dict[str, str]]:
  findings = case["labels"]["report"]["findings"]
  for region in REGIONS:
    if text := (findings.get(region) or "").strip():
      question = f"Report the findings in the {region} on this CT."
      yield {"region": region, "question": question, "answer": text}


def _scan(path: Path) -> str:
  return path.name.removesuffix(".nii.gz")
