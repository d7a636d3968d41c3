"""Volume and clip sets in their authors' layout, as miniatures that the test writes."""

import csv
import dataclasses
import json

import nibabel
import numpy as np
from PIL import Image
import pytest

from hulu_jax.data.datasets import pocus_lung
from hulu_jax.media.errors import BadRecord


def nifti(path, values):
  path.parent.mkdir(parents=True, exist_ok=True)
  nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), path)


def test_totalsegmentator(tmp_path, write, source, read, apart, builder):
  subjects = {"s0": "train", "s1": "val", "s2": "test"}
  meta = "\ufeffimage_id;age;split\n" + "".join(f"{n};50;{s}\n" for n, s in subjects.items())
  write(tmp_path, {"meta.csv": meta})
  empty, full = np.zeros((6, 6, 4), np.uint8), np.zeros((6, 6, 4), np.uint8)
  full[2, 3, 1] = 1
  for name in subjects:
    file = "mri.nii.gz" if name == "s1" else "ct.nii.gz"
    nifti(tmp_path / name / file, np.arange(144, dtype=np.int16).reshape(6, 6, 4))
    nifti(tmp_path / name / "segmentations/liver.nii.gz", full)
    nifti(tmp_path / name / "segmentations/kidney_left.nii.gz", empty)
  fields = {"organs": ("liver", "kidney_left", "brain")}
  train = source("totalsegmentator", tmp_path, split="train", **fields)
  assert len(train) == 2, "there is no mask of the brain"
  assert read(train[0])[0] == "Is the liver visible in this CT volume? Answer yes or no."
  assert [read(train[i])[1] for i in range(2)] == ["yes", "no"]
  val = source("totalsegmentator", tmp_path, split="validation", **fields)
  path = str(tmp_path / "s1/mri.nii.gz")
  assert read(val[1])[2] == [{"type": "volume", "path": path, "modality": "MR"}]
  assert "kidney left" in read(val[1])[0]
  assert apart("totalsegmentator", tmp_path, **fields) == {
    "s0": "train",
    "s1": "validation",
    "s2": "test",
  }
  example = dataclasses.replace(builder, root=tmp_path)(train[0])
  assert not isinstance(example, BadRecord), example
  (tmp_path / "s0/segmentations/liver.nii.gz").write_bytes(b"no mask")
  assert isinstance(train[0], BadRecord) and str(tmp_path) not in train[0].reason


def m3d(root, write):
  for case, count in (("000001", 3), ("000002", 2)):
    write(
      root,
      {f"M3D_Cap/ct_quizze/{case}/Axial/{n}.png": 10 * n + 5 for n in range(count)}
      | {f"M3D_Cap/ct_quizze/{case}/text.txt": f"findings: {case}\n"},
    )
  array = np.linspace(0, 1, 2 * 4 * 6, dtype=np.float32).reshape(1, 2, 4, 6)
  folder = root / "M3D_Cap_npy/ct_quizze/000003"
  folder.mkdir(parents=True)
  np.save(folder / "Axial.npy", array)
  (folder / "text.txt").write_text("findings: 000003")
  return array


def pair(case, side="M3D_Cap", end=""):
  folder = f"{side}/ct_quizze/{case}"
  return {"image": f"{folder}/Axial{end}", "text": f"{folder}/text.txt"}


def test_m3d_captions(tmp_path, write, source, read, apart, builder):
  array = m3d(tmp_path, write)
  lists = {
    "train": [pair("000001"), pair("000002", "M3D_Cap_npy", ".npy"), pair("000003")],
    "validation": [],
    "test500": [],
    "test1k": [pair("000003", "M3D_Cap_npy", ".npy"), pair("000004")],
  }
  write(tmp_path, {"M3D_Cap/M3D_Cap.json": lists})
  fields = {"task": "caption", "frames": 2}
  train = source("m3d", tmp_path, split="train", **fields)
  assert (len(train), train.left_out) == (2, 1), "a case of the test set is not trained on"
  question, answer, media = read(train[0])
  assert answer == "findings: 000001" and train[0]["group"] == "ct_quizze/000001"
  frames = media[0]["frames"]
  assert frames.dtype == np.uint8 and frames.shape == (2, 14, 16, 1)
  assert [int(f[0, 0, 0]) for f in frames] == [5, 25], "the first and the last of three"
  assert read(train[1])[2][0]["frames"].shape == (2, 14, 16, 1), "slices serve for the .npy"
  test = source("m3d", tmp_path, split="test", **fields)
  frames = read(test[0])[2][0]["frames"]
  np.testing.assert_array_equal(frames[..., 0], np.rint(array[0] * 255))
  assert isinstance(test[1], BadRecord) and test[1].kind == "missing"
  example = dataclasses.replace(builder, root=tmp_path)(train[0])
  assert not isinstance(example, BadRecord), example
  lists["train"], lists["test1k"] = lists["train"][:2], lists["test1k"][:1]
  write(tmp_path, {"M3D_Cap/M3D_Cap.json": lists})
  assert len(apart("m3d", tmp_path, **fields)) == 3


def test_m3d_questions(tmp_path, write, source, read):
  m3d(tmp_path, write)
  head = ["Image Path", "Text", "Question Type", "Question"]
  head += [f"Choice {k}" for k in "ABCD"] + ["Answer", "Answer Choice"]
  image = "M3D_Cap_npy/ct_quizze/000001/Axial.npy"
  rows = [
    [image, "t", 1, "Plane?", "Axial", "Coronal", "Sagittal", "None", "Axial", "A"],
    [image, "t", 4, "What, exactly?", "x", "y", "z", "w", "v", "E"],
  ]
  for file in ("train", "val", "test"):
    path = tmp_path / f"M3D-VQA/M3D_VQA_{file}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as out:
      csv.writer(out).writerows([head, *(rows if file == "train" else [])])
  train = source("m3d", tmp_path, split="train", task="vqa", frames=8)
  question, answer, media = read(train[0])
  assert question.startswith("Plane?\nA. Axial\nB. Coronal\n") and answer == "A"
  assert len(media[0]["frames"]) == 3 and train[0]["options"]["C"] == "Sagittal"
  assert "none of the options" in train[1].reason
  write(
    tmp_path,
    {"M3D-VQA/M3D_VQA_yn_train.csv": f"Image Path,Question,Answer\n{image},Is it axial?,Yes\n"},
  )
  closed = source("m3d", tmp_path, split="train", task="yes_no", frames=8)
  assert read(closed[0])[1] == "Yes" and closed[0]["answer_type"] == "closed"
  with pytest.raises(ValueError, match="expected one of caption, vqa, yes_no"):
    source("m3d", tmp_path, split="all", task="seg", frames=8)


def test_m3d_refuses_what_it_cannot_show(tmp_path, write, source):
  m3d(tmp_path, write)
  np.save(tmp_path / "M3D_Cap_npy/ct_quizze/000003/Axial.npy", np.zeros((2, 4, 6)))
  Image.new("L", (9, 9)).save(tmp_path / "M3D_Cap/ct_quizze/000001/Axial/1.png")
  for old in (tmp_path / "M3D_Cap/ct_quizze/000002/Axial").iterdir():
    old.rename(old.with_stem("x" + old.stem))
  cases = [pair("000003", "M3D_Cap_npy", ".npy"), pair("000001"), pair("000002")]
  cases += [{"image": "../../etc", "text": "M3D_Cap/ct_quizze/000001/text.txt"}, {"text": "x"}]
  write(tmp_path, {"M3D_Cap.json": {"train": cases, "validation": []}})
  found = source("m3d", tmp_path, split="train", task="caption", frames=3)
  kinds = [found[i].kind for i in range(len(found))]
  assert kinds == ["geometry", "geometry", "empty", "path", "format"]


def test_amos_mm(tmp_path, write, source, read, apart, builder):
  def case(n, folder):
    findings = {"chest": "", "abdomen": f" Liver {n}. ", "pelvis": "Normal."}
    qa = [{"question": "Where?", "options": {"A": "here", "B": "there"}, "answer": "B"}]
    name = f"./{folder}/amos_{n:04}.nii.gz"
    return {"image": name, "labels": {"report": {"findings": findings}, "qa": qa}}

  lists = {
    "training": [case(1, "imagesTr"), case(2, "imagesTr")],
    "validation": [case(3, "imagesVa")],
  }
  names = ("report_generation_train_val.json", "vqa_train_val.json")
  write(tmp_path, {name: {"licence": "CC BY-ND 4.0", **lists} for name in names})
  nifti(tmp_path / "imagesTr/amos_0001.nii.gz", np.zeros((5, 5, 3), np.int16))
  train = source("amos_mm", tmp_path, split="train", task="report")
  assert len(train) == 4, "regions without text are no records"
  question, answer, media = read(train[0])
  assert question == "Report the findings in the abdomen on this CT." and answer == "Liver 1."
  path = str(tmp_path / "imagesTr/amos_0001.nii.gz")
  assert media == [{"type": "volume", "path": path, "modality": "CT"}]
  assert train[0]["id"] == "amos-amos_0001-abdomen"
  assert not isinstance(dataclasses.replace(builder, root=tmp_path)(train[0]), BadRecord)
  asked = source("amos_mm", tmp_path, split="validation", task="vqa")
  assert read(asked[0])[1] == "B" and asked[0]["group"] == "amos_0003"
  assert len(apart("amos_mm", tmp_path, task="report")) == 3
  with pytest.raises(ValueError, match="expected one of report, vqa"):
    source("amos_mm", tmp_path, split="all", task="seg")


FLAGS = ("B-lines", "Consolidations", "Pleural line irregularities")


def table(rows):
  head = ["Filename", "Label", "License", "Type", "Patient ID / Name"]
  head += ["Comments first medical doctor (MD1)", "MD2", *FLAGS]
  return "\n".join(",".join(f'"{cell}"' for cell in row) for row in [head, *rows])


def test_pocus(tmp_path, write, source, read, apart):
  rows = [
    ["a", "COVID-19", "CC BY 4.0", "video", "7", "Many B-lines seen", "", 1, 0, 0],
    ["b.v1", "regular", "CC BY 4.0", "video", "", "normal", "A-lines", 0, 0, "n/A"],
    ["gone", "regular", "None", "video", "8", "", "", 0, 0, 0],
    ["c", "regular", "CC BY 4.0", "image", "9", "", "", 0, 0, 0],
  ]
  write(tmp_path, {"data/dataset_metadata.csv": table(rows)})
  for name in ("convex/a.mov", "linear/b.v1.mp4", "linear/c.png"):
    write(tmp_path, {f"data/pocus_videos/{name}": "" if not name.endswith("png") else 3})
  whole = source("pocus_lung", tmp_path, split="all")
  kinds = [whole[i]["id"].rpartition(".")[2] for i in range(len(whole))]
  assert kinds == [
    *("mov-dx", "mov-b-lines", "mov-consolidations", "mov-pleural", "mov-desc"),
    *("mp4-dx", "mp4-b-lines", "mp4-consolidations"),
  ]
  path = str(tmp_path / "data/pocus_videos/convex/a.mov")
  assert read(whole[1])[2] == [{"type": "video", "path": path, "modality": "US"}]
  assert whole[0]["options"][whole[0]["answer"]] == "COVID-19 pneumonia"
  assert [whole[0]["group"], whole[7]["group"]] == ["patient-7", "clip-b.v1.mp4"]
  apart("pocus_lung", tmp_path)


def test_pocus_asks_what_the_excerpt_asks(shared_data):
  """The published flags and comments give the excerpt's questions and answers."""
  folder = shared_data / "vid_pocus_lung" / "public"
  if not folder.is_dir():
    pytest.skip(f"no {folder}")
  asked = {}
  for line in (folder / "clips.jsonl").read_text().splitlines():
    clip = json.loads(line)
    row = {
      "Label": clip["label"],
      "License": clip["license"],
      "Patient ID / Name": clip["patient"],
      "Comments first medical doctor (MD1)": clip["expert_comment"],
      "MD2": clip["expert_comment_2"],
      **clip["findings"],
    }
    for made in pocus_lung.questions(row, clip["clip"]):
      right = made["options"][made["answer"]] if "options" in made else made["answer"]
      asked[made["video"], made["question"]] = (right, made["group"], made["license"])
  theirs = [json.loads(line) for line in (folder / "qa.jsonl").read_text().splitlines()]
  expected = {
    (row["video"], row["question"]): (
      row["options"][row["answer"]] if "options" in row else row["answer"],
      row["group"],
      row["license"],
    )
    for row in theirs
  }
  assert asked == expected
