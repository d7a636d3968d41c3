"""Picture sets in their authors' layout, as miniatures that the test writes."""

import gzip
import json
from pathlib import Path

import pytest

from hulu_jax.media.errors import BadRecord


def voc(boxes, width=640):
  objects = "".join(
    f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>1</ymin><xmax>{x1}</xmax>"
    f"<ymax>9</ymax></bndbox></object>"
    for name, spans in boxes.items()
    for x0, x1 in spans
  )
  size = f"<size><width>{width}</width><height>480</height><depth>3</depth></size>"
  return f"<annotation>{size}{objects}</annotation>"


def bccd(root, write, boxes, splits):
  for name, found in boxes.items():
    write(root, {f"Annotations/{name}.xml": voc(found), f"JPEGImages/{name}.jpg": 90})
  write(root, {f"ImageSets/Main/{s}.txt": "\n".join(names) for s, names in splits.items()})


def test_bccd(tmp_path, write, source, read, apart):
  one = {"WBC": [(0, 100)], "RBC": [(5, 9)], "Platelets": [(1, 3), (4, 6)]}
  bccd(
    tmp_path / "BCCD",
    write,
    {"a": one, "b": {"WBC": [(200, 226)]}, "c": {}},  # b: on the border of two thirds
    {"train": ["a"], "val": ["b"], "test": ["c"]},
  )
  train = source("bccd", tmp_path, split="train")
  assert [read(train[i])[1] for i in range(4)] == ["1", "2", "yes", "left"]
  assert [train[i]["answer_type"] for i in range(4)] == ["open", "open", "closed", "closed"]
  media = read(train[0])[2]
  path = str(tmp_path / "BCCD/JPEGImages/a.jpg")
  assert media == [{"type": "image", "path": path, "modality": "GM"}]
  val = source("bccd", tmp_path / "BCCD", split="validation")
  assert [read(val[i])[1] for i in range(len(val))] == ["1", "0", "no"]
  assert apart("bccd", tmp_path) == {"a": "train", "b": "validation", "c": "test"}


def test_bccd_asks_what_the_excerpt_asks(tmp_path, write, source, shared_data):
  """The published boxes, written back as XML, give the excerpt's questions and answers."""
  folder = shared_data / "img_bccd" / "public"
  if not folder.is_dir():
    pytest.skip(f"no {folder}")
  boxes = {
    name: {kind: [(b[0], b[2]) for b in found] for kind, found in kinds.items()}
    for name, kinds in json.loads((folder / "boxes.json").read_text()).items()
  }
  files = {f"Annotations/{name}.xml": voc(found) for name, found in boxes.items()}
  files |= {"ImageSets/Main/train.txt": "\n".join(boxes)}
  write(tmp_path, files | {"ImageSets/Main/val.txt": "", "ImageSets/Main/test.txt": ""})
  (tmp_path / "JPEGImages").mkdir()
  ours = source("bccd", tmp_path, split="all")
  theirs = source("bccd", folder, split="all")
  asked = {o["id"]: o["messages"][0]["content"][1] for o in map(ours.__getitem__, range(len(ours)))}
  told = {o["id"]: o["answer"] for o in map(ours.__getitem__, range(len(ours)))}
  for i in range(len(theirs)):
    record = theirs[i]
    assert told[record["id"]] == record["answer"]
    assert asked[record["id"]] == record["messages"][0]["content"][1]
  assert len(ours) == len(theirs) == len(told)


def test_mednist(tmp_path, write, source, read, apart):
  files = {
    f"{name}/{number:06}.jpeg": 9
    for name in ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")
    for number in (0, 6000, 8000, 8800, 9999 if name != "BreastMRI" else 8953)
  }
  write(tmp_path, files)
  whole = source("mednist", tmp_path, split="all")
  assert len(whole) == 6 * 5 * 2
  kind, modality = whole[0], whole[1]
  assert kind["options"][kind["answer"]] == "abdomen CT" and modality["answer"] == "CT"
  assert len({tuple(whole[i]["options"].values()) for i in range(0, 60, 2)}) > 10, "shuffled"
  again = source("mednist", tmp_path, split="all")
  assert [whole[i] for i in range(60)] == [again[i] for i in range(60)]
  apart("mednist", tmp_path)
  test = source("mednist", tmp_path, split="test")
  numbers = {int(Path(read(test[i])[2][0]["path"]).stem) for i in range(len(test))}
  assert numbers == {8000, 8800, 9999, 8953}, "8000 is in the last 15 % of BreastMRI only"
  early = source("mednist", tmp_path, split="all", ask=("kind",), numbers=(0.5, 0.85))
  assert {int(Path(read(early[i])[2][0]["path"]).stem) for i in range(len(early))} == {6000, 8000}
  assert len(early) == 6 + 5, "8000 is in the last 15 % of BreastMRI"
  assert read(early[0])[:2] == ("Which kind of medical image is this?", "abdomen CT")
  with pytest.raises(ValueError, match="ask names organ; there are type, mod, kind"):
    source("mednist", tmp_path, split="all", ask=("organ",))


def test_hannover(tmp_path, write, source, read, apart):
  rows = ["patient_id,image_id,sex,modality,projection"]
  rows += [
    f"p{n // 3},i{n},m,{'CR' if n % 2 else 'DX'},{'ap' if n % 2 else 'pa'}" for n in range(90)
  ]
  write(tmp_path, {"data.csv": "\n".join([*rows, "p99,lat,f,CR,lateral"])})
  whole = source("hannover_cxr", tmp_path, split="all")
  assert len(whole) == 90 and read(whole[1])[1] == "AP"
  item = {"type": "image", "path": str(tmp_path / "png/i1.png"), "modality": "CR"}
  assert read(whole[1])[2] == [item]
  groups = apart("hannover_cxr", tmp_path)
  assert len(groups) == 30 and set(groups.values()) == {"train", "validation", "test"}


def test_vqa_rad(tmp_path, write, source, read, apart):
  def row(qid, image, phrase, answer, case="c"):
    return {
      "qid": qid,
      "phrase_type": phrase,
      "image_name": f"{image}.jpg",
      "image_case_url": f"https://medpix/{case}",
      "question": f"Is it {qid}?",
      "answer": answer,
      "answer_type": "CLOSED ",
    }

  rows = [
    row(1, "a", "freeform", "Yes", "c1"),
    row(2, "a", "test_freeform", "No", "c1"),
    row(3, "b", "para", 3, "c2"),
    row(4, "c", "freeform", "No", "c1"),  # another image of the tested case
    row(5, "d", "para", None, "c3"),
  ]
  write(tmp_path, {"VQA_RAD Dataset Public.json": rows})
  train = source("vqa_rad", tmp_path, split="train")
  assert (len(train), train.left_out) == (2, 2)
  question, answer, media = read(train[0])
  assert (question, answer) == ("Is it 3?", "3")
  assert media[0]["path"] == str(tmp_path / "VQA_RAD Image Folder/b.jpg")
  assert train[0]["answer_type"] == "closed"
  assert isinstance(train[1], BadRecord) and "no answer in a row" in train[1].reason
  assert len(source("vqa_rad", tmp_path, split="test")) == 1
  write(tmp_path, {"VQA_RAD Dataset Public.json": rows[:4]})
  assert len(apart("vqa_rad", tmp_path)) == 2


def test_slake(tmp_path, write, source, read, apart):
  def row(n, lang="en"):
    return {
      "img_id": n,
      "img_name": f"xmlab{n}/source.jpg",
      "question": f"{lang} {n}?",
      "answer": "MRI",
      "q_lang": lang,
      "modality": "MRI",
      "answer_type": "OPEN",
      "qid": n * 10,
    }

  for n, file in enumerate(("train", "validation", "test")):
    write(tmp_path, {f"{file}.json": [row(n), row(n, "zh")], f"imgs/xmlab{n}/source.jpg": 50})
  train = source("slake", tmp_path, split="train", languages=("en",))
  question, answer, media = read(train[0])
  assert (question, answer, len(train)) == ("en 0?", "MRI", 1)
  path = str(tmp_path / "imgs/xmlab0/source.jpg")
  assert media == [{"type": "image", "path": path, "modality": "MR"}]
  assert train[0]["answer_type"] == "open"
  chinese = source("slake", tmp_path, split="all", languages=("zh",))
  assert len(chinese) == 3
  assert len(apart("slake", tmp_path, languages=("en",))) == 3
  with pytest.raises(ValueError, match="there are en, zh"):
    source("slake", tmp_path, split="all", languages=("de",))


def test_path_vqa(tmp_path, write, source, read, apart):
  for file in ("train", "val", "test"):
    rows = [
      {"image": f"{file}_0001", "question": "Where?", "answer": "in the liver"},
      {"image": f"{file}_0001", "question": "Is it?", "answer": "Yes"},
    ]
    write(tmp_path, {f"qas/{file}/{file}_qa.json": rows})
  found = source("path_vqa", tmp_path, split="validation")
  assert [found[i]["answer_type"] for i in range(2)] == ["open", "closed"]
  assert read(found[0])[1] == "in the liver"
  assert read(found[0])[2][0]["path"] == str(tmp_path / "images/val/val_0001.jpg")
  assert len(apart("path_vqa", tmp_path)) == 3


def test_path_vqa_says_what_to_do_with_pickles(tmp_path, write, source):
  (write(tmp_path, {"qas/train/x": ""}) / "qas/train/train_qa.pkl").write_bytes(b"\x80")
  with pytest.raises(FileNotFoundError, match="found pickles where .* once as JSON"):
    source("path_vqa", tmp_path, split="all")


def test_pmc_vqa(tmp_path, write, source, read, apart):
  head = "Figure_path,Question,Answer,Choice A,Choice B,Choice C,Choice D,Answer_label\n"

  def row(figure, label="B"):
    return f'{figure},"What, then? ",Focal," A:Diffuse "," B:Focal"," C:No "," D:None",{label}\n'

  write(
    tmp_path,
    {"train.csv": head + row("PMC1_F1.jpg") + row("PMC2_F1.jpg") + row("PMC3_F1.jpg", "E")},
  )
  write(tmp_path, {"test.csv": head + row("PMC1_F2.jpg") + "cut off\n", "images/PMC1_F1.jpg": 3})
  train = source("pmc_vqa", tmp_path, split="train", version=1)
  assert (len(train), train.left_out) == (2, 1), "an article of the test set is not trained on"
  question, answer, media = read(train[0])
  assert question.startswith("What, then?\nA. Diffuse\nB. Focal\nC. No\nD. None\n")
  assert answer == "B" and media[0]["path"] == str(tmp_path / "images/PMC2_F1.jpg")
  assert "none of the options A, B, C, D" in train[1].reason
  test = source("pmc_vqa", tmp_path, split="test", version=1)
  assert test[0]["group"] == "PMC1" and "a row of 1 fields" in test[1].reason
  second = head.replace(",Answer_label", "")
  line = "PMC7_F1.jpg,Which?,C,A: x,B: y,C: z,D: w\n"
  write(tmp_path, {"train_2.csv": second + line, "test_2.csv": second, "images_2/a.jpg": 3})
  newer = source("pmc_vqa", tmp_path, split="train", version=2)
  assert read(newer[0])[1] == "C" and newer[0]["options"]["C"] == "z"
  assert apart("pmc_vqa", tmp_path, version=2) == {"PMC7": "train"}
  with pytest.raises(ValueError, match="version is 3; expected 1 or 2"):
    source("pmc_vqa", tmp_path, split="all", version=3)


def mimic(root, write):
  images = [
    # dicom, study, subject, split, view
    ("d1", 50000001, 10000001, "train", "PA"),
    ("d2", 50000001, 10000001, "train", "LATERAL"),
    ("d3", 50000002, 10000001, "train", "AP"),
    ("d4", 50000003, 11000002, "validate", "LATERAL"),
    ("d5", 50000004, 12000003, "test", "AP"),
  ]
  split = "dicom_id,study_id,subject_id,split\n"
  split += "".join(f"{d},{s},{p},{w}\n" for d, s, p, w, _ in images)
  (root / "jpg").mkdir()
  (root / "jpg/mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(split.encode()))
  views = "dicom_id,ViewPosition\n" + "".join(f"{d},{v}\n" for d, *_, v in images)
  told = (
    'study,impression,findings\ns50000001,"Clear.","The lungs\nare clear."\ns50000002,Stable.,\n'
  )
  write(
    root / "jpg",
    {
      "mimic-cxr-2.0.0-metadata.csv": views,
      "mimic_cxr_sectioned.csv": told,
      "files/p10/p10000001/s50000001/d1.jpg": 7,
      "files/p10/p10000001/s50000001/d2.jpg": 7,
    },
  )
  write(root, {"txt/files/p10/p10000001/s50000001.txt": " FINAL REPORT\n FINDINGS: clear.\n"})
  (root / "jpg/files/p10/p10000001/s50000002").mkdir()
  (root / "jpg/files/p10/p10000001/s50000002/d3.dcm").write_bytes(b"x")


def test_mimic_cxr(tmp_path, write, source, read, apart):
  mimic(tmp_path, write)
  fields = {"reports": str(tmp_path / "txt"), "section": "report", "views": "all"}
  train = source("mimic_cxr", tmp_path / "jpg", split="train", **fields)
  question, answer, media = read(train[0])
  assert question == "Write the report of this chest X-ray study."
  assert answer == "FINAL REPORT\n FINDINGS: clear."
  assert [Path(item["path"]).name for item in media] == ["d1.jpg", "d2.jpg"]
  assert Path(media[0]["path"]).is_file()
  assert isinstance(train[1], BadRecord) and train[1].kind == "missing"
  assert len(train) == 2
  fields = {**fields, "section": "impression", "views": "frontal"}
  train = source("mimic_cxr", tmp_path / "jpg", split="train", **fields)
  assert [read(train[i])[1] for i in range(2)] == ["Clear.", "Stable."]
  assert [len(read(train[i])[2]) for i in range(2)] == [1, 1]
  assert read(train[1])[2][0]["path"].endswith("s50000002/d3.dcm"), "the DICOM tree serves too"
  fields["section"] = "findings"
  train = source("mimic_cxr", tmp_path / "jpg", split="train", **fields)
  assert [read(train[i])[1] for i in range(len(train))] == ["The lungs\nare clear."]
  assert train[0]["group"] == "p10000001"


def test_mimic_cxr_goes_by_patient(tmp_path, write, source):
  mimic(tmp_path, write)
  fields = {"reports": str(tmp_path / "txt"), "section": "report", "views": "all"}
  sizes = [
    len(source("mimic_cxr", tmp_path / "jpg", split=split, **fields))
    for split in ("train", "validation", "test", "all")
  ]
  assert sizes == [2, 1, 1, 4]
  with pytest.raises(ValueError, match="sections are report, findings, impression"):
    source("mimic_cxr", tmp_path / "jpg", split="all", **{**fields, "section": "notes"})


def test_cholec80_vqa(tmp_path, write, source, read, apart):
  files = {
    f"{task}/{video}/{frame}_QA.txt": f"what is the phase of image?|{video} {frame}\n\nis it?|no\n"
    for task in ("Classification", "Sentence")
    for video in (1, 5, 12, 40)
    for frame in (0, 25, 100)
  }
  write(tmp_path, {**files, "cropped_image/1/0.png": 5})
  fields = {"task": "classification", "every": 100}
  train = source("cholec80_vqa", tmp_path, split="train", **fields)
  assert len(train) == 2 * 2 * 2
  question, answer, media = read(train[2])
  assert (question, answer) == ("what is the phase of image?", "1 100")
  path = str(tmp_path / "cropped_image/1/100.png")
  assert media == [{"type": "image", "path": path, "modality": "ES"}]
  groups = apart("cholec80_vqa", tmp_path, **fields)
  assert {g for g, s in groups.items() if s == "validation"} == {"video-5", "video-12"}
  write(tmp_path, {"Sentence/1/0_QA.txt": "a question without answer"})
  sentences = source("cholec80_vqa", tmp_path, split="train", task="sentence", every=25)
  assert 'expected "question|answer"' in sentences[0].reason
  with pytest.raises(ValueError, match="tasks are classification, sentence"):
    source("cholec80_vqa", tmp_path, split="all", task="x", every=1)
