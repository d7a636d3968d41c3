"""hulu_jax: train, run and convert Hulu-Med, one medical vision-language model, in JAX.

`hulu_jax.load` and `hulu_jax.save` are the doors for users; everything else is imported by its
module.  The import is lazy so that `hulu inspect` starts without JAX.
"""

import os
from typing import Any

# XLA reads this when it starts: see `core.platform` for why, and for how a command undoes it.
os.environ.setdefault("NPROC", "32")

__all__ = ["load", "save"]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module 'hulu_jax' has no attribute {name!r}; it offers {__all__}")
  from hulu_jax import api

  return getattr(api, name)
