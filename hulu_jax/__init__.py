"""hulu_jax: train, run and convert Hulu-Med, one medical vision-language model, in JAX.

`hulu_jax.load` is the door for users; everything else is imported by its module.  The import is
lazy so that `hulu inspect` starts without JAX.
"""

import os
from typing import Any

# XLA sizes its CPU thread pool from NPROC.  With fewer threads than emulated devices need, a
# collective waits for ever for a thread that another collective holds; unused threads cost nothing.
os.environ.setdefault("NPROC", "32")

__all__ = ["load"]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module 'hulu_jax' has no attribute {name!r}; it offers {__all__}")
  from hulu_jax import api

  return getattr(api, name)
