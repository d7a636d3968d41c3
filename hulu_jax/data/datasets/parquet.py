"""Records of Parquet files in the Hugging Face layout: conversations, and pictures beside them."""

from collections.abc import Iterator, Mapping, Sequence
import importlib
import importlib.util
from pathlib import Path
import threading
from typing import Any

import numpy as np

from hulu_jax.data import llava
from hulu_jax.media.errors import BadRecord

_TALKS = ("messages", "conversations")
_PICTURES = ("images", "image")
# What is taken over as it is; see `prepared_record.KEPT`.
_BESIDE = ("group", "options", "answer", "answer_type", "explanation", "derived", "license")
_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}


class Source:
  """Random access to the rows of a file, or of all .parquet files of a folder, by name.

  Columns: `messages` or `conversations` (LLaVA); `images` or `image`, each a struct of `bytes` and
  `path`, bytes, or a path below the experiment's `data.root`; `id`, else the row's number serves.
  A whole row group is decoded for a record, the last one is kept: read in order, as `hulu prepare`
  does, this costs nothing; shuffled training should read prepared shards.

  Raises:
    FileNotFoundError: no such file, or none in the folder.
    ValueError: pyarrow is not installed, or a column is missing.
  """

  def __init__(self, *, path: str):
    self._parquet = _library()
    found = Path(path)
    self.files = tuple(sorted(found.glob("*.parquet"))) if found.is_dir() else (found,)
    self.lengths = None
    if not self.files or not found.exists():
      raise FileNotFoundError(f"{path}: no Parquet file")
    self._groups: list[tuple[int, int]] = []  # file, row group
    self._columns: list[list[str]] = []  # per file
    sizes = []
    for number, file in enumerate(self.files):
      metadata = self._parquet.read_metadata(file)
      self._columns.append(_columns(file.name, metadata.schema.to_arrow_schema().names))
      self._groups += [(number, g) for g in range(metadata.num_row_groups)]
      sizes += [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
    self._ends = np.cumsum(sizes, dtype=np.int64)
    self._lock = threading.Lock()
    self._held: tuple[int, Any] = (-1, None)

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, index: int) -> dict[str, Any] | BadRecord:
    """The record, or why the row holds none: the pipeline counts and skips it."""
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of a dataset of {len(self)}")
    group = int(np.searchsorted(self._ends, index, side="right"))
    with self._lock:
      if self._held[0] != group:
        self._held = group, self._read(group)
      table = self._held[1]
    row = table.slice(int(index - self._ends[group]) + len(table), 1).to_pylist()[0]
    try:
      return _record(row, index)
    except BadRecord as bad:
      return bad

  def _read(self, group: int) -> Any:
    file, place = self._groups[group]
    with self._parquet.ParquetFile(self.files[file]) as opened:
      return opened.read_row_group(place, columns=self._columns[file])


def _library() -> Any:
  if importlib.util.find_spec("pyarrow") is None:
    raise ValueError("Parquet is read by pyarrow: pip install 'hulu_jax[parquet]'")
  return importlib.import_module("pyarrow.parquet")


def _columns(file: str, names: Sequence[str]) -> list[str]:
  if not set(_TALKS) & set(names):
    raise ValueError(f"{file}: columns {', '.join(names)}; expected {' or '.join(_TALKS)}")
  known = ("id", *_TALKS, *_PICTURES, *_BESIDE)
  return [name for name in names if name in known]


def _record(row: Mapping[str, Any], index: int) -> dict[str, Any]:
  """{"id", "messages", ...}; pictures as `bytes` or `path` of content items."""
  given: Any = next((row[key] for key in _PICTURES if row.get(key)), [])
  pictures = [_picture(p) for p in (given if isinstance(given, list) else [given])]
  kept = {key: row[key] for key in _BESIDE if row.get(key) is not None}
  name = f"row-{index}" if row.get("id") is None else str(row["id"])
  return {"id": name, "messages": _messages(row, pictures), **kept}


def _picture(cell: Any) -> dict[str, Any]:
  fields = (
    cell if isinstance(cell, Mapping) else {"path" if isinstance(cell, str) else "bytes": cell}
  )
  for key, kind in (("bytes", bytes), ("path", str)):
    if isinstance(fields.get(key), kind) and fields[key]:
      return {"type": "image", key: fields[key]}
  raise BadRecord("format", "a picture without bytes and path")


def _messages(row: Mapping[str, Any], pictures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  talk = next((row[key] for key in _TALKS if row.get(key)), None)
  if talk is None:
    raise BadRecord("format", "a row without messages")
  if row.get("messages") and not all(isinstance(m.get("content"), str) for m in talk):
    return _in_turn(talk, pictures)
  if row.get("messages"):
    talk = [{"from": _SPEAKERS.get(m["role"], m["role"]), "value": m["content"]} for m in talk]
  # Pictures travel through LLaVA's rules of tags by their numbers.
  numbers = [str(number) for number in range(len(pictures))]
  messages = llava.to_messages({"conversations": talk, "image": numbers})
  return [
    {**m, "content": [pictures[int(i["path"])] if "path" in i else i for i in m["content"]]}
    for m in messages
  ]


def _in_turn(talk: Sequence[Any], pictures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Messages whose content is a list of items; an image without a path is the next picture."""
  coming = iter(pictures)
  messages = [{"role": m["role"], "content": list(_items(m["content"], coming))} for m in talk]
  if left := len(list(coming)):
    raise BadRecord("format", f"{left} of {len(pictures)} pictures stand in no message")
  return messages


def _items(content: Any, coming: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
  for item in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
    said = {key: value for key, value in item.items() if value is not None}
    if said.get("type") == "image" and not said.keys() & {"path", "bytes"}:
      picture = next(coming, None)
      if picture is None:
        raise BadRecord("format", "more images in the messages than pictures in the row")
      said = {**said, **picture}
    yield said
