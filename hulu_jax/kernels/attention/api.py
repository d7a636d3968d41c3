"""Picks an implementation of segment-aware attention.  The caller names it; nothing is guessed."""

import functools
import math

import jax
import jax.numpy as jnp

from hulu_jax.core import sharding
from hulu_jax.kernels.attention import names
from hulu_jax.kernels.attention import reference
from hulu_jax.kernels.attention import xla


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  *,
  causal: bool,
  implementation: str,
) -> jax.Array:
  """Softmax attention of every token over the tokens of its own segment.

  q: [batch, ..., n, heads, head_dim]; k, v: [batch, ..., n, kv_heads, head_dim], query head h reads
  key head h // (heads / kv_heads); segments: int [batch, ..., n], 0 is padding.  causal: a token
  sees itself and what came before it in its segment, else its whole segment.  Logits are divided by
  sqrt(head_dim); logits and softmax are float32.  Under an explicit mesh every device computes its
  own rows (the parts of `core.context`, where there is context) and heads.

  Returns [batch, ..., n, heads, head_dim] in v's dtype, zeros where `segments` is 0.

  Raises:
    ValueError: shapes or dtypes that do not fit together, or that this implementation does not
      support, or an unknown name; the message says what is supported and by which.
  """
  check(q, k, v, segments)
  if not math.prod(q.shape):
    return jnp.zeros(q.shape, v.dtype)
  match implementation:
    case "reference":
      return reference.attention(q, k, v, segments, causal=causal)
    case "xla":
      run = functools.partial(xla.attention, causal=causal)
    case "splash" | "splash_interpret":
      from hulu_jax.kernels.attention import pallas_tpu  # a second of import, for those who use it

      run = functools.partial(
        pallas_tpu.attention, causal=causal, interpret=implementation == "splash_interpret"
      )
    case "mosaic" | "mosaic_interpret":
      from hulu_jax.kernels.attention import mosaic_gpu

      run = functools.partial(
        mosaic_gpu.attention, causal=causal, interpret=implementation == "mosaic_interpret"
      )
    case _:
      raise ValueError(f"no attention {implementation!r}; there are: {', '.join(names.RUNS_ON)}")
  whole = ("part", *(None,) * (q.ndim - 3))
  queries, keys = (*whole, "heads", "head_dim"), (*whole, "kv_heads", "head_dim")
  inputs = (queries, keys, keys, whole)
  (out,) = sharding.per_shard(lambda *x: (run(*x),), inputs, (queries,))(q, k, v, segments)
  return out


def check(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> None:
  """Raises ValueError where shapes or dtypes do not fit together."""
  found = f"q {_form(q)}, k {_form(k)}, v {_form(v)}, segments {_form(segments)}"
  if q.ndim < 4 or q.ndim != k.ndim or k.shape != v.shape:
    raise ValueError(f"{found}: expected [batch, ..., n, heads, head_dim], k and v alike")
  if q.shape[:-2] != k.shape[:-2] or segments.shape != q.shape[:-2]:
    raise ValueError(f"{found}: expected the same [batch, ..., n] in all four")
  if q.shape[-1] != k.shape[-1] or k.shape[-2] == 0 or q.shape[-2] % k.shape[-2]:
    raise ValueError(f"{found}: expected one head_dim, and heads a multiple of kv_heads")
  if q.dtype != k.dtype or q.dtype != v.dtype or not jnp.issubdtype(q.dtype, jnp.floating):
    raise ValueError(f"{found}: expected one floating dtype in q, k and v")
  if not jnp.issubdtype(segments.dtype, jnp.integer):
    raise ValueError(f"{found}: expected integer segments")


def _form(x: jax.Array) -> str:
  return f"{jnp.dtype(x.dtype).name}{list(x.shape)}"
