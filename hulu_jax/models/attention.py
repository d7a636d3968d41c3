"""Attention as the models use it: frames inside the slots of an encoder, samples inside a row."""

import einops
import jax
import jax.numpy as jnp

from hulu_jax.core import context
from hulu_jax.kernels.attention import api
from hulu_jax.kernels.attention import over_context


def in_slots(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: tuple[jax.Array, ...],
  implementation: str,
) -> jax.Array:
  """Every patch over its own frame.  q, k, v: [batch, all patches, heads, head_dim], the slots of
  all groups one after the other; segments[g]: int [batch, slots, size], 0 is padding.

  Returns the shape of q; what belongs to padding is zero.
  """
  out, start = [], 0
  for own in segments:
    slots, size = own.shape[1:]
    here = (t[:, start : start + slots * size] for t in (q, k, v))
    own_q, own_k, own_v = (einops.rearrange(t, "b (s n) h d -> b s n h d", s=slots) for t in here)
    seen = api.attention(own_q, own_k, own_v, own, causal=False, implementation=implementation)
    out.append(einops.rearrange(seen, "b s n h d -> b (s n) h d"))
    start += slots * size
  return jnp.concatenate(out, axis=1)


def in_rows(
  q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, implementation: str
) -> jax.Array:
  """Every token over itself and what came before it in its sample.

  q: [batch, seq, heads, head_dim]; k, v with kv_heads; segments: int [batch, seq], 0 is padding.
  Under a mesh with context all four are dealt over it (`core.context.deal`).  Returns the shape of
  q; what belongs to padding is zero.
  """
  if context.ways() > 1:
    return over_context.attention(q, k, v, segments, implementation=implementation)
  return api.attention(q, k, v, segments, causal=True, implementation=implementation)
