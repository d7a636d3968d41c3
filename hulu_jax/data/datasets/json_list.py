"""Records of a JSON file that is one list, as LLaVA's are: indexed once, read by offset."""

from collections.abc import Iterator
import mmap
from pathlib import Path
import re
from typing import Any

import numpy as np

from hulu_jax.data.datasets import _tables
from hulu_jax.media.errors import BadRecord

# A whole string, so that brackets inside it do not count; or a bracket.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[][{}]', re.DOTALL)


class Source:
  """Random access to the objects of a list, in any form of `records.normalise`.

  Raises:
    FileNotFoundError: no such file.
    ValueError: an empty file, or one that is not a list of objects; a JSONL file has its own
      plugin, `jsonl`.
  """

  def __init__(self, *, path: str):
    self._path = Path(path)
    self.files, self.lengths = (self._path,), None
    with self._path.open("rb") as file:
      if not file.read(1):
        raise ValueError(f"{path}: an empty file; expected a JSON list of objects")
      with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        self._spans = np.fromiter(_objects(text, path), np.dtype((np.int64, 2)))
    if not len(self._spans):
      raise ValueError(f"{path}: a list without objects")

  def __len__(self) -> int:
    return len(self._spans)

  def __getitem__(self, index: int) -> dict[str, Any] | BadRecord:
    """The record, or why there is none: the pipeline counts and skips it."""
    begin, end = self._spans[index].tolist()
    with self._path.open("rb") as file:
      file.seek(begin)
      row = _tables.parse(file.read(end - begin))
    if isinstance(row, BadRecord):
      return BadRecord(row.kind, f"object {index + 1}: {row.reason}")
    return row


def _objects(text: mmap.mmap, path: str) -> Iterator[tuple[int, int]]:
  """First byte and the one after the last of each object of the list, without decoding it."""
  depth, begin = 0, 0
  for token in _TOKEN.finditer(text):
    what = token.group()
    if not depth and what != b"[":
      raise ValueError(f"{path}: starts with no list; one object a line is a file for `jsonl`")
    if what in (b"{", b"["):
      if depth == 1:
        begin = token.start()
      depth += 1
    elif what in (b"}", b"]"):
      depth -= 1
      if depth == 1:
        yield begin, token.end()
  if depth:
    raise ValueError(f"{path}: {depth} brackets are not closed; is the file cut off?")
