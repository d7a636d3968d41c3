"""How `hulu data dedup` and `decontaminate` read datasets and write reports."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import inspect
import json
import os
from pathlib import Path
import re
import secrets
from typing import Any, NamedTuple, NoReturn

from hulu_jax.cli import _dataset_spec
from hulu_jax.cli import _progress
from hulu_jax.core import plugins
from hulu_jax.data import chat
from hulu_jax.data import examples
from hulu_jax.data import marks as marks_lib
from hulu_jax.data import prepare
from hulu_jax.data import vision
from hulu_jax.data.ahead import Ahead
from hulu_jax.data.examples import Builder
from hulu_jax.data.marks import Marks
from hulu_jax.media.errors import BadRecord

_AHEAD = 4  # records read ahead per thread
_SHOWN = 200  # characters of a text
# A comma before FIELD= belongs to a dataset's fields, any other one parts two datasets.
_BETWEEN = re.compile(r",(?!\w+=)")


class _NoTokenizer:
  """Stands where a `Builder` that only reads media has its tokenizer; nothing is tokenized."""

  special: Mapping[str, int] = {}
  eos: tuple[int, ...] = ()
  size = 0

  def encode(self, text: str) -> NoReturn:
    raise AssertionError("marks are made of words, not of tokens")

  def decode(self, ids: Iterable[int]) -> NoReturn:
    raise AssertionError("marks are made of words, not of tokens")

  def save(self, folder: Path) -> NoReturn:
    raise AssertionError("there is no tokenizer to save")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Set:
  """A dataset.  name: as the user wrote it; path: of its lines if it is JSONL; builder: reads its
  media; unread: filled while it is read, how many records could not be, by kind."""

  name: str
  source: Any
  path: Path | None
  builder: Builder
  unread: Counter[str]

  def marks(self, n: int, threads: int) -> Iterator[Marks | BadRecord]:
    """The marks of every record, in order, with a line of progress."""
    total = len(self.source)
    ahead = Ahead(lambda i: marks_lib.of(self.source[i], self.builder.read, n), threads)
    with contextlib.closing(ahead), _progress.Line(self.name, total) as line:
      for i in range(total):
        ahead.start(range(i, min(i + _AHEAD * threads, total)))
        found = ahead.take(i)
        if isinstance(found, BadRecord):
          self.unread[found.kind] += 1
        yield found
        line.update(i + 1, {})


def opened(texts: Sequence[str], root: str | None, *, split: str | None) -> list[Set]:
  """The datasets named on the command line.

  root: where media paths start; by default the folder of a file, and any place for a dataset, which
  names its own.  split: that is meant where a dataset has splits and the user names none.

  Raises:
    ValueError: an unknown dataset or field.
    OSError: no such file.
  """
  return [_opened(part, root, split) for text in texts for part in _BETWEEN.split(text)]


def _opened(text: str, root: str | None, split: str | None) -> Set:
  spec = _dataset_spec.parse(text)
  made = plugins.load(prepare.DATASETS, spec.name).Source
  if split is not None and "split" in inspect.signature(made).parameters:
    spec = spec._replace(fields={"split": split, **spec.fields})
  path = Path(str(spec.fields["path"])) if "path" in spec.fields else None
  start = Path(root) if root else path.parent if path else Path("/")
  builder = Builder(tokenizer=_NoTokenizer(), policy=vision.HULUMED, root=start.absolute())
  jsonl = path if spec.name == "jsonl" else None
  return Set(name=text, source=spec.open(), path=jsonl, builder=builder, unread=Counter())


class Place(NamedTuple):
  """A record: number of its set, and its own there."""

  set: int
  record: int


def places(sets: Sequence[Set]) -> list[int]:
  """Where each set begins when all stand in one row, and where the last ends."""
  starts = [0]
  for one in sets:
    starts.append(starts[-1] + len(one.source))
  return starts


def place(starts: Sequence[int], number: int) -> Place:
  """Where record `number` of all is."""
  own = max(k for k, start in enumerate(starts[:-1]) if start <= number)
  return Place(own, number - starts[own])


class Namer:
  """How reports call records: by number and a hash of the id under a key drawn for this run, which
  tells nothing about a patient; by id and text only when asked to."""

  def __init__(self, show_text: bool):
    self._show, self._key = show_text, secrets.token_bytes(32)

  def __call__(self, one: Set, record: int) -> dict[str, Any]:
    """{"set", "record", "id"} and, if asked for, {"text"}."""
    name, messages = examples.conversation(one.source[record])
    if not self._show:
      hashed = hashlib.blake2b(name.encode("utf-8", "replace"), key=self._key, digest_size=8)
      return {"set": one.name, "record": record, "id": hashed.hexdigest()}
    items = [i for m in messages for i in chat.content_items(m) if i["type"] == "text"]
    text = " | ".join(i["text"] for i in items)
    return {"set": one.name, "record": record, "id": name, "text": text[:_SHOWN]}


def write_report(path: Path, report: dict[str, Any]) -> None:
  """JSON that appears whole or not at all."""
  _replace(path, [json.dumps(report, indent=1, ensure_ascii=False) + "\n"])


def write_kept(
  path: Path, sets: Sequence[Set], dropped: Sequence[set[int]], root: str | None
) -> int:
  """The lines of JSONL sets without the dropped records, in order; how many.

  A record that could not be read stays: it was not judged, and training counts it.

  Raises:
    ValueError: a set that is no JSONL file, or files of several folders without --data-root, whose
      paths could not be told apart.
  """
  files = [one.path for one in sets]
  if None in files:
    raise ValueError(
      f"--write copies lines of .jsonl files; {sets[files.index(None)].name} is none"
    )
  if root is None and len({f.parent.absolute() for f in files if f}) > 1:
    raise ValueError("--write joins files of several folders: give --data-root, where paths start")
  count = 0

  def lines() -> Iterator[bytes]:
    nonlocal count
    for file, gone in zip(files, dropped, strict=True):
      assert file is not None
      for line in _kept_lines(file, gone):
        count += 1
        yield line

  _replace(path, lines())
  return count


def _kept_lines(path: Path, gone: set[int]) -> Iterator[bytes]:
  with path.open("rb") as file:
    numbered = enumerate(line for line in file if line.strip())
    yield from (line.rstrip(b"\r\n") + b"\n" for number, line in numbered if number not in gone)


def _replace(path: Path, parts: Iterable[str | bytes]) -> None:
  draft = path.with_name(f".{path.name}.draft")
  with draft.open("wb") as file:
    for part in parts:
      file.write(part if isinstance(part, bytes) else part.encode())
  os.replace(draft, path)


def add_options(parser: argparse.ArgumentParser) -> None:
  """What both commands take."""
  parser.add_argument("--input", metavar="SET", action="append", required=True)
  parser.add_argument("--output", metavar="REPORT.json", type=Path, help="which records, and why")
  parser.add_argument("--write", metavar="FILE.jsonl", type=Path, help="the records that stay")
  parser.add_argument(
    "--text-ngram", metavar="N", type=int, default=13, help="words of a run (default 13)"
  )
  parser.add_argument(
    "--hamming", metavar="BITS", type=int, default=4, help="that near pictures differ in, of 64"
  )
  parser.add_argument("--data-root", metavar="DIR", help="where media paths in records start")
  parser.add_argument("--threads", type=int, default=1, help="that read media (default 1)")
  parser.add_argument(
    "--show-text", action="store_true", help="ids and texts in the report: may name patients"
  )


def described(sets: Sequence[Set]) -> dict[str, Any]:
  """Names, records and what could not be read of each set, for a report."""
  return {
    "sets": [
      {"set": one.name, "records": len(one.source), "unread": dict(one.unread)} for one in sets
    ]
  }


def evidence(text: float | None, bits: float | None, exact: bool) -> dict[str, Any]:
  """Why two records are taken for one: {"text", "overlap"} and {"media", "bits"}."""
  row: dict[str, Any] = {}
  if text is not None:
    row |= {"text": "equal" if text == 1 else "n-grams", "overlap": round(text, 3)}
  if bits is not None:
    row |= {"media": "equal" if exact else "near", "bits": round(bits, 2)}
  return row


def show(summary: dict[str, Any]) -> None:
  """Prints a report's numbers, one a line."""
  for key in ("sets", "against"):
    for one in summary.get(key, ()):
      unread = ", ".join(f"{n} {kind}" for kind, n in sorted(one["unread"].items())) or "none"
      side = "input" if key == "sets" else key
      print(f"{side} {one['set']}: {one['records']} records, unread: {unread}")
  for key in ("counts", "by_benchmark", "templates"):
    for name, value in summary.get(key, {}).items():
      print(f"{key.replace('_', ' ')}: {name} {value}")
  print(f"bytes per record: {summary['bytes_per_record']}")
  if "written" in summary:
    print(f"written: {summary['written']} records")
