"""Files to frames with geometry: `read` is the one entry."""

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import DEFAULT
from hulu_jax.media.limits import Limits
from hulu_jax.media.read import read
from hulu_jax.media.types import PRESETS
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

__all__ = ["DEFAULT", "PRESETS", "BadRecord", "Limits", "Media", "Options", "read"]
