"""`read` for a decoder process that must stay under a gigabyte: beyond it, the process ends."""

import os

from hulu_jax.core import memory
from hulu_jax.media import read as read_media
from hulu_jax.media.types import Media

MOST = 1 << 30  # bytes
EXCESS = 77  # the exit code, which `worker.Reader` names in its error


def read(path, options, **more) -> Media:
  """As `media.read`, but the process ends where its memory peaked beyond `MOST`."""
  try:
    return read_media(path, options, **more)
  finally:
    if memory.peak() > MOST:
      os._exit(EXCESS)
