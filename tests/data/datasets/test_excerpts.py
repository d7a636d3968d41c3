"""The real excerpts in ../shared/data, every line of them, against plain json."""

from collections import Counter
import dataclasses
import json
from pathlib import Path

import pytest

from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import totalsegmentator
from hulu_jax.media.errors import BadRecord

# Plugin -> (folder, files, fields).
SETS = {
  "bccd": ("img_bccd", ["qa.jsonl"], {}),
  "mednist": ("img_mednist", ["qa.jsonl"], {}),
  "hannover_cxr": ("img_hannover_cxr", ["qa.jsonl"], {}),
  "vqa_rad": ("img_vqarad", ["qa.jsonl"], {}),
  "pubmedqa": ("text_pubmedqa", ["pubmedqa_trainfold.jsonl"], {"explain": False}),
  "medmcqa": ("text_medmcqa", ["medmcqa_dev_600.jsonl"], {"explain": False}),
  "medquad": ("text_medquad", ["medquad.jsonl"], {}),
  "casimedicos": (
    "text_casimedicos",
    [f"casimedicos_{lang}.jsonl" for lang in ("en", "es", "fr", "it")],
    {"languages": ("en", "es", "fr", "it"), "explain": False},
  ),
  "mts_dialog": ("text_mts_dialog", ["train_300.jsonl"], {}),
  "totalsegmentator": (
    "vol_totalsegmentator",
    ["qa.jsonl"],
    {"organs": (*totalsegmentator.ORGANS, "trachea")},
  ),
  "pocus_lung": ("vid_pocus_lung", ["qa.jsonl"], {}),
}


def texts(path):
  # Abstracts hold line separators of Unicode, at which `splitlines` would cut.
  return path.read_text().strip().split("\n")


def lines(folder, files):
  return [json.loads(line) for file in files for line in texts(folder / file)]


@pytest.fixture
def excerpt(shared_data):
  def find(name):
    folder, files, fields = SETS[name]
    path = shared_data / folder / "public"
    if not path.is_dir():
      pytest.skip(f"no {path}")
    return path, lines(path, files), fields

  return find


@pytest.mark.parametrize("name", SETS)
def test_every_line_is_a_record(name, excerpt, source, read):
  root, rows, fields = excerpt(name)
  whole = source(name, root, split="all", **fields)
  assert len(whole) == len(rows)
  for i, row in enumerate(rows):
    question, answer, media = read(whole[i])
    if name != "medquad":  # whose excerpt has ids that occur twice
      assert whole[i]["id"] == row["id"]
    assert answer == row.get("answer", row.get("summary"))
    assert row.get("question", row.get("dialogue", "").strip()) in question
    for text in row.get("options", {}).values():
      assert text in question
    if "options" in row:
      assert whole[i]["options"] == {k: v for k, v in row["options"].items() if v}
    files = [row[kind] for kind in ("image", "volume", "video") if kind in row]
    assert [Path(item["path"]) for item in media] == [root / file for file in files]
    assert all(Path(item["path"]).is_file() for item in media)
    if "group" in row:
      assert whole[i]["group"] == row["group"]
    assert whole[i].get("license") == row.get("license")


@pytest.mark.parametrize("name", SETS)
def test_patients_stay_apart(name, excerpt, apart):
  root, rows, fields = excerpt(name)
  groups = apart(name, root, **fields)
  if "group" in rows[0] and name != "vqa_rad":
    assert set(groups) == {row["group"] for row in rows}


def test_a_question_in_four_languages_is_one_group(excerpt, source):
  root, _, fields = excerpt("casimedicos")
  whole = source("casimedicos", root, split="all", **fields)
  assert set(Counter(whole[i]["group"] for i in range(len(whole))).values()) == {4}


def test_explanations_stand_before_the_answer(excerpt, source, read):
  for name, key in (("casimedicos", "explanation"), ("pubmedqa", "long_answer")):
    root, rows, fields = excerpt(name)
    told = source(name, root, split="all", **{**fields, "explain": True})
    for i in (0, len(rows) - 1):
      expected = f"{rows[i][key].strip()}\n\nAnswer: {rows[i]['answer']}"
      assert read(told[i])[1] == expected
  root, rows, _ = excerpt("medmcqa")
  told = source("medmcqa", root, split="all", explain=True)
  assert len(told) == sum(bool(row["explanation"]) for row in rows) < len(rows)


def test_vqa_rad_trains_on_no_image_of_its_test(excerpt, source):
  root, rows, _ = excerpt("vqa_rad")
  tested = {row["group"] for row in rows if row["source_split"] == "test"}
  test = source("vqa_rad", root, split="test")
  assert len(test) == sum(row["source_split"] == "test" for row in rows)
  in_both = [r for r in rows if r["source_split"] == "train" and r["group"] in tested]
  assert in_both, "the published splits share images"
  if len(in_both) == sum(row["source_split"] == "train" for row in rows):
    with pytest.raises(ValueError, match="every patient of split 'train'"):
      source("vqa_rad", root, split="train")
  else:
    assert source("vqa_rad", root, split="train").left_out == len(in_both)


def test_real_media_become_examples(excerpt, source, builder, shared_data):
  building = dataclasses.replace(builder, root=shared_data)
  for name in ("bccd", "hannover_cxr", "totalsegmentator", "pocus_lung"):
    root, _, fields = excerpt(name)
    example = building(source(name, root, split="all", **fields)[0])
    assert not isinstance(example, BadRecord), f"{name}: {example}"
    assert len(example.visuals) == 1


def test_media_outside_the_data_root_are_refused(excerpt, source, builder, tmp_path):
  root, _, _ = excerpt("bccd")
  bad = dataclasses.replace(builder, root=tmp_path)(source("bccd", root, split="all")[0])
  assert isinstance(bad, BadRecord) and "leaves" in bad.reason


def test_modalities_are_dicoms_codes():
  words = {"CT": "CT", "MRI": "MR", "MR": "MR", "lung ultrasound": "US", "X-ray": None, None: None}
  assert {word: _source.code(word) for word in words} == words
