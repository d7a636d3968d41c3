"""What the datasets on a user's disk share: choosing rows by split, and making records of them."""

import abc
from collections.abc import Iterable, Mapping, Sequence
import hashlib
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from hulu_jax.data import splits
from hulu_jax.data.datasets import _tables
from hulu_jax.media.errors import BadRecord

T = TypeVar("T")

# What comes after the options of a question, as in spec 9.2.
LETTER = "Answer with the option's letter from the given choices directly."
LETTERS = "ABCDEFGHIJ"
# Ends of the names of image files.
PICTURES = (".png", ".jpg", ".jpeg")


class Placed(NamedTuple, Generic[T]):
  """A row before its split is chosen.

  item: what `Base._record` turns into a record; key: of the patient, or of the row where the
  patient is not known; published: the split its authors gave it, None if they gave none.
  """

  item: T
  key: str
  published: str | None = None


class Base(abc.ABC, Generic[T]):
  """A dataset of one split; safe to call from several threads.

  files: what the rows were made from, not the media they name: while a run goes on, a change of
    these stops it (see `fingerprint`).
  lengths: None; a set is measured once it is prepared.
  left_out: rows of the authors' split whose patient is also in a stricter one (see
    `splits.choose`).
  """

  lengths = None

  def __init__(self, rows: Iterable[Placed[T]], split: str, files: Iterable[Path]):
    rows, self.files = list(rows), tuple(files)
    if not rows:
      raise ValueError("no rows at all; is root the folder of this set?")
    published = [row.published for row in rows if row.published is not None]
    if published and len(published) < len(rows):
      raise ValueError(f"{len(rows) - len(published)} of {len(rows)} rows have no published split")
    chosen, self.left_out = splits.choose([row.key for row in rows], published or None, split)
    self._items = [rows[i].item for i in chosen]

  def __len__(self) -> int:
    return len(self._items)

  def __getitem__(self, index: int) -> dict[str, Any] | BadRecord:
    """The record {"id", "messages", ...}, or why there is none: the pipeline counts and skips it.

    Beside these a record may have `group` (the patient), `options`, `answer`, `answer_type`
    (closed, open or mcq), `license`, and `derived` (a question made from labels by a rule).
    """
    if not 0 <= index < len(self._items):
      raise IndexError(f"record {index} of a dataset of {len(self._items)}")
    try:
      return self._record(self._items[index])
    except BadRecord as bad:
      return bad

  @abc.abstractmethod
  def _record(self, item: T) -> dict[str, Any]:
    """The record of an item.  Raises BadRecord if there is none."""


def folder(root: str) -> Path:
  """The folder of a set, absolute: media paths must lead below the experiment's `data.root`.

  Raises:
    FileNotFoundError: it is not there.
  """
  path = Path(root).absolute()
  if not path.is_dir():
    raise FileNotFoundError(f"root = {root}: no such folder")
  return path


def first_of(root: Path, *names: str) -> Path:
  """The first of these files or folders that is there.

  Raises:
    FileNotFoundError: none is.
  """
  for name in names:
    if (root / name).exists():
      return root / name
  raise FileNotFoundError(f"{root}: none of {', '.join(names)}; is it the folder of this set?")


def medium(kind: str, path: Path | str, modality: str | None = None) -> dict[str, Any]:
  """A content item for a file."""
  item = {"type": kind, "path": str(path)}
  return item if modality is None else {**item, "modality": modality}


def record(
  name: str, question: str, answer: str, media: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
  """One question about media and its answer, as published.

  Raises:
    BadRecord: a question or an answer without text.
  """
  if not question.strip() or not answer.strip():
    raise BadRecord("format", "a question or an answer without text")
  return {
    "id": name,
    "messages": [
      {"role": "user", "content": [*media, {"type": "text", "text": question}]},
      {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ],
    "answer": answer,
  }


def choices(question: str, options: Mapping[str, str], ending: str = LETTER) -> str:
  """A question with its options, one a line, and how to answer.

  Raises:
    BadRecord: fewer than two options.
  """
  if len(options) < 2:
    raise BadRecord("format", f"{len(options)} options; expected at least 2")
  listed = [f"{letter}. {text}" for letter, text in options.items()]
  return "\n".join([question, *listed, ending])


def shuffled(name: str, titles: Iterable[str]) -> dict[str, str]:
  """Titles under letters, in an order that only the record's name decides."""
  hashed = {hashlib.sha256(f"{name}/{title}".encode()).digest(): title for title in titles}
  return dict(zip(LETTERS, (hashed[digest] for digest in sorted(hashed)), strict=False))


def multiple_choice(
  name: str,
  question: str,
  options: Mapping[str, str],
  answer: str,
  media: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
  """A question with options, answered by the letter of one.

  Raises:
    BadRecord: the answer is no letter of an option.
  """
  if answer not in options:
    raise BadRecord("format", f"an answer that is none of the options {', '.join(options)}")
  made = record(name, choices(question, options), answer, media)
  return {**made, "options": dict(options), "answer_type": "mcq"}


def explained(made: dict[str, Any], explanation: str) -> dict[str, Any]:
  """The record with its explanation before the answer."""
  text = f"{explanation.strip()}\n\nAnswer: {made['answer']}"
  asked = made["messages"][0]
  told = {"role": "assistant", "content": [{"type": "text", "text": text}]}
  return {**made, "messages": [asked, told], "explanation": explanation}


def from_qa_line(row: Mapping[str, Any], root: Path) -> dict[str, Any]:
  """A line of QA as the shared excerpts write it, media by path relative to its file.

  {"id", "image" | "volume" | "video", "question", "options"?, "answer", "answer_type", "group"?,
  "derived"?, "license"?}

  Raises:
    BadRecord: a field is missing, or the answer is none of the options.
  """
  name, question, answer = _tables.need(row, "id", "question", "answer")
  kinds = [kind for kind in ("image", "volume", "video") if row.get(kind)]
  modality = row.get("modality_code") or code(row.get("modality"))
  media = [medium(kind, root / row[kind], modality) for kind in kinds]
  if row.get("options"):
    made = multiple_choice(name, question, row["options"], answer, media)
  else:
    made = record(name, question, answer, media)
  kept = ("group", "answer_type", "derived", "license")
  return {**made, **{key: row[key] for key in kept if row.get(key) is not None}}


# DICOM's codes (PS3.3 C.7.3.1.1.1) for what sets call a modality in words.  A radiograph is CR or
# DX, which a word does not say.
_CODES = {
  "ct": "CT",
  "mr": "MR",
  "mri": "MR",
  "lung ultrasound": "US",
  "microscopy (stained blood smear)": "GM",
}


def code(modality: str | None) -> str | None:
  """DICOM's code for a modality in words, None where the word does not tell."""
  return None if modality is None else _CODES.get(modality.lower())
