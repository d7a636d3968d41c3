"""Reads media in a process of its own, where a decoder that crashes or hangs costs one record.

The process is a fresh interpreter: it does not import the caller's script, and so no JAX.  What
comes back is a JSON header and raw pixels, checked here: a file that takes the decoder over cannot
make this process run anything.  POSIX only.
"""

from collections.abc import Callable
import contextlib
import json
import os
from pathlib import Path
import select
import signal
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import IO

from hulu_jax.media import privacy
from hulu_jax.media import wire
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import DEFAULT
from hulu_jax.media.limits import Limits
from hulu_jax.media.read import read
from hulu_jax.media.types import PRESETS
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

_STRIKES = 2  # after which a file is not tried again
_START_SECONDS = 120.0  # to import the decoders, on a busy machine
_STARTS = 4  # of a process that is killed before it is ready
_STOP_SECONDS = 2.0
_CHUNK = 1 << 20
# The interpreter's own search path may differ from this process's (a notebook, a test).
_START = """\
import json, sys
sys.path[:] = json.loads(sys.stdin.buffer.readline())
from hulu_jax.media import decoder
decoder.serve()
"""


class _Killed(RuntimeError):
  """A process that was killed before it was ready."""


class Reader:
  """`read` in another process, one file at a time; a context manager.

  timeout: seconds a file may take.  memory: bytes of address space the process may have.  target:
  what reads there, a function of a module; it is called as `media.read` is.  The process starts
  with the first file and serves all further ones; after a crash or a time-out the next file gets a
  new one.  A file that struck twice is refused without another try.  Safe for several threads,
  which then wait for each other.
  """

  def __init__(
    self,
    *,
    timeout: float = 60.0,
    memory: int = 8 << 30,
    target: Callable[..., Media] = read,
  ):
    if target.__qualname__ != target.__name__ or "<" in target.__name__:
      raise ValueError(f"target {target.__qualname__}; expected a function of a module, by name")
    self._timeout, self._memory, self._target = timeout, memory, target
    self._process: subprocess.Popen[bytes] | None = None
    self._strikes: dict[str, int] = {}
    self._key = privacy.current_key()
    self._lock = threading.Lock()

  def __enter__(self) -> "Reader":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.close()

  def read(
    self,
    path: str | Path,
    options: Options = Options(),  # noqa: B008 - frozen
    *,
    preset: str = "radiology",
    limits: Limits = DEFAULT,
    root: str | Path | None = None,
    key: bytes | None = None,
  ) -> Media:
    """As `media.read`.

    Raises:
      ValueError: an unknown preset, or a key too short to be one.
      BadRecord: as `media.read`; besides, of kind "timeout" or "crash".
      RuntimeError: the process cannot be started, whatever the file.
    """
    if preset not in PRESETS:
      raise ValueError(f"unknown preset {preset!r}; there are: {', '.join(PRESETS)}")
    with privacy.keyed(key):
      wanted = wire.Request(
        path=os.path.abspath(path),
        options=options,
        preset=preset,
        limits=limits,
        root=None if root is None else os.path.abspath(root),
        key=privacy.current_key(),
        seconds=self._timeout,
      )
    with self._lock:
      answer = self._answer(wanted)
    if isinstance(answer, BadRecord):
      raise answer
    return answer

  def close(self) -> None:
    """Ends the process; a later `read` starts a new one."""
    with self._lock:
      self._stop(_STOP_SECONDS)

  def _answer(self, wanted: wire.Request) -> Media | BadRecord:
    own = privacy.file_hash(wanted.path, key=self._key)  # the caller's key may change
    file = privacy.file_hash(wanted.path, key=wanted.key)
    if self._strikes.get(own, 0) >= _STRIKES:
      return BadRecord("crash", f"refused: its decoder crashed or hung {_STRIKES} times", file)
    process = self._running()
    try:
      wire.send_request(_pipe(process.stdin), wanted)
      return wire.receive_answer(_taker(_pipe(process.stdout), self._timeout), wanted.limits)
    except TimeoutError:
      self._stop(0.0)
      bad = BadRecord("timeout", f"its decoder did not end within {self._timeout:g} s", file)
    except (EOFError, BrokenPipeError):
      bad = BadRecord("crash", f"its decoder crashed ({self._stop(_STOP_SECONDS)})", file)
    except wire.Garbled:
      self._stop(0.0)
      bad = BadRecord("crash", "its decoder gave an answer that is none", file)
    except BaseException:  # an interrupt: half an answer may wait in the pipe
      self._stop(0.0)
      raise
    self._strikes[own] = self._strikes.get(own, 0) + 1
    return bad

  def _running(self) -> subprocess.Popen[bytes]:
    if self._process is not None and self._process.poll() is None:
      return self._process
    self._stop(0.0)
    for _ in range(_STARTS - 1):
      with contextlib.suppress(_Killed):  # from outside: nothing was read yet
        return self._start()
    return self._start()

  def _start(self) -> subprocess.Popen[bytes]:
    # Decoders print to standard error what files say.
    self._process = subprocess.Popen(
      [sys.executable, "-c", _START],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
    )
    setup = {"module": self._target.__module__, "name": self._target.__name__}
    try:
      stdin = _pipe(self._process.stdin)
      stdin.write(json.dumps(sys.path).encode() + b"\n")
      wire.send(stdin, setup | {"memory": self._memory})
      wire.receive(_taker(_pipe(self._process.stdout), _START_SECONDS))
    except (EOFError, BrokenPipeError, TimeoutError) as error:
      how = self._stop(_STOP_SECONDS)
      killed = how == signal.SIGKILL.name and not isinstance(error, TimeoutError)
      kind = _Killed if killed else RuntimeError
      raise kind(f"the decoder process did not start ({how})") from error
    return self._process

  def _stop(self, seconds: float) -> str:
    """Ends the process, by force if it has not ended in `seconds`; how it ended, in words."""
    process, self._process = self._process, None
    if process is None:
      return "not running"
    with contextlib.suppress(BrokenPipeError):
      _pipe(process.stdin).close()
    try:
      code = process.wait(seconds)
    except subprocess.TimeoutExpired:
      process.kill()
      code = process.wait()
    _pipe(process.stdout).close()
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
  if stream is None:
    raise ValueError("a process without pipes")
  return stream


def _taker(stream: IO[bytes], seconds: float) -> wire.Take:
  """Exactly so many bytes of `stream`, before `seconds` from now have passed."""
  end = time.monotonic() + seconds
  ready = select.poll()
  ready.register(stream, select.POLLIN)

  def take(count: int) -> bytearray:
    found = bytearray()
    while len(found) < count:
      if not ready.poll(max(0.0, end - time.monotonic()) * 1000):
        raise TimeoutError
      part = os.read(stream.fileno(), min(_CHUNK, count - len(found)))
      if not part:
        raise EOFError
      found += part
    return found

  return take
