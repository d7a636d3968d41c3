"""What the visual tokenizer means, in plain jnp: the oracle for every other implementation."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.core.linear import einsum


def normalise(patches: jax.Array, dtype: Any) -> jax.Array:
  """uint8 to (x / 255 - 0.5) / 0.5, worked out in float32."""
  return (patches.astype(jnp.float32) * (2.0 / 255.0) - 1.0).astype(dtype)


def embed(patches: jax.Array, kernel: Any, bias: jax.Array, *, dtype: Any) -> jax.Array:
  """uint8 [batch, seq, values] -> [batch, seq, embed] in `dtype`.

  kernel: [values, embed], an array or any weight that `core.linear` knows; bias: [embed].
  """
  return einsum("ntp,pe->nte", normalise(patches, dtype), kernel) + bias.astype(dtype)


def mask(
  tokens: jax.Array, limit: jax.Array, *, first_whole: bool, last_kept: bool
) -> tuple[jax.Array, jax.Array]:
  """uint8 [T, N, bytes] -> change score int32 [T, N], keep bool [T, N]; see `rule.Rule`.

  The score is the sum of absolute differences to the version that the token is compared with; 0 in
  the first frame.  A frame of which nothing is kept keeps its first token; that token does not
  become the version that later ones are compared with.
  """

  if last_kept:
    score, keep = _against_last_kept(tokens, limit)
  else:
    score = _change(tokens[:-1], tokens[1:])
    keep = score > limit
  score = jnp.pad(score, ((1, 0), (0, 0)))
  keep = jnp.pad(keep, ((1, 0), (0, 0)), constant_values=first_whole)
  empty = ~jnp.any(keep, axis=1)
  return score, keep.at[:, 0].set(keep[:, 0] | empty)


def _change(before: jax.Array, now: jax.Array) -> jax.Array:
  apart = jnp.maximum(before, now) - jnp.minimum(before, now)
  # The 14 rows of a patch are added first, in 16 bits, which a CPU does side by side.
  rows = math.gcd(apart.shape[-1], 14)
  columns = apart.shape[-1] // rows
  apart = apart.astype(jnp.uint16).reshape(*apart.shape[:-1], rows, columns)
  return jnp.sum(jnp.sum(apart, axis=-2, dtype=jnp.uint16), axis=-1, dtype=jnp.int32)


def _against_last_kept(tokens: jax.Array, limit: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Of all frames but the first."""

  def step(last: jax.Array, now: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    score = _change(last, now)
    keep = score > limit
    return jnp.where(keep[:, None], now, last), (score, keep)

  return jax.lax.scan(step, tokens[0], tokens[1:])[1]


def places(keep: jax.Array) -> tuple[jax.Array, jax.Array]:
  """bool [T, N] -> how many tokens are kept before each, int32 [T, N], and in all, int32."""
  flat = keep.astype(jnp.int32).reshape(-1)
  upto = jnp.cumsum(flat)
  return (upto - flat).reshape(keep.shape), upto[-1]


def kept_index(keep: jax.Array, capacity: int) -> jax.Array:
  """bool [T, N] -> int32 [capacity], the kept tokens in order; T * N past the last of them."""
  place, _ = places(keep)
  where = jnp.where(keep, place, capacity).reshape(-1)
  tokens = jnp.arange(keep.size, dtype=jnp.int32)
  return jnp.full(capacity, keep.size, jnp.int32).at[where].set(tokens, mode="drop")
