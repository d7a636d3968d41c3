"""The key-value cache [layers, batch, length, kv_heads, head_dim]: a slot is a position."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hulu_jax.kernels.attention import reference


class Cache(NamedTuple):
  """Keys and values of every layer; inside a scan over layers the leading axis is gone."""

  k: jax.Array
  v: jax.Array


def pad(cache: Cache, length: int) -> Cache:
  """Room for `length` positions in all."""
  extra = length - cache.k.shape[2]
  return Cache(*(jnp.pad(x, ((0, 0), (0, 0), (0, extra), (0, 0), (0, 0))) for x in cache))


def write(cache: Cache, k: jax.Array, v: jax.Array, positions: jax.Array) -> Cache:
  """Puts one token's k and v [batch, 1, kv_heads, head_dim] at each row's own position [batch]."""

  def row(old: jax.Array, new: jax.Array, position: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), position, axis=0)

  return Cache(jax.vmap(row)(cache.k, k, positions), jax.vmap(row)(cache.v, v, positions))


def attend(q: jax.Array, cache: Cache, positions: jax.Array) -> jax.Array:
  """One query per row, q [batch, 1, heads, head_dim], over what its row holds up to `positions`.

  Slots past a row's position hold padding of the prompt until a token is written there.
  """
  seen = jnp.arange(cache.k.shape[1]) <= positions[:, None]
  return reference.attend(q, cache.k, cache.v, seen[:, None, :])
