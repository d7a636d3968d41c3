"""`read` for a decoder process that must stay under a gigabyte: beyond it, the process ends."""

import os
from pathlib import Path
import resource
import sys

from hulu_jax.media import read as read_media
from hulu_jax.media.types import Media

MOST = 1 << 30  # bytes
EXCESS = 77  # the exit code, which `worker.Reader` names in its error


def read(path, options, **more) -> Media:
  """As `media.read`, but the process ends where its memory peaked beyond `MOST`."""
  try:
    return read_media(path, options, **more)
  finally:
    if peak() > MOST:
      os._exit(EXCESS)


def peak() -> int:
  """The most bytes of memory that this process has held since it began.

  On Linux `ru_maxrss` begins with what the parent held before `exec`: a pytest worker that has
  compiled models holds more than `MOST`.
  """
  if sys.platform == "linux":
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
  found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return found * (1 if sys.platform == "darwin" else 1024)
