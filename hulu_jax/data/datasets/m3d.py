"""M3D: 3D scans of Radiopaedia cases with their reports (M3D-Cap) and questions (M3D-VQA).

Layout, of github.com/BAAI-DCAI/M3D (README, "Data"; `LaMed/src/dataset/multi_dataset.py`), all in
one folder:
- `M3D_Cap/M3D_Cap.json` or `M3D_Cap_npy/M3D_Cap.json`: {"train": [{"image", "text"}],
  "validation", "test500", "test1k", ...}, with paths relative to `root`;
- `M3D-VQA/M3D_VQA_{train,val,test}.csv` and `M3D_VQA_yn_{train,val,test}.csv`: `Image Path`,
  `Text`, `Question Type`, `Question`, `Choice A` to `Choice D`, `Answer`, `Answer Choice`.
An image is a folder of numbered PNG or JPEG slices, or the .npy that the authors' script makes of
it (float [1, 32, 256, 256], 0 to 1); where one is named, the other serves too.

Example:
  {"id": "m3d-vqa-train-12", "group": "ct_quizze/000007", "answer": "B", "messages": [
    {"role": "user", "content": [
      {"type": "volume", "frames": <uint8 [32, 256, 256, 1]>},
      {"type": "text", "text": "What is the plane of this CT?\nA. Axial\nB. Coronal\n..."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "B"}]}]}
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hulu_jax import media as media_lib
from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed
from hulu_jax.media import sampling
from hulu_jax.media.errors import BadRecord

CARD = _card.Card(
  title="M3D-Cap and M3D-VQA",
  licence="Apache-2.0 on its hub pages; the cases are Radiopaedia's (CC BY-NC-SA)",
  url="https://github.com/BAAI-DCAI/M3D",
  kinds=("volume",),
  group="case",
  split="published; train without the cases of validation and test",
  caveats=(
    "slices are windowed 8-bit pictures: no Hounsfield units, spacing or orientation",
    "questions and answers were written by a language model from reports; the test set was "
    "checked by another",
    "the cases are teaching cases: rare findings are common",
    "probably part of Hulu-Med's own training mix",
  ),
)
TASKS = ("caption", "vqa", "yes_no")
_FILES = {"train": "train", "val": "validation", "test": "test"}
_COLUMNS = ("Image Path", "Question", "Answer")
_SIDES = ("M3D_Cap", "M3D_Cap_npy")


class Report(NamedTuple):
  """A pair of image and text by path."""

  name: str
  row: dict[str, str]


class Question(NamedTuple):
  """A row of a table, by offset."""

  name: str
  table: _tables.Csv
  offset: int


class Source(_source.Base[Report | Question]):
  """One report or question a row.

  root: the folder of the set; split: train, validation, test or all; task: one of TASKS; frames:
  slices of a volume at most, evenly spaced.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: an unknown task, a table of other columns, or a split without rows.
  """

  def __init__(self, *, root: str, split: str, task: str, frames: int):
    if task not in TASKS:
      raise ValueError(f"task is {task!r}; expected one of {', '.join(TASKS)}")
    self._root, self._frames, self._task = _source.folder(root), frames, task
    if task == "caption":
      index = _source.first_of(self._root, *(f"{s}/M3D_Cap.json" for s in _SIDES), "M3D_Cap.json")
      super().__init__(_reports(index), split, [index])
    else:
      folder = _source.first_of(self._root, "M3D-VQA", "M3D_VQA")
      prefix = "M3D_VQA_yn" if task == "yes_no" else "M3D_VQA"
      named = {folder / f"{prefix}_{file}.csv": split for file, split in _FILES.items()}
      # The yes-no questions have fewer files than the others.
      files = {path: part for path, part in named.items() if path.is_file()}
      super().__init__(_questions(files), split, files)

  def _record(self, item: Report | Question) -> dict[str, Any]:
    name = f"m3d-{self._task}-{item.name}"
    if isinstance(item, Report):
      image, text = _tables.need(item.row, "image", "text")
      question = "Describe the findings of this scan."
      made = _source.record(name, question, self._text(text), self._volume(image))
      return {**made, "answer_type": "open", "group": _case(image)}
    row = item.table.at(item.offset)
    question, answer, media = row["Question"], row["Answer"], self._volume(row["Image Path"])
    options = {k: row[f"Choice {k}"] for k in "ABCD" if row.get(f"Choice {k}")}
    if options:
      right = row.get("Answer Choice", "").strip()
      made = _source.multiple_choice(name, question, options, right, media)
    else:
      kind = "closed" if self._task == "yes_no" else "open"
      made = {**_source.record(name, question, answer, media), "answer_type": kind}
    return {**made, "group": _case(row["Image Path"])}

  def _text(self, name: str) -> str:
    try:
      return self._found(name).read_text().strip()
    except UnicodeDecodeError:
      raise BadRecord("format", "a report that is not UTF-8") from None

  def _volume(self, name: str) -> list[Mapping[str, Any]]:
    path = self._found(name)
    frames = _array(path) if path.suffix == ".npy" else _slices(path, self._frames)
    taken = sampling.by_count(len(frames), self._frames)
    return [{"type": "volume", "frames": frames[taken]}]

  def _found(self, name: str) -> Path:
    """The file of that name, or of the other side: as slices, or as .npy."""
    others = [name.replace(a, b, 1) for a in _SIDES for b in _SIDES if name.startswith(f"{a}/")]
    for path in (self._root / other for other in (name, *others)):
      for place in (path, path.with_suffix("") if path.suffix == ".npy" else _npy(path)):
        if not place.resolve().is_relative_to(self._root.resolve()):
          raise BadRecord("path", "a path that leaves the folder of the set")
        if place.exists():
          return place
    raise BadRecord("missing", "no such file or folder, neither as slices nor as .npy")


def _reports(index: Path) -> Iterator[Placed[Report | Question]]:
  lists = _tables.load(index)
  # test500, test1k, ... are parts of one another: the largest is the test set.
  tests = sorted((key for key in lists if key.startswith("test")), key=lambda k: len(lists[k]))
  named = {"train": "train", "validation": "validation", **{key: "test" for key in tests[-1:]}}
  for key, split in named.items():
    for number, row in enumerate(lists.get(key, ())):
      yield Placed(Report(f"{split}-{number}", row), _case(str(row.get("image"))), split)


def _questions(files: Mapping[Path, str]) -> Iterator[Placed[Report | Question]]:
  for path, split in files.items():
    table = _tables.Csv(path, _COLUMNS)
    for number, (offset, row) in enumerate(table.scan()):
      name = f"{split}-{number}"
      key = name if isinstance(row, BadRecord) else _case(row["Image Path"])
      yield Placed(Question(name, table, offset), key, split)


def _npy(path: Path) -> Path:
  return path.with_name(path.name + ".npy")


def _case(image: str) -> str:
  """ "ct_quizze/000007" of "M3D_Cap/ct_quizze/000007/Axial_C"."""
  return "/".join(Path(image).parts[-3:-1])


def _array(path: Path) -> np.ndarray:
  """uint8 [T, H, W, 1] of the authors' float [1, T, H, W] in 0 to 1."""
  try:
    values = np.load(path, allow_pickle=False)
  except (ValueError, OSError) as error:
    raise BadRecord("format", f"a damaged .npy file ({type(error).__name__})") from None
  if values.ndim != 4 or len(values) != 1 or values.dtype.kind != "f":
    raise BadRecord("geometry", f"{values.dtype} {values.shape}; expected float [1, T, H, W]")
  if not (values.min() >= 0 and values.max() <= 1):
    raise BadRecord("geometry", "values outside 0 to 1, where the authors' script leaves them")
  return np.round(values[0, ..., None] * 255).astype(np.uint8)


def _slices(folder: Path, most: int) -> np.ndarray:
  """uint8 [T, H, W, 1]: at most so many of the numbered slices of a folder, evenly spaced."""
  paths = [p for p in folder.iterdir() if p.suffix.lower() in _source.PICTURES and p.stem.isdigit()]
  if not paths:
    raise BadRecord("empty", "a folder without numbered slices; expected 0.png, 1.png, ...")
  paths.sort(key=lambda path: int(path.stem))
  taken = [paths[i] for i in sampling.by_count(len(paths), most)]
  frames = [media_lib.read(path).frames for path in taken]
  if len({frame.shape[1:3] for frame in frames}) > 1:
    raise BadRecord("geometry", "slices of several sizes in a folder; expected one")
  # JPEGs of grey scans are stored in colour; the channels are alike.
  return np.concatenate([np.round(frame.mean(-1, keepdims=True)) for frame in frames]).astype(
    np.uint8
  )
