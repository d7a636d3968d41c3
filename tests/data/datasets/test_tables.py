"""Rows by offset, of CSV with line breaks in quotes, JSON lines and JSON lists, as json reads."""

import csv
import gzip
import io
import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets import json_list
from hulu_jax.data.datasets import jsonl
from hulu_jax.media.errors import BadRecord

# What breaks a splitter: quotes, separators, line breaks of all kinds, letters of several bytes.
cells = st.text(alphabet='ab",;\n\r "ü\u2028{}[]\\', max_size=8)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6), st.sampled_from(",;"))
def test_csv_rows_are_those_of_the_csv_module(tmp_path_factory, rows, delimiter):
  path = tmp_path_factory.mktemp("csv") / "a.csv"
  text = io.StringIO(newline="")
  writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
  writer.writerows([("x", "y"), *rows])
  path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
  table = _tables.Csv(path, ("x", "y"), delimiter)
  found = list(table.scan())
  assert [(row["x"], row["y"]) for _, row in found] == rows
  for offset, row in reversed(found):
    assert table.at(offset) == row


def test_csv_says_what_is_wrong(tmp_path):
  path = tmp_path / "a.csv"
  path.write_bytes(b"x,y\n1,2\n\n3\n\xff,4\n5,6")
  table = _tables.Csv(path, ("x",))
  offsets, rows = zip(*table.scan(), strict=True)
  assert rows[0] == {"x": "1", "y": "2"} and rows[3] == {"x": "5", "y": "6"}
  assert "a row of 1 fields; expected 2" in rows[1].reason
  assert "UnicodeDecodeError" in rows[2].reason
  with pytest.raises(BadRecord, match="1 fields"):
    table.at(offsets[1])
  with pytest.raises(ValueError, match="no column z; there are x, y"):
    _tables.Csv(path, ("x", "z"))


def test_small_tables_may_be_packed(tmp_path):
  (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfx;y\n1;2\n"))
  assert _tables.small(tmp_path / "a.csv", ("x", "y"), ";") == [{"x": "1", "y": "2"}]
  with pytest.raises(FileNotFoundError):
    _tables.small(tmp_path / "b.csv", ())


def test_json_lines_by_offset(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text('{"t": "größer\u2028"}\n\n[1]\n{"t": 2}')
  table = _tables.Jsonl(path)
  found = list(table.scan())
  assert [row for _, row in found][::2] == [{"t": "größer\u2028"}, {"t": 2}]
  assert table.at(found[2][0]) == {"t": 2}
  with pytest.raises(BadRecord, match="a list; expected an object"):
    table.at(found[1][0])
  with pytest.raises(ValueError, match="line 3: a list"):
    list(_tables.objects(path))


json_values = st.recursive(
  st.one_of(cells, st.integers(), st.none()),
  lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(cells, inner, max_size=3)),
  max_leaves=6,
)


@given(
  st.lists(st.dictionaries(cells, json_values, max_size=3), min_size=1, max_size=5),
  st.sampled_from([None, 1]),
  st.booleans(),
)
def test_a_json_list_is_read_as_json_reads_it(tmp_path_factory, rows, indent, ascii_only):
  path = tmp_path_factory.mktemp("json") / "a.json"
  path.write_text(json.dumps(rows, indent=indent, ensure_ascii=ascii_only))
  source = json_list.Source(path=str(path))
  assert [source[i] for i in reversed(range(len(source)))] == rows[::-1]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "an empty file"),
    ("[]", "a list without objects"),
    ('{"id": 1}\n{"id": 2}', "one object a line is a file for `jsonl`"),
    ('[{"id": 1}, {"id": 2', "is the file cut off"),
  ],
)
def test_a_json_list_says_what_is_wrong(tmp_path, text, message):
  path = tmp_path / "a.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    json_list.Source(path=str(path))


def test_an_object_that_is_none(tmp_path):
  path = tmp_path / "a.json"
  path.write_text('[{"id": 1}, {"id": }, [3]]')
  source = json_list.Source(path=str(path))
  assert source[0] == {"id": 1}
  assert "object 2: not JSON" in source[1].reason
  assert "object 3: a list" in source[2].reason


def test_both_forms_hold_the_same_records(tmp_path):
  rows = [{"id": n, "conversations": []} for n in range(5)]
  (tmp_path / "a.json").write_text(json.dumps(rows))
  (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
  lists = json_list.Source(path=str(tmp_path / "a.json"))
  lines = jsonl.Source(path=str(tmp_path / "a.jsonl"))
  assert [lists[i] for i in range(5)] == [lines[i] for i in range(5)] == rows
