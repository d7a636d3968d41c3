"""The other side of `worker.Reader`: the process that decodes, and may crash or be killed."""

from collections.abc import Callable
import importlib
import os
import resource
import signal
import sys
from typing import IO

from hulu_jax.media import wire
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media


def serve() -> None:
  """Answers requests on standard input, until it ends, with what `target` makes of them.

  The first names the target and the most bytes of memory; the answer to it is that all is imported.
  """
  requests, answers = sys.stdin.buffer, _private_stdout()
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side ends this process
  take = _taker(requests)
  setup = wire.receive(take)
  target = getattr(importlib.import_module(setup["module"]), setup["name"])
  _limit(resource.RLIMIT_AS, setup["memory"])
  _limit(resource.RLIMIT_CORE, 0)
  wire.send(answers, {"ready": True})
  while True:
    try:
      wanted = wire.receive_request(take)
    except EOFError:
      return
    # An endless loop ends even where the other side was killed and cannot end it.
    signal.setitimer(signal.ITIMER_REAL, wanted.seconds + 1)
    wire.send_answer(answers, _answer(target, wanted))
    signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(target: Callable[..., Media], wanted: wire.Request) -> Media | BadRecord:
  try:
    return target(
      wanted.path,
      wanted.options,
      preset=wanted.preset,
      limits=wanted.limits,
      root=wanted.root,
      key=wanted.key,
    )
  except BadRecord as bad:
    return bad


def _private_stdout() -> IO[bytes]:
  """Standard output under another number: what a library prints must not mix with answers."""
  answers = os.fdopen(os.dup(1), "wb")
  os.dup2(2, 1)
  return answers


def _limit(what: int, most: int) -> None:
  _, hard = resource.getrlimit(what)
  most = most if hard == resource.RLIM_INFINITY else min(most, hard)
  resource.setrlimit(what, (most, most))


def _taker(stream: IO[bytes]) -> wire.Take:
  def take(count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
      raise EOFError("the other side is gone")
    return found

  return take
