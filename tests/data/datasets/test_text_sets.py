"""Text sets in their authors' layout, as miniatures that the test writes."""

import json

import pytest

from hulu_jax.data.datasets import _source
from hulu_jax.media.errors import BadRecord


def test_pubmedqa(tmp_path, write, source, read, apart):
  articles = {
    str(n): {
      "QUESTION": f"Does {n} help?",
      "CONTEXTS": ["Aim.", "Methods."],
      "LABELS": ["A", "B"],
      "final_decision": ("yes", "no", "maybe")[n % 3],
      "LONG_ANSWER": "It may.",
    }
    for n in range(6)
  }
  write(
    tmp_path,
    {"data/ori_pqal.json": articles, "data/test_ground_truth.json": {"4": "no", "5": "maybe"}},
  )
  train = source("pubmedqa", tmp_path, split="train", explain=True)
  assert len(train) == 4 and train[1]["id"] == "pubmedqa-1"
  question, answer, _ = read(train[1])
  assert question == "Aim.\nMethods.\n\nDoes 1 help?\nAnswer yes, no or maybe."
  assert answer == "It may.\n\nAnswer: no"
  assert set(apart("pubmedqa", tmp_path, explain=False).values()) == {"train", "test"}
  with pytest.raises(ValueError, match="no row of split 'validation' among 6; there are test, tr"):
    source("pubmedqa", tmp_path, split="validation", explain=False)


def mcqa(n, **changes):
  row = {"id": f"q{n}", "question": f"Which {n}?", "opa": "w", "opb": "x", "opc": "y", "opd": "z"}
  return {**row, "cop": n % 4 + 1, "choice_type": "single", "exp": None, **changes}


def test_medmcqa(tmp_path, write, source, read):
  rows = [mcqa(0), mcqa(1, exp="As x."), mcqa(2, choice_type="multi"), mcqa(3)]
  write(tmp_path, {"train.json": "".join(json.dumps(r) + "\n" for r in rows) + "{oops\n"})
  write(tmp_path, {"dev.json": json.dumps(mcqa(9)) + "\n"})
  train = source("medmcqa", tmp_path, split="train", explain=False)
  assert len(train) == 4, "several right options are left out, a damaged line is counted"
  question, answer, _ = read(train[1])
  assert question == f"Which 1?\nA. w\nB. x\nC. y\nD. z\n{_source.LETTER}"
  assert (answer, train[1]["options"]) == ("B", {"A": "w", "B": "x", "C": "y", "D": "z"})
  assert isinstance(train[3], BadRecord) and "not JSON" in train[3].reason
  assert len(source("medmcqa", tmp_path, split="validation", explain=False)) == 1
  told = source("medmcqa", tmp_path, split="train", explain=True)
  assert read(told[0])[1] == "As x.\n\nAnswer: B"
  with pytest.raises(IndexError):
    train[4]


def test_medmcqa_refuses_copies_that_count_from_0(tmp_path, write, source):
  write(tmp_path, {"train.json": json.dumps(mcqa(0, cop=0)) + "\n"})
  with pytest.raises(ValueError, match="cop counts from 0; expected the authors' file"):
    source("medmcqa", tmp_path, split="train", explain=False)


def test_medmcqa_without_a_label(tmp_path, write, source):
  write(tmp_path, {"dev.json": json.dumps(mcqa(0, cop=7)) + "\n" + json.dumps(mcqa(1, cop=None))})
  found = source("medmcqa", tmp_path, split="validation", explain=False)
  assert "expected 1 to 4" in found[0].reason and "no cop in a row" in found[1].reason


XML = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="{n}" source="X" url="http://x"><Focus>F</Focus><QAPairs>
<QAPair pid="1"><Question qid="{n}-1" qtype="information">What is {n} ?</Question>
<Answer>It is {n}.
   - a list</Answer></QAPair>
<QAPair pid="2"><Question qid="{n}-2" qtype="outlook">And then ?</Question><Answer/></QAPair>
<QAPair pid="3"><Question qid="{n}-3" qtype="x">Who ?</Question><Answer>All.</Answer></QAPair>
</QAPairs></Document>"""


def test_medquad(tmp_path, write, source, read, apart):
  folders = ("1_CancerGov_QA", "8_NHLBI_QA_XML")
  write(tmp_path, {f"{f}/000{n}.xml": XML.format(n=n) for f in folders for n in range(12)})
  whole = source("medquad", tmp_path, split="all")
  assert len(whole) == 2 * 12 * 2, "a question without answer is no record"
  assert len({whole[i]["id"] for i in range(len(whole))}) == len(whole)
  question, answer, _ = read(whole[0])
  assert (question, answer) == ("What is 0 ?", "It is 0.\n   - a list")
  groups = apart("medquad", tmp_path)
  assert len(groups) == 24 and set(groups.values()) == {"train", "validation", "test"}


def test_casimedicos(tmp_path, write, source, read, apart):
  def row(n, lang):
    options = {"1": "a", "2": "b", "3": "c", "4": "d", "5": ""}
    return {
      "id": n,
      "full_question": f"{lang} {n}?",
      "options": options,
      "correct_option": n % 4 + 1,
      "full_answer": "Because.",
      "type": "SURGERY",
    }

  files = {
    f"data/{lang}/{lang}_{split}_casimedicos.jsonl": [row(n, lang) for n in range(3)]
    for lang in ("es", "fr")
    for split in ("train", "dev", "test")
  }
  write(tmp_path, files)
  found = source("casimedicos", tmp_path, split="validation", languages=("fr",), explain=True)
  question, answer, _ = read(found[1])
  ending = "Répondez par le numéro de la bonne option."
  assert question == f"fr 1?\n1. a\n2. b\n3. c\n4. d\n{ending}"
  assert answer == "Because.\n\nAnswer: 2" and found[1]["id"] == "casimedicos-fr-dev-1"
  groups = apart("casimedicos", tmp_path, languages=("es", "fr"), explain=False)
  assert len(groups) == 9, "a question is one group in both languages"
  with pytest.raises(ValueError, match="languages .'de'.; there are en, es, fr, it"):
    source("casimedicos", tmp_path, split="all", languages=("de",), explain=False)


def test_mts_dialog(tmp_path, write, source, read, apart):
  names = (
    "TrainingSet",
    "ValidationSet",
    "TestSet-1-MEDIQA-Chat-2023",
    "TestSet-2-MEDIQA-Sum-2023",
  )
  head = "ID,section_header,section_text,dialogue\n"
  rows = '0,GENHX,"Well, ""fine"".","Doctor: Hi\r\nPatient: Hi"\n1,CC,Cough.,Doctor: Yes?\n'
  write(tmp_path, {f"Main-Dataset/MTS-Dialog-{name}.csv": head + rows for name in names})
  train = source("mts_dialog", tmp_path, split="train")
  question, answer, _ = read(train[0])
  assert question.endswith("\n\nWrite the section GENHX of the clinical note of this conversation.")
  assert question.startswith("Doctor: Hi") and answer == 'Well, "fine".'
  assert len(apart("mts_dialog", tmp_path)) == 8
  assert len(source("mts_dialog", tmp_path, split="test")) == 4


@pytest.mark.parametrize(
  ("name", "fields"),
  [
    ("pubmedqa", {"explain": False}),
    ("medmcqa", {"explain": False}),
    ("medquad", {}),
    ("casimedicos", {"languages": ("en",), "explain": False}),
    ("mts_dialog", {}),
  ],
)
def test_a_wrong_folder_says_so(tmp_path, source, name, fields):
  with pytest.raises(FileNotFoundError, match="is it the folder of this set|none of|no such"):
    source(name, tmp_path, split="all", **fields)
  with pytest.raises(FileNotFoundError, match="no such folder"):
    source(name, tmp_path / "gone", split="all", **fields)
