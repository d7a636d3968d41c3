"""The JSONL data set: random access, blank lines, and lines that are not records."""

import pytest

from hulu_jax.data.datasets import jsonl


def test_reads_any_line_in_any_order(tmp_path):
  file = tmp_path / "a.jsonl"
  file.write_text('{"id": 0}\n\n{"id": 1, "t": "größer"}\n{"id": 2}')
  source = jsonl.Source(path=str(file))
  assert [source[i]["id"] for i in (2, 0, 1)] == [2, 0, 1]
  assert len(source) == 3 and source[1]["t"] == "größer"


def test_says_which_line_is_no_record(tmp_path):
  file = tmp_path / "a.jsonl"
  file.write_text('{"id": 0}\n\n[1]\n{oops\n')
  source = jsonl.Source(path=str(file))
  assert "line 3: a list; expected an object" in source[1].reason
  assert "line 4: not JSON" in source[2].reason


def test_an_empty_file_is_an_error(tmp_path):
  file = tmp_path / "a.jsonl"
  file.write_text("\n")
  with pytest.raises(ValueError, match="no records"):
    jsonl.Source(path=str(file))
