"""Records of a JSONL file, one conversation a line, read by offset: nothing is held in memory."""

from pathlib import Path
from typing import Any

import numpy as np

from hulu_jax.data import manifest as manifest_lib
from hulu_jax.data.datasets import _tables
from hulu_jax.media.errors import BadRecord


class Source:
  """Random access to the records of `path`; blank lines do not count.

  A record is {"id": ..., "messages": [...]} as docs/architecture.md describes, or has another of
  the forms of `records.normalise`; media paths are resolved later, under the experiment's
  `data.root`.

  lengths: a folder of `hulu prepare --lengths-only`, so that rows can be planned; None for none.

  Raises:
    FileNotFoundError: no such file, or no lengths.
    ValueError: an empty file, or lengths of another.
  """

  def __init__(self, *, path: str, lengths: str | None = None):
    self._path = Path(path)
    self.files: tuple[Path, ...] = (self._path,)
    places = ((offset, number) for offset, number, _ in _tables.lines(self._path))
    # Columns: where the line begins, its number from 1.
    self._places = np.fromiter(places, np.dtype((np.int64, 2)))
    if not len(self._places):
      raise ValueError(f"{path}: no records; expected one JSON object a line")
    self.lengths = None
    if lengths is not None:
      self.lengths = manifest_lib.stored_for(Path(lengths), self.files, len(self))
      self.files += tuple(manifest_lib.paths(Path(lengths)))

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> dict[str, Any] | BadRecord:
    """The record, or why the line holds none: the pipeline counts and skips it."""
    offset, line = self._places[index].tolist()
    with self._path.open("rb") as file:
      file.seek(offset)
      row = _tables.parse(file.readline())
    if isinstance(row, BadRecord):
      return BadRecord(row.kind, f"line {line}: {row.reason}")
    return row
