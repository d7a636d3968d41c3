"""Several decoder processes behind one `read`: threads need not wait for each other's files."""

from pathlib import Path
import queue
from types import TracebackType

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options
from hulu_jax.media.worker import Reader

# Of a file whose decoder crashes: as many kills in a row, all during one file, are no accident.
_TRIES = 4


class Readers:
  """As many `media.worker.Reader`s as threads read; a context manager.

  timeout: seconds a file may take.  A decoder that crashes is given its file again, each time in a
  fresh process: one that somebody killed says nothing about the file, and must not change the data.
  """

  def __init__(self, count: int, timeout: float):
    self._count, self._timeout = count, timeout
    self._free: queue.SimpleQueue[Reader] = queue.SimpleQueue()
    for _ in range(count):
      self._free.put(Reader(timeout=timeout))

  def __enter__(self) -> "Readers":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Ends the processes, each when it has read its file; then no thread may read any more."""
    for _ in range(self._count):
      self._free.get().close()

  def read(
    self,
    path: str | Path,
    options: Options,
    *,
    preset: str,
    root: Path | None,
    key: bytes | None,
  ) -> Media:
    """As `Reader.read`, by whichever process is free."""

    def attempt(reader: Reader) -> Media | BadRecord:
      try:
        return reader.read(path, options, preset=preset, root=root, key=key)
      except BadRecord as bad:
        return bad

    reader = self._free.get()
    try:
      found = attempt(reader)
      for _ in range(_TRIES - 1):
        if not isinstance(found, BadRecord) or found.kind != "crash":
          break
        reader.close()
        # A new one: an old one remembers crashes, and would refuse the file in a later epoch.
        reader = Reader(timeout=self._timeout)
        found = attempt(reader)
    finally:
      self._free.put(reader)
    if isinstance(found, BadRecord):
      raise found
    return found
