"""BCCD: stained blood smears with boxes of cells, as questions about number and place.

Layout, of github.com/Shenggan/BCCD_Dataset (README, "Dataset structure"):
`BCCD/{JPEGImages/*.jpg, Annotations/*.xml, ImageSets/Main/{train,val,test}.txt}`; `root` is the
repository or its `BCCD`.  A folder with `qa.jsonl` and `images/` is read as it is.

Example:
  {"id": "bccd-BloodImage_00001-plt", "group": "BloodImage_00001", "derived": true, "messages": [
    {"role": "user", "content": [
      {"type": "image", "path": "/data/BCCD/JPEGImages/BloodImage_00001.jpg", "modality": "GM"},
      {"type": "text", "text": "Is at least one platelet visible in this blood smear image? ..."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "no"}]}]}
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
  title="BCCD",
  licence="MIT",
  url="https://github.com/Shenggan/BCCD_Dataset",
  kinds=("image",),
  group="image; patients are not known",
  split="published",
  caveats=(
    _card.DERIVED,
    "nearly every image shows one white cell, so its number is no test",
    "boxes of red cells are incomplete and are not asked",
  ),
)
_FILES = {"train": "train", "val": "validation", "test": "test"}
# A cell whose centre is nearer than this to the border of two thirds, in widths, is not asked.
_MARGIN = 0.04
_MODALITY = "microscopy (stained blood smear)"

Line = Mapping[str, Any]


class Source(_source.Base[Line]):
  """Up to four questions an image.

  root: the folder of the set; split: train, validation, test or all.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows.
  """

  def __init__(self, *, root: str, split: str):
    self._root = _source.folder(root)
    lines = self._root / "qa.jsonl"
    if lines.is_file():
      super().__init__(self._lines(lines), split, [lines])
    else:
      self._root = _source.first_of(self._root, "BCCD/JPEGImages", "JPEGImages").parent
      lists = [self._root / f"ImageSets/Main/{file}.txt" for file in _FILES]
      boxes = sorted((self._root / "Annotations").glob("*.xml"))
      super().__init__(self._published(), split, [*lists, *boxes])

  def _record(self, item: Line) -> dict[str, Any]:
    return {**_source.from_qa_line(item, self._root), "group": Path(item["image"]).stem}

  def _lines(self, file: Path) -> Iterator[Placed[Line]]:
    for row in _tables.objects(file):
      yield Placed(row, Path(row["image"]).stem, _FILES[row["source_split"]])

  def _published(self) -> Iterator[Placed[Line]]:
    for file, split in _FILES.items():
      for name in (self._root / f"ImageSets/Main/{file}.txt").read_text().split():
        tree = ElementTree.parse(self._root / f"Annotations/{name}.xml").getroot()
        for line in questions(name, tree):
          yield Placed({**line, "image": f"JPEGImages/{name}.jpg"}, name, split)


def questions(name: str, tree: ElementTree.Element) -> Iterator[dict[str, Any]]:
  """The questions of one image; tree: its boxes in the PASCAL VOC form.

  The number of white cells and of platelets, whether there is a platelet, and, of a single white
  cell, in which third it lies, unless its centre is near the border of two.
  """
  width = float(tree.findtext("size/width") or 0)
  boxes: dict[str, list[tuple[float, float]]] = {"WBC": [], "Platelets": []}
  for found in tree.iterfind("object"):
    sides = [float(found.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "xmax")]
    boxes.setdefault(found.findtext("name") or "", []).append((sides[0], sides[1]))
  white, platelets = boxes["WBC"], boxes["Platelets"]
  image = "in this blood smear image?"
  number = "Answer with a number."
  asked = [
    ("nwbc", f"How many white blood cells are visible {image} {number}", len(white), "open"),
    ("nplt", f"How many platelets are visible {image} {number}", len(platelets), "open"),
    (
      "plt",
      f"Is at least one platelet visible {image} Answer yes or no.",
      "yes" if platelets else "no",
      "closed",
    ),
  ]
  centre = sum(white[0]) / 2 / width if len(white) == 1 and width else None
  if centre is not None and min(abs(centre - 1 / 3), abs(centre - 2 / 3)) >= _MARGIN:
    third = "In which third of the image (left, center or right) is the white blood cell?"
    asked.append(("pos", third, ("left", "center", "right")[int(centre * 3)], "closed"))
  for kind, question, answer, answer_type in asked:
    yield {
      "id": f"bccd-{name}-{kind}",
      "question": question,
      "answer": str(answer),
      "answer_type": answer_type,
      "modality": _MODALITY,
      "derived": True,
    }
