"""Several decoder processes behind one `read`: threads need not wait for each other's files."""

import contextlib
from pathlib import Path
import queue
from types import TracebackType

from hulu_jax.media.types import Media
from hulu_jax.media.types import Options
from hulu_jax.media.worker import Reader


class Readers:
  """As many `media.worker.Reader`s as threads read; a context manager.

  timeout: seconds a file may take.
  """

  def __init__(self, count: int, timeout: float):
    self._exit = contextlib.ExitStack()
    self._free: queue.SimpleQueue[Reader] = queue.SimpleQueue()
    for _ in range(count):
      self._free.put(self._exit.enter_context(Reader(timeout=timeout)))

  def __enter__(self) -> "Readers":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._exit.close()

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
    reader = self._free.get()
    try:
      return reader.read(path, options, preset=preset, root=root, key=key)
    finally:
      self._free.put(reader)
