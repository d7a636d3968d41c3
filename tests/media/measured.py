"""`read` for a decoder process that must stay under a gigabyte: beyond it, the process ends."""

import os
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak * (1 if sys.platform == "darwin" else 1024) > MOST:
      os._exit(EXCESS)
