"""Files to frames with geometry: `read` is the one entry, `Reader` the same in its own process."""

from hulu_jax.media.errors import KINDS
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.from_json import options
from hulu_jax.media.limits import DEFAULT
from hulu_jax.media.limits import Limits
from hulu_jax.media.read import phases
from hulu_jax.media.read import read
from hulu_jax.media.types import PRESETS
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options
from hulu_jax.media.worker import Reader

__all__ = [
  "DEFAULT",
  "KINDS",
  "PRESETS",
  "BadRecord",
  "Limits",
  "Media",
  "Options",
  "Reader",
  "options",
  "phases",
  "read",
]
