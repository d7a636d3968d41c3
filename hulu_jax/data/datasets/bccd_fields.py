"""Platelets in fields of BCCD's blood smears that grow from a cell's surroundings to the whole.

A model that knows nothing does not learn from whole smears whether there is a platelet: a few of
352 patches show it.  So the first records show 2 x 2 patches around a cell, half of the cells
platelets, later ones more, at the scale of the whole picture.  The questions are those of `bccd`
and, for the kind and the place, others.  A check of the pipeline, not of medicine.

Layout, of github.com/Shenggan/BCCD_Dataset: as `bccd` reads it; boxes are in `Annotations/*.xml`,
or in `boxes.json` beside `qa.jsonl`, {"<image>": {"Platelets": [[xmin, ymin, xmax, ymax], ...]}}.

Example:
  {"id": "field-7", "group": "BloodImage_00003", "derived": true, "cell": "platelet", "messages": [
    {"role": "user", "content": [
      {"type": "image", "frames": <uint8 [1, 56, 56, 3]>},
      {"type": "text", "text": "Is at least one platelet visible in this blood smear image? ..."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}, ...]}
"""

from collections.abc import Iterable
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import bccd
from hulu_jax.media.errors import BadRecord

CARD = dataclasses.replace(
  bccd.CARD,
  title="BCCD, fields of its smears",
  caveats=(
    _card.DERIVED,
    "made to be learned from by a model that knows nothing, not to be scored on",
    "a platelet without a box is taken for none",
  ),
)
# Rows and columns of the whole picture in patches, and of the fields it grows through.  At this
# scale a platelet covers one to four patches.
WHOLE = (16, 22)
_FIELDS = ((2, 2), (4, 4), (8, 8), WHOLE)
_PATCH = 14
# When each field but the first comes in, as shares of `fade`.
_GROWN = (0.23, 0.65, 1.0)
# Fields with hardly more than one cell, of which it is asked which it is.
_SMALL = _FIELDS[:2]
# Share of records that show the largest field reached; the others one of the smaller.
_NEWEST = 0.7
# A platelet counts as shown when this share of its box is, and as not shown below the second; a
# field with a platelet in between is drawn again, so many times.
_SHOWN, _HIDDEN, _TRIES = 0.6, 0.1, 30
# Largest change of a colour's strength: stains differ from smear to smear.
_STAIN = 0.12

# Where in the field the cell's centre lies that it is drawn around, as shares of its sides.
_MIDDLE = (0.3, 0.7)

_YES_OR_NO = "Answer yes or no."
PRESENCE = f"Is at least one platelet visible in this blood smear image? {_YES_OR_NO}"
COUNT = "How many platelets are visible in this blood smear image? Answer with a number."
CELL = "Which cell is in the middle: platelet, white or red?"
_CELLS = {"Platelets": "platelet", "WBC": "white", "RBC": "red"}
_QUARTERS = ("upper left", "upper right", "lower left", "lower right")


class _Smear(NamedTuple):
  """path: of the picture; cells: boxes by kind, float [n, 4] of y0, x0, y1, x1 as shares."""

  name: str
  path: Path
  cells: dict[str, np.ndarray]

  @property
  def platelets(self) -> np.ndarray:
    return self.cells["Platelets"]


class _Place(NamedTuple):
  """smear: its number; start: row and column of the first patch; kind: of the cell it is for."""

  smear: int
  start: np.ndarray
  kind: str


class Source:
  """Fields with a platelet and without by turns; a pure function of (seed, index).

  root: the folder of the set; split: train, validation, test or all.
  seed: of everything drawn; size: number of records.
  fade: share of the records, from the first on, over which the field grows to the whole picture.
  field: rows and columns in patches that all records show instead, for a test; below WHOLE.

  Raises:
    BadRecord: a line of the set that cannot be read.
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows, a size below 1, or a fade outside 0 to 1.
  """

  def __init__(
    self,
    *,
    root: str,
    split: str,
    seed: int,
    size: int,
    fade: float,
    field: tuple[int, int] | None = None,
  ):
    if size < 1 or not 0 <= fade <= 1:
      raise ValueError(f"size is {size}, fade {fade}; expected 1 or more, and 0 to 1")
    smears = bccd.Source(root=root, split=split)
    found = {}
    for i in range(len(smears)):
      record = smears[i]
      if isinstance(record, BadRecord):
        raise record
      path = record["messages"][0]["content"][0]["path"]
      found[record["group"]] = Path(path)
    file = _source.folder(root) / "boxes.json"
    boxes = json.loads(file.read_text()) if file.is_file() else _published(file.parent, found)
    # Published boxes are among the files of `bccd` already.
    self.files, self.lengths = (*smears.files, *([file] if file.is_file() else ())), None
    self._smears = [_smear(name, path, boxes[name]) for name, path in found.items()]
    self._with = {
      kind: [i for i, smear in enumerate(self._smears) if len(smear.cells[kind])] for kind in _CELLS
    }
    self._without = [i for i, smear in enumerate(self._smears) if not len(smear.platelets)]
    self._seed, self._size, self._fade, self._only = seed, size, fade, field
    self._picture = functools.cache(self._read)

  def __len__(self) -> int:
    return self._size

  def __getitem__(self, i: int) -> dict[str, Any]:
    """{"id", "group", "derived", "cell", "messages"}; frames are uint8 [1, H, W, 3].

    cell: what the field was drawn around: platelet, white or red.
    """
    if not 0 <= i < self._size:
      raise IndexError(f"record {i} of a dataset of {self._size}")
    rng = np.random.default_rng((self._seed, i))
    field = self._only or self._field(rng, i)
    place = self._place(rng, field, "Platelets" if i % 2 == 0 else ("WBC", "RBC")[i // 2 % 2])
    smear = self._smears[place.smear]
    size, start = np.array(field), place.start
    shown = _inside(smear.platelets, start, size) >= _SHOWN
    centres = _centres(smear.platelets[shown]) * WHOLE - start
    rows, columns = (slice(s * _PATCH, (s + n) * _PATCH) for s, n in zip(start, size, strict=True))
    pixels = self._picture(place.smear)[rows, columns]
    pixels, centres = _turned(rng, pixels, centres / size)
    turns = _turns(rng, centres, place.kind if field in _SMALL else None)
    if field != WHOLE:  # one answer gives others away, and a small picture is soon shown again
      turns = turns[:1]
    return {
      "id": f"field-{i}",
      "group": smear.name,
      "derived": True,
      "cell": _CELLS[place.kind],
      "messages": _conversation(_stained(rng, pixels), turns),
    }

  def _field(self, rng: np.random.Generator, i: int) -> tuple[int, int]:
    grown = i / (self._size * self._fade) if self._fade else 1.0
    newest = sum(grown >= share for share in _GROWN)
    if newest and rng.random() >= _NEWEST:
      newest = int(rng.integers(newest))
    return _FIELDS[newest]

  def _place(self, rng: np.random.Generator, field: tuple[int, int], kind: str) -> _Place:
    """Where a cell of this kind is in a field, with no platelet in it unless that is the kind."""
    wanted = kind == "Platelets"
    room = np.array(WHOLE) - field + 1
    for _ in range(_TRIES):
      number = int(rng.choice(self._without if field == WHOLE and not wanted else self._with[kind]))
      smear = self._smears[number]
      cells = smear.cells[kind]
      start = np.zeros(2, int)
      if field != WHOLE:
        centre = _centres(cells[rng.integers(len(cells))][None])[0] * WHOLE
        start = np.round(centre - rng.uniform(*_MIDDLE, 2) * field).astype(int)
        start = np.clip(start, 0, room - 1)
      inside = _inside(smear.platelets, start, np.array(field))
      plain = np.all((inside >= _SHOWN) | (inside <= _HIDDEN)) or field == WHOLE
      if plain and bool(np.any(inside >= _SHOWN)) == wanted:
        break
    return _Place(number, start, kind)

  def _read(self, number: int) -> np.ndarray:
    """uint8 [H, W, 3] of the whole picture at the scale it is shown at."""
    with Image.open(self._smears[number].path) as picture:
      size = (WHOLE[1] * _PATCH, WHOLE[0] * _PATCH)
      return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def _published(root: Path, names: Iterable[str]) -> dict[str, dict[str, list[list[float]]]]:
  """Of each smear, by kind of cell: boxes of xmin, ymin, xmax, ymax in pixels."""
  folder = _source.first_of(root, "BCCD/Annotations", "Annotations")
  found = {}
  for name in names:
    kinds: dict[str, list[list[float]]] = {}
    for cell in ElementTree.parse(folder / f"{name}.xml").iterfind("object"):
      sides = [
        float(cell.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")
      ]
      kinds.setdefault(cell.findtext("name") or "", []).append(sides)
    found[name] = kinds
  return found


def _smear(name: str, path: Path, boxes: dict[str, list[list[float]]]) -> _Smear:
  with Image.open(path) as picture:
    width, height = picture.size

  def shares(kind: str) -> np.ndarray:
    sides = np.array(boxes.get(kind, []), np.float64).reshape(-1, 4)
    return sides[:, [1, 0, 3, 2]] / (height, width, height, width)

  return _Smear(name, path, {kind: shares(kind) for kind in _CELLS})


def _centres(boxes: np.ndarray) -> np.ndarray:
  return (boxes[:, :2] + boxes[:, 2:]) / 2


def _inside(boxes: np.ndarray, start: np.ndarray, size: np.ndarray) -> np.ndarray:
  """float [n]: the share of each box that lies in the field."""
  low, high = boxes[:, :2] * WHOLE, boxes[:, 2:] * WHOLE
  both = np.clip(np.minimum(high, start + size) - np.maximum(low, start), 0, None)
  return np.prod(both, axis=1) / np.maximum(np.prod(high - low, axis=1), 1e-9)


def _turned(
  rng: np.random.Generator, pixels: np.ndarray, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mirrored at random, squares turned too; centres [n, 2] are shares of the field."""
  for axis in (0, 1):
    if rng.random() < 0.5:
      pixels, centres = np.flip(pixels, axis), centres.copy()
      centres[:, axis] = 1 - centres[:, axis]
  if pixels.shape[0] == pixels.shape[1] and rng.random() < 0.5:
    pixels, centres = pixels.swapaxes(0, 1), centres[:, ::-1]
  return pixels, centres


def _stained(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
  strength = 1 + rng.uniform(-_STAIN, _STAIN, 3)
  return np.clip(pixels * strength + 0.5, 0, 255).astype(np.uint8)


def _turns(
  rng: np.random.Generator, centres: np.ndarray, middle: str | None
) -> list[tuple[str, str]]:
  """Questions and answers in any order; centres: of the platelets, as shares of the field; middle:
  the kind of cell in the middle, None where there are too many cells to ask for it."""
  turns = [(PRESENCE, "yes" if len(centres) else "no")]
  if middle is not None:
    turns.append((CELL, _CELLS[middle]))
  else:
    quarters = (centres[:, 0] >= 0.5) * 2 + (centres[:, 1] >= 0.5)
    quarter = int(rng.integers(4))
    if len(quarters) and rng.random() < 0.5:  # or three answers in four are no
      quarter = int(rng.choice(quarters))
    answer = "yes" if quarter in quarters else "no"
    turns.append((COUNT, str(len(centres))))
    turns.append((f"Is a platelet {_QUARTERS[quarter]}? {_YES_OR_NO}", answer))
  return [turns[k] for k in rng.permutation(len(turns))]


def _conversation(pixels: np.ndarray, turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
  messages: list[dict[str, Any]] = []
  for question, answer in turns:
    for role, text in (("user", question), ("assistant", answer)):
      messages.append({"role": role, "content": [{"type": "text", "text": text}]})
  messages[0]["content"].insert(0, {"type": "image", "frames": np.ascontiguousarray(pixels[None])})
  return messages
