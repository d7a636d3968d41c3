"""Segment-aware attention on TPU by JAX's splash kernels, forward and backward.

The only file that knows `jax.experimental.pallas.ops.tpu.splash_attention`.
"""

import jax
from jax.experimental.pallas.ops.tpu import splash_attention as splash
import jax.numpy as jnp

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


def _kernel(n, heads, block, causal, interpret):
  shape = (n, n)
  mask = splash.CausalMask(shape) if causal else splash.FullMask(shape)
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
    splash.MultiHeadMask([mask] * heads),
    block_sizes=sizes,
    head_shards=1,
    q_seq_shards=1,
    residual_checkpoint_name=names.SAVED,
    interpret=interpret,
  )
