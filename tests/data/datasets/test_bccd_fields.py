"""Fields of smears show what their answers say: checked by looking for painted cells."""

import json

import numpy as np
from PIL import Image
import pytest

from hulu_jax.data.datasets import bccd_fields

# Cells are painted so that no stain hides them: (y, x) of the centre, half a side, colour.
PAINT = {"Platelets": (255, 0, 0), "WBC": (0, 0, 255), "RBC": (0, 255, 0)}
HALF = {"Platelets": 20, "WBC": 80, "RBC": 45}
SMEARS = {
  "with": {"Platelets": [(60, 70), (400, 560)], "WBC": [(240, 320)], "RBC": [(100, 500)]},
  "without": {"Platelets": [], "WBC": [(300, 200)], "RBC": [(80, 300), (400, 500)]},
  "unseen": {"Platelets": [(240, 320)], "WBC": [], "RBC": []},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A miniature in the excerpt's form, 640 x 480 as the real pictures are."""
  root = tmp_path_factory.mktemp("bccd")
  (root / "images").mkdir()
  lines, boxes = [], {}
  for name, cells in SMEARS.items():
    pixels = np.full((480, 640, 3), 128, np.uint8)
    boxes[name] = {kind: [] for kind in cells}
    for kind in ("RBC", "WBC", "Platelets"):
      for y, x in cells[kind]:
        half = HALF[kind]
        pixels[max(0, y - half) : y + half, max(0, x - half) : x + half] = PAINT[kind]
        boxes[name][kind].append([x - half, y - half, x + half, y + half])
    Image.fromarray(pixels).save(root / f"images/{name}.png")
    line = {"id": f"bccd-{name}-plt", "question": "?", "answer": "yes"}
    split = "val" if name == "unseen" else "train"
    lines.append({**line, "image": f"images/{name}.png", "source_split": split})
  (root / "qa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  (root / "boxes.json").write_text(json.dumps(boxes))
  return root


@pytest.fixture(scope="module")
def source(folder):
  return bccd_fields.Source(root=str(folder), split="train", seed=3, size=600, fade=0.8)


def turns(record):
  """The picture, and question -> answer."""
  asked, told = record["messages"][::2], record["messages"][1::2]
  answers = {
    a["content"][-1]["text"]: b["content"][0]["text"] for a, b in zip(asked, told, strict=True)
  }
  return record["messages"][0]["content"][0]["frames"][0], answers


def red(frame):
  """bool [H, W]: a platelet's paint, under any stain."""
  frame = frame.astype(int)
  return (frame[..., 0] > 180) & (frame[..., 1] < 60) & (frame[..., 2] < 60)


def test_answers_agree_with_the_pixels(source):
  for i in range(len(source)):
    frame, answers = turns(source[i])
    # A whole platelet of 40 pixels covers about 19 x 19 of the picture as it is shown.
    painted = red(frame).sum() / 19**2
    if bccd_fields.PRESENCE in answers:
      assert answers[bccd_fields.PRESENCE] == ("yes" if painted > 0.5 else "no")
    if bccd_fields.CELL in answers:
      assert (answers[bccd_fields.CELL] == "platelet") == (painted > 0.5)
    if bccd_fields.COUNT in answers:
      assert int(answers[bccd_fields.COUNT]) == round(painted)


def test_quarters_are_those_of_the_turned_picture(source):
  asked = 0
  for i in range(len(source)):
    frame, answers = turns(source[i])
    height, width = frame.shape[:2]
    for question, answer in answers.items():
      if question.startswith("Is a platelet "):
        words = question.split()
        rows = slice(0, height // 2) if words[3] == "upper" else slice(height // 2, None)
        columns = slice(0, width // 2) if words[4] == "left?" else slice(width // 2, None)
        # Half of a platelet may lie beyond the middle.
        share = red(frame)[rows, columns].sum() / 19**2
        assert share > 0.2 if answer == "yes" else share < 0.8
        asked += 1
  assert asked > 90


def test_fields_grow_to_the_whole_picture_half_of_them_with_a_platelet(source):
  sizes = [turns(source[i])[0].shape for i in range(len(source))]
  assert set(sizes[:100]) == {(28, 28, 3)}
  asked = {question for i in range(100) for question in turns(source[i])[1]}
  assert asked == {bccd_fields.PRESENCE, bccd_fields.CELL}
  largest = [max(sizes[k : k + 50]) for k in range(0, 600, 50)]
  assert largest == sorted(largest) and largest[-1] == (224, 308, 3)
  shown = [red(turns(source[i])[0]).sum() > 19**2 / 2 for i in range(600)]
  assert shown[::2] == [True] * 300 and shown[1::2] == [False] * 300


def test_records_depend_on_seed_and_number_alone(folder, source):
  again = bccd_fields.Source(root=str(folder), split="train", seed=3, size=600, fade=0.8)
  other = bccd_fields.Source(root=str(folder), split="train", seed=4, size=600, fade=0.8)
  for i in (599, 5):
    frame, answers = turns(again[i])
    assert np.array_equal(frame, turns(source[i])[0]) and answers == turns(source[i])[1]
  assert any(not np.array_equal(turns(other[i])[0], turns(source[i])[0]) for i in range(9))


def test_a_split_shows_its_own_pictures_only(folder, source):
  assert {source[i]["group"] for i in range(99)} == {"with", "without"}
  with pytest.raises(IndexError, match="record 600 of a dataset of 600"):
    source[600]
  with pytest.raises(ValueError, match="fade 2"):
    bccd_fields.Source(root=str(folder), split="train", seed=3, size=600, fade=2)


def test_published_boxes_give_the_same_fields(folder, source, tmp_path):
  """The authors' own layout, with the boxes of the excerpt in the PASCAL VOC form."""
  boxes = json.loads((folder / "boxes.json").read_text())
  for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
    (tmp_path / name).mkdir(parents=True)
  for split, names in {"train": ("with", "without"), "val": ("unseen",), "test": ()}.items():
    (tmp_path / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))
    for name in names:
      Image.open(folder / f"images/{name}.png").save(tmp_path / f"JPEGImages/{name}.jpg", "png")
      cells = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for kind, found in boxes[name].items()
        for x0, y0, x1, y1 in found
      )
      (tmp_path / f"Annotations/{name}.xml").write_text(f"<annotation>{cells}</annotation>")
  published = bccd_fields.Source(root=str(tmp_path), split="train", seed=3, size=600, fade=0.8)
  for i in (0, 7, 300, 599):
    frame, answers = turns(published[i])
    assert np.array_equal(frame, turns(source[i])[0]) and answers == turns(source[i])[1]
