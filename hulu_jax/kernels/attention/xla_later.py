"""Block by block, causal attention of some consecutive tokens of a row, wherever they stand in it.

The loops are those of `xla`; where the first query stands is known at run time only.
"""

import functools

import jax

from hulu_jax.kernels.attention import reference
from hulu_jax.kernels.attention import rows as rows_lib
from hulu_jax.kernels.attention import xla


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  own: jax.Array,
  segments: jax.Array,
  start: jax.Array,
) -> jax.Array:
  """Causal attention of some consecutive tokens of every row over the row: `reference.later`."""
  batch, queries, heads, _ = q.shape
  if batch * heads * queries * k.shape[1] <= xla.LOGITS:
    return reference.later(q, k, v, own, segments, start)
  block = rows_lib.block_size(queries, most=xla.BLOCK, multiple=8)
  return blockwise(q, k, v, own, segments, start, block=block)


def blockwise(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  own: jax.Array,
  segments: jax.Array,
  start: jax.Array,
  *,
  block: int,
) -> jax.Array:
  """`attention` in blocks of `block` tokens, whatever the size."""
  (own_q,), own = rows_lib.padded((q,), own, block)
  (own_k, own_v), segments = rows_lib.padded((k, v), segments, block)
  return _later(own_q, own_k, own_v, own, segments, start, block)[:, : q.shape[1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _later(q, k, v, own, segments, start, block):
  return xla.forward(q, k, v, own, segments, start, True, block)[0]


def _later_named(q, k, v, own, segments, start, block):
  out, sums = xla.named(xla.forward(q, k, v, own, segments, start, True, block))
  return out, (q, k, v, own, segments, start, out, sums)


def _later_backward(block, saved, d_out):
  q, k, v, own, segments, start, out, sums = saved
  grads = xla.gradients((q, k, v, own, segments, out, sums), d_out, start, True, block)
  return (*grads, None, None, None)


_later.defvjp(_later_named, _later_backward)
