"""One einsum for every weight: a new kind of weight (low-rank, int8) registers its own rule."""

import abc
from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.core import sharding

# The letters of an equation are logical axes, so the sharding of a result is read off the equation.
LETTERS: Mapping[str, str | None] = {
  "b": "batch",
  "s": "seq",
  "n": "part",
  "t": None,
  "e": "act_embed",
  "h": "heads",
  "k": "kv_heads",
  "d": "head_dim",
  "m": "mlp",
  "v": "vocab",
  "p": "pixels",
  "f": "act_embed",
  "r": "rank",
}


class Weight(abc.ABC):
  """A weight of more than one array: a registered dataclass of them, with a rule of its own."""

  @abc.abstractmethod
  def merged(self) -> jax.Array:
    """The one array that multiplies as this weight does, in the dtype of what it was made from."""


def plain(params: Any) -> Any:
  """A parameter tree with every `Weight` merged into one array, for those who know arrays only."""

  def one(leaf: Any) -> Any:
    return leaf.merged() if isinstance(leaf, Weight) else leaf

  return jax.tree.map(one, params, is_leaf=lambda leaf: isinstance(leaf, Weight))


def einsum(equation: str, x: jax.Array, w: Any) -> jax.Array:
  """x times the weight `w` as spelled by `equation`, e.g. "bse,ehd->bshd", in x's dtype."""
  result = equation.split("->")[1]
  return _apply(w, equation, x, sharding.spec(tuple(LETTERS[letter] for letter in result)))


@functools.singledispatch
def _apply(w: Any, equation: str, x: jax.Array, out: jax.P | None) -> jax.Array:
  return jnp.einsum(equation, x, w.astype(x.dtype), out_sharding=out)


register = _apply.register
