"""The meaning of segment-aware attention, in plain jnp; every other path is compared with it."""

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from hulu_jax.kernels.attention import names

# Finite, so that a row that sees nothing (padding) stays finite.
MASKED = -1e30


def attention(
  q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, *, causal: bool
) -> jax.Array:
  """Softmax attention of every token over its own segment; see `api.attention` for the shapes.

  Builds the [n, n] logits of every row and head.  A token of segment 0 (padding) gives zeros.
  """
  mask = causal_segments(segments) if causal else same_segment(segments)
  out = jnp.where(segments[..., None, None] > 0, attend(q, k, v, mask), 0)
  return checkpoint_name(out, names.SAVED)


def later(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  own: jax.Array,
  segments: jax.Array,
  start: jax.Array,
) -> jax.Array:
  """Causal `attention` of some consecutive tokens of every row over the row.

  q: [batch, queries, heads, head_dim]; k, v: [batch, n, kv_heads, head_dim]; own: int [batch,
  queries], the queries' segments; segments: int [batch, n]; start: int [], the place of the first
  query in its row.
  """
  order = start + jnp.arange(own.shape[-1])[:, None] >= jnp.arange(segments.shape[-1])
  mask = order & (own[..., :, None] == segments[..., None, :]) & (own[..., :, None] > 0)
  out = jnp.where(own[..., None, None] > 0, attend(q, k, v, mask), 0)
  return checkpoint_name(out, names.SAVED)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
  """Softmax attention under any mask, logits and softmax in float32.

  q: [..., queries, heads, head_dim]; k, v: [..., keys, kv_heads, head_dim], query head h reads
  key head h // (heads / kv_heads); mask: bool [..., queries, keys], True where a query may look.
  Returns [..., queries, heads, head_dim] in v's dtype.
  """
  *lead, queries, heads, head_dim = q.shape
  kv_heads = k.shape[-2]
  q = q.reshape(*lead, queries, kv_heads, heads // kv_heads, head_dim)
  logits = jnp.einsum("...qkgd,...tkd->...kgqt", q, k, preferred_element_type=jnp.float32)
  logits = jnp.where(mask[..., None, None, :, :], logits * head_dim**-0.5, MASKED)
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum("...kgqt,...tkd->...qkgd", weights, v).reshape(*lead, queries, heads, head_dim)


def causal_segments(segments: jax.Array) -> jax.Array:
  """Mask of packed rows: a token sees itself and what came before it in its own segment.

  segments: int [..., n], 0 is padding.  Returns bool [..., n, n], e.g. for [1, 1, 2, 0]:
    1 0 0 0
    1 1 0 0
    0 0 1 0
    0 0 0 0
  """
  order = jnp.arange(segments.shape[-1])
  return same_segment(segments) & (order[:, None] >= order[None, :])


def same_segment(segments: jax.Array) -> jax.Array:
  """Mask of frames: a patch sees every patch of its frame.  int [..., n] -> bool [..., n, n]."""
  same = segments[..., :, None] == segments[..., None, :]
  return same & (segments[..., :, None] > 0)
