"""Segment-aware attention on TPU by JAX's splash kernels, forward and backward.

The only file that knows `jax.experimental.pallas.ops.tpu.splash_attention`.
"""

from typing import Any

import jax
from jax.experimental.pallas.ops.tpu import splash_attention as splash
import jax.numpy as jnp

from hulu_jax.core import context
from hulu_jax.core import sharding
from hulu_jax.kernels.attention import names
from hulu_jax.kernels.attention import rows as rows_lib

# Splash wants blocks of a multiple of 128 tokens.
LANES = 128
BLOCK = 512


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  *,
  causal: bool,
  interpret: bool,
) -> jax.Array:
  """Softmax attention of every token over its own segment; see `api.attention` for the shapes.

  Rows are padded with segment 0 to whole blocks.  Queries are scaled before the kernel, in their
  own dtype.  head_dim stays as it is; README.md says why 72 is not padded to 128.
  """
  n, heads, head_dim = q.shape[-3:]
  block = rows_lib.block_size(n, most=BLOCK, multiple=LANES)
  q = (q.astype(jnp.float32) * head_dim**-0.5).astype(q.dtype)
  padded, numbers = rows_lib.padded((q, k, v), segments, block)
  own_q, own_k, own_v = (jnp.moveaxis(x, 2, 1) for x in padded)
  kernel = _kernel(numbers.shape[1], heads, block, causal, interpret)
  ids = splash.SegmentIds(q=numbers, kv=numbers)
  out = jnp.moveaxis(jax.vmap(kernel)(own_q, own_k, own_v, ids), 1, 2)
  # Splash lets padding see padding.
  out = jnp.where(numbers[..., None, None] > 0, out, 0)
  return out[:, :n].reshape(q.shape)


def dealt(shape: tuple[int, ...], interpret: bool) -> tuple[Any, Any]:
  """A kernel for queries [batch, n, heads, head_dim] dealt over context, and how it lies there.

  Splash reads the place of every query from an array, so the mask of a dealt row is the causal one
  with that array in another order; each device takes its share of it.

  Raises:
    ValueError: an n of which a device's share is no whole number of blocks.
  """
  devices, n = context.ways(), shape[1]
  if n % (devices * LANES):
    raise ValueError(
      f"splash attention of rows of {n} tokens over context = {devices}; expected a multiple of "
      f"{devices * LANES}"
    )
  share = n // devices
  block = max(b for b in range(LANES, BLOCK + 1, LANES) if share % b == 0)
  heads = shape[2] // sharding.ways("heads")
  mask = splash.CausalMask((n, n))
  chunks = mask.q_sequence.reshape(2 * devices, -1)
  mask.q_sequence = chunks[list(context.order(devices))].reshape(-1)
  kernel = _make([mask] * heads, block, interpret, shards=devices)
  mesh = jax.sharding.get_abstract_mesh()
  placed = kernel.manual_sharding_spec(jax.NamedSharding(mesh, jax.P(None, context.AXIS)))
  return jax.tree.map(jax.reshard, kernel, placed), placed


def later(
  kernel: Any, q: jax.Array, k: jax.Array, v: jax.Array, own: jax.Array, segments: jax.Array
) -> jax.Array:
  """On one device: its share of the queries, by its share of what `dealt` made, over whole rows."""
  q = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
  heads_first = (jnp.moveaxis(x, 2, 1) for x in (q, k, v))
  out = jax.vmap(kernel)(*heads_first, splash.SegmentIds(q=own, kv=segments))
  return jnp.where(own[..., None, None] > 0, jnp.moveaxis(out, 1, 2), 0)


def _kernel(n, heads, block, causal, interpret):
  shape = (n, n)
  mask = splash.CausalMask(shape) if causal else splash.FullMask(shape)
  return _make([mask] * heads, block, interpret, shards=1)


def _make(masks, block, interpret, shards):
  sizes = splash.BlockSizes(
    block_q=block,
    block_kv=block,
    block_kv_compute=block,
    block_q_dkv=block,
    block_kv_dkv=block,
    block_kv_dkv_compute=block,
    block_q_dq=block,
    block_kv_dq=block,
  )
  return splash.make_splash_mha(
    splash.MultiHeadMask(masks),
    block_sizes=sizes,
    head_shards=1,
    q_seq_shards=shards,
    residual_checkpoint_name=names.SAVED,
    interpret=interpret,
  )
