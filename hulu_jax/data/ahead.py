"""Builds examples in threads, ahead of their use; the order of use is the caller's alone."""

from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any


class Ahead:
  """`start` what will be wanted, `take` it later; what was not started is built when taken.

  build: position -> what stands there; called in threads, so it must not depend on their order.
  `len` is what was started and not yet taken: as much as the caller asked for, never more.
  """

  def __init__(self, build: Callable[[int], Any], threads: int):
    self._build = build
    self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="examples")
    self._started: dict[int, futures.Future[Any]] = {}

  def __len__(self) -> int:
    return len(self._started)

  def start(self, positions: Iterable[int]) -> None:
    """Begins to build these, unless begun already."""
    for position in positions:
      if position not in self._started:
        self._started[position] = self._pool.submit(self._build, position)

  def take(self, position: int) -> Any:
    """What was built, once; raises what `build` raised."""
    self.start([position])
    return self._started.pop(position).result()

  def drop(self) -> None:
    """Forgets everything that was started."""
    for future in self._started.values():
      future.cancel()
    self._started.clear()

  def close(self) -> None:
    """Ends the threads; what is being built is finished and lost."""
    self._pool.shutdown(wait=True, cancel_futures=True)
