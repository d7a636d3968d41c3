"""CasiMedicos: Spanish resident exams with doctors' explanations, in four languages.

Layout, of the dataset HiTZ/casimedicos-exp (README, "Data"):
`data/<language>/<language>_{train,dev,test}_casimedicos.jsonl`, a line {"id", "full_question",
"options": {"1": ..., "5": ...}, "correct_option", "full_answer", "type", ...}.  A folder with
`casimedicos_<language>.jsonl` is read as it is.

Example:
  {"id": "casimedicos-en-train-0", "group": "train-0", "answer": "4", "messages": [
    {"role": "user", "content": [{"type": "text", "text": "A 27-year-old woman under study in ...
      \n1. Capsule endoscopy.\n2. Colonoscopy.\n...\nAnswer with the number of the right ..."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "4"}]}]}
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed
from hulu_jax.media.errors import BadRecord

CARD = _card.Card(
  title="Antidote CasiMedicos",
  licence="CC BY 4.0",
  url="https://huggingface.co/datasets/HiTZ/casimedicos-exp",
  kinds=("text",),
  group="question, over all languages",
  split="published",
  caveats=(
    "English, French and Italian are machine translations of the Spanish, revised by people",
    "an explanation names options by number",
  ),
)
# How to answer, per language.
_ENDINGS = {
  "en": "Answer with the number of the right option.",
  "es": "Responda con el número de la opción correcta.",
  "fr": "Répondez par le numéro de la bonne option.",
  "it": "Rispondi con il numero dell'opzione corretta.",
}
_FILES = {"train": "train", "dev": "validation", "test": "test"}


class Source(_source.Base[Mapping[str, Any]]):
  """One question a line.

  root: the folder of the set; split: train, validation, test or all; languages: of en, es, fr, it;
  explain: whether the doctors' explanation stands before the number.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: an unknown language, or a split without rows.
  """

  def __init__(self, *, root: str, split: str, languages: Sequence[str], explain: bool):
    if unknown := sorted(set(languages) - set(_ENDINGS)):
      raise ValueError(f"languages {unknown}; there are {', '.join(_ENDINGS)}")
    self._explain = explain
    folder = _source.folder(root)
    files: list[Path] = []
    rows: list[Placed[Mapping[str, Any]]] = []
    for lang in languages:
      if any(folder.glob("casimedicos_*.jsonl")):
        files.append(folder / f"casimedicos_{lang}.jsonl")
        rows += _lines(files[-1], lang)
      else:
        found = _published_files(folder, lang)
        files += found
        rows += _published(found, lang)
    super().__init__(rows, split, files)

  def _record(self, item: Mapping[str, Any]) -> dict[str, Any]:
    question, options, answer = _tables.need(item, "question", "options", "answer")
    shown = {key: text for key, text in options.items() if text}
    if answer not in shown:
      raise BadRecord("format", f"an answer that is none of the options {', '.join(shown)}")
    asked = _source.choices(question, shown, _ENDINGS[item["lang"]])
    made = _source.record(item["id"], asked, answer)
    made |= {"options": shown, "answer_type": "mcq", "group": item["group"]}
    return _source.explained(made, *_tables.need(item, "explanation")) if self._explain else made


def _lines(file: Path, language: str) -> Iterator[Placed[Mapping[str, Any]]]:
  for row in _tables.objects(file):
    group = row["id"].removeprefix(f"casimedicos-{language}-")
    split = _FILES[group.rsplit("-", 1)[0]]
    yield Placed({**row, "group": group}, group, split)


def _published_files(folder: Path, language: str) -> dict[Path, str]:
  folder = _source.first_of(folder, f"data/{language}", language)
  return {folder / f"{language}_{file}_casimedicos.jsonl": file for file in _FILES}


def _published(files: Mapping[Path, str], language: str) -> Iterator[Placed[Mapping[str, Any]]]:
  for path, file in files.items():
    for row in _tables.objects(path):
      group = f"{file}-{row.get('id')}"
      found = {
        "id": f"casimedicos-{language}-{group}",
        "group": group,
        "lang": language,
        "question": row.get("full_question"),
        "options": row.get("options"),
        "answer": str(row.get("correct_option")),
        "explanation": row.get("full_answer"),
      }
      yield Placed(found, group, _FILES[file])
