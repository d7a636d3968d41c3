"""One einsum for every weight: a new kind of weight (low-rank, int8) registers its own rule."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.core import sharding

# The letters of an equation are logical axes, so the sharding of a result is read off the equation.
LETTERS = {
  "b": "batch",
  "s": "seq",
  "e": "act_embed",
  "h": "heads",
  "k": "kv_heads",
  "d": "head_dim",
  "m": "mlp",
  "v": "vocab",
  "p": "pixels",
  "f": "act_embed",
}


def einsum(equation: str, x: jax.Array, w: Any) -> jax.Array:
  """x times the weight `w` as spelled by `equation`, e.g. "bse,ehd->bshd", in x's dtype."""
  result = equation.split("->")[1]
  return _apply(w, equation, x, sharding.spec(tuple(LETTERS[letter] for letter in result)))


@functools.singledispatch
def _apply(w: Any, equation: str, x: jax.Array, out: jax.P | None) -> jax.Array:
  return jnp.einsum(equation, x, w.astype(x.dtype), out_sharding=out)


register = _apply.register
