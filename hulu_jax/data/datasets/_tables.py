"""Rows of JSONL and CSV files by offset: one pass to see them all, nothing held in memory."""

from collections.abc import Iterator, Mapping, Sequence
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any, Protocol

from hulu_jax.media.errors import BadRecord


class Table(Protocol):
  """Rows of a file, found by where they begin."""

  def scan(self) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """Every row with its offset in bytes, in order; blank ones do not count."""

  def at(self, offset: int) -> dict[str, Any]:
    """The row that begins there.  Raises BadRecord if it is none."""


class Jsonl:
  """A file of JSON objects, one a line."""

  def __init__(self, path: Path):
    self._path = path

  def scan(self) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    for offset, _, line in lines(self._path):
      yield offset, parse(line)

  def at(self, offset: int) -> dict[str, Any]:
    with self._path.open("rb") as file:
      file.seek(offset)
      row = parse(file.readline())
    if isinstance(row, BadRecord):
      raise row
    return row


class Csv:
  """A CSV file with a header; a quoted field may hold line breaks.

  Raises:
    ValueError: a header without one of `columns`.
  """

  def __init__(self, path: Path, columns: Sequence[str], delimiter: str = ","):
    self._path, self._delimiter = path, delimiter
    with path.open("rb") as file:
      first = file.readline()
    self._begin = len(first)
    self._names = self._fields(first.removeprefix(b"\xef\xbb\xbf"))
    check_columns(path, self._names, columns)

  def scan(self) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    with self._path.open("rb") as file:
      file.seek(self._begin)
      offset = self._begin
      while raw := _quoted_line(file):
        if raw.strip():
          yield offset, self._row(raw)
        offset += len(raw)

  def at(self, offset: int) -> dict[str, Any]:
    with self._path.open("rb") as file:
      file.seek(offset)
      row = self._row(_quoted_line(file))
    if isinstance(row, BadRecord):
      raise row
    return row

  def _row(self, raw: bytes) -> dict[str, Any] | BadRecord:
    try:
      fields = self._fields(raw)
    except (UnicodeDecodeError, csv.Error) as error:
      return BadRecord("format", f"a damaged row ({type(error).__name__}); expected CSV in UTF-8")
    if len(fields) != len(self._names):
      return BadRecord("format", f"a row of {len(fields)} fields; expected {len(self._names)}")
    return dict(zip(self._names, fields, strict=True))

  def _fields(self, raw: bytes) -> list[str]:
    text = io.StringIO(raw.decode(), newline="")
    return next(csv.reader(text, delimiter=self._delimiter))


def lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
  """(offset, number from 1, bytes) of the lines that are not blank."""
  offset = 0
  with path.open("rb") as file:
    for number, line in enumerate(file, start=1):
      if line.strip():
        yield offset, number, line
      offset += len(line)


def parse(line: bytes) -> dict[str, Any] | BadRecord:
  """The JSON object of a line, or why it is none."""
  try:
    row = json.loads(line)
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
    return BadRecord("format", f"not JSON ({what or 'not UTF-8'})")
  if not isinstance(row, dict):
    return BadRecord("format", f"a {type(row).__name__}; expected an object")
  return row


def load(path: Path) -> Any:
  """What a JSON file holds.  Raises ValueError if it is not JSON."""
  try:
    return json.loads(path.read_bytes())
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f"{path}: not a JSON file ({type(error).__name__})") from None


def listing(path: Path) -> list[dict[str, Any]]:
  """A JSON file that is one list of objects.  Raises ValueError if it is not."""
  found = load(path)
  if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
    raise ValueError(f"{path}: expected one JSON list of objects")
  return found


def small(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
  """All rows of a CSV file that fits in memory, packed by gzip or not.

  Raises:
    FileNotFoundError: neither `path` nor `path`.gz.
    ValueError: a header without one of `columns`.
  """
  found = packed_or_not(path)
  with gzip.open(found, "rb") if found != path else path.open("rb") as file:
    reader = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=delimiter)
    check_columns(path, reader.fieldnames or (), columns)
    return list(reader)


def packed_or_not(path: Path) -> Path:
  """`path`.gz where it is there, else `path`."""
  packed = path.with_name(path.name + ".gz")
  return packed if packed.is_file() else path


def check_columns(path: Path, found: Sequence[str], expected: Sequence[str]) -> None:
  """Raises ValueError if a column is missing."""
  if missing := [name for name in expected if name not in found]:
    raise ValueError(f"{path}: no column {', '.join(missing)}; there are {', '.join(found)}")


def need(row: Mapping[str, Any], *keys: str) -> list[Any]:
  """The values of keys.  Raises BadRecord if one is missing, or null."""
  for key in keys:
    if row.get(key) is None:
      raise BadRecord("format", f"no {key} in a row; there are {', '.join(sorted(row))}")
  return [row[key] for key in keys]


def _quoted_line(file: io.BufferedReader) -> bytes:
  """A line, and those after it while a quote is open: quotes in a field are doubled (RFC 4180)."""
  raw = file.readline()
  while raw.count(b'"') % 2 and (more := file.readline()):
    raw += more
  return raw


def objects(path: Path) -> Iterator[dict[str, Any]]:
  """The objects of a small JSONL file.  Raises ValueError on a line that is none."""
  for _, number, line in lines(path):
    row = parse(line)
    if isinstance(row, BadRecord):
      raise ValueError(f"{path}, line {number}: {row.reason}")
    yield row
