"""What counts as the same data: not where they lie, but every byte of what describes them."""

import json
import os
import shutil

import pytest

from hulu_jax.core import plugins
from hulu_jax.data import fingerprint

ENTRY = {"name": "-", "label": "a", "weight": 1.0, "shuffle": True}


class Listed:
  """A dataset that is nothing but its files."""

  def __init__(self, files, size=3):
    self.files, self._size = tuple(files), size

  def __len__(self):
    return self._size


def of(*files, **fields):
  return fingerprint.of([{**ENTRY, **fields}], [Listed(files)])


def source(name, **fields):
  return plugins.load("hulu_jax.data.datasets", name).Source(**fields)


def test_a_changed_file_is_named(tmp_path):
  one, two = tmp_path / "train.jsonl", tmp_path / "more.jsonl"
  one.write_text("one"), two.write_text("two")
  before = of(one, two)
  fingerprint.check(json.loads(json.dumps(before)), of(one, two))
  two.write_text("TWO")
  with pytest.raises(ValueError, match=r"\(changed: 0:a:more.jsonl\): restore them") as told:
    fingerprint.check(before, of(one, two))
  assert "train.jsonl" not in str(told.value)


def test_what_came_and_went_is_named(tmp_path):
  one, two = tmp_path / "one.csv", tmp_path / "two.csv"
  one.write_text("x"), two.write_text("x")
  with pytest.raises(ValueError, match=r"gone: 0:a:one.csv; new: 0:a:two.csv"):
    fingerprint.check(of(one), of(two))


def test_the_size_of_a_dataset_and_the_fields_of_its_entry_count():
  before = fingerprint.of([ENTRY], [Listed(())])
  for entry, size in ((ENTRY, 4), ({**ENTRY, "split": "test"}, 3)):
    with pytest.raises(ValueError, match="changed: 0:a"):
      fingerprint.check(before, fingerprint.of([entry], [Listed((), size)]))


def test_a_file_of_the_same_size_is_read_again_when_its_time_changes(tmp_path):
  file = tmp_path / "train.jsonl"
  file.write_text("one")
  before = of(file)
  file.write_text("two")
  os.utime(file, (1, 1))
  assert of(file) != before


def test_a_file_is_read_once_however_many_datasets_name_it(tmp_path, monkeypatch):
  file = tmp_path / "train.jsonl"
  file.write_text("one")
  opened = []
  real = type(file).open

  def counting(path, *args, **fields):
    opened.append(path)
    return real(path, *args, **fields)

  monkeypatch.setattr(type(file), "open", counting)
  found = fingerprint.of([ENTRY, ENTRY], [Listed([file]), Listed([file])])
  assert opened == [file] and found["0:a:train.jsonl"] == found["1:a:train.jsonl"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
  paths = [tmp_path / folder / "list.xml" for folder in ("en", "fr")]
  for path in paths:
    path.parent.mkdir()
    path.write_text(path.parent.name)
  found = of(*paths)
  assert set(found) == {"0:a", "0:a:en/list.xml", "0:a:fr/list.xml"}
  assert len(set(found.values())) == 3


def test_of_many_files_the_folder_is_named_and_any_change_is_seen(tmp_path):
  paths = [tmp_path / f"{n % 3}" / f"{n}.txt" for n in range(300)]
  for path in paths:
    path.parent.mkdir(exist_ok=True)
    path.write_text("0")
  before = of(*paths)
  assert len(before) == 1 + 3
  paths[7].write_text("changed")
  with pytest.raises(ValueError, match=r"\(changed: 0:a:1/\)"):
    fingerprint.check(before, of(*paths))


def _moved(tmp_path, name, fields, write):
  """Two fingerprints of one set: before and after its folder was moved."""
  here, there = tmp_path / "here", tmp_path / "elsewhere" / "deeper"
  write(here)
  found = []
  for root in (here, there):
    if root == there:
      there.parent.mkdir()
      shutil.move(here, there)
    entry = {**ENTRY, "name": name, "root": str(root), **fields}
    found.append(fingerprint.of([entry], [source(name, root=str(root), **fields)]))
  return found


def _slake(folder):
  folder.mkdir()
  row = {"qid": 1, "img_name": "a.jpg", "img_id": 1, "question": "q", "answer": "a", "q_lang": "en"}
  for split in ("train", "validation", "test"):
    (folder / f"{split}.json").write_text(json.dumps([{**row, "img_id": split}]))


def test_a_set_may_move(tmp_path):
  before, after = _moved(tmp_path, "slake", {"split": "train", "languages": ["en"]}, _slake)
  assert before == after
  assert {"0:a:train.json", "0:a:validation.json", "0:a:test.json"} < set(before)


def test_a_changed_picture_does_not_stop_a_run_a_changed_answer_does(tmp_path):
  root, fields = tmp_path / "set", {"split": "train", "languages": ["en"]}
  _slake(root)

  def now():
    return fingerprint.of([ENTRY], [source("slake", root=str(root), **fields)])

  before = now()
  (root / "imgs").mkdir()
  (root / "imgs" / "a.jpg").write_bytes(b"another picture")
  assert now() == before
  (root / "train.json").write_text((root / "train.json").read_text().replace('"a"', '"b"'))
  with pytest.raises(ValueError, match="changed: 0:a:train.json"):
    fingerprint.check(before, now())


@pytest.mark.parametrize("name", ["jsonl", "json_list"])
def test_formats_name_their_file_and_may_move(tmp_path, name):
  record = json.dumps({"id": "1", "messages": []})
  text = record + "\n" if name == "jsonl" else f"[{record}]"
  found = []
  for folder in ("here", "there"):
    path = tmp_path / folder / "train.json"
    path.parent.mkdir()
    path.write_text(text)
    made = source(name, path=str(path))
    assert made.files == (path,) and made.lengths is None
    found.append(fingerprint.of([{**ENTRY, "path": str(path)}], [made]))
  assert found[0] == found[1]
