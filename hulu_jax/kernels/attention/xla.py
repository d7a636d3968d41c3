"""Segment-aware attention block by block, in plain jnp: memory linear in length, on any platform.

The online softmax and its backward by recomputation are those of FlashAttention-2 (Dao 2023,
algorithms 1 and 2).  Pairs of blocks that share no segment are left out at run time, so the cost of
a slot of many frames or a row of many short samples grows with their number, not with its square.
"""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
import numpy as np

from hulu_jax.kernels.attention import names
from hulu_jax.kernels.attention import reference
from hulu_jax.kernels.attention import rows as rows_lib

# Queries and keys of one block at most.
BLOCK = 512
# Logits in memory at once: what this many hold is one dense block, and more rows wait their turn.
# 8 MB of float32 stays in a CPU's cache (benchmarks/encoder_own_ceiling.py measures the result).
LOGITS = 2**21


class _Rows(NamedTuple):
  """Some rows, heads before tokens: q [r, kv_heads, group, queries, head_dim], k and v [r,
  kv_heads, n, head_dim]; own: the queries' segments, segments: the keys'."""

  q: jax.Array
  k: jax.Array
  v: jax.Array
  own: jax.Array
  segments: jax.Array


def attention(
  q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, *, causal: bool
) -> jax.Array:
  """Softmax attention of every token over its own segment; see `api.attention` for the shapes."""
  *lead, n, heads, _ = q.shape
  if math.prod(lead) * heads * n * n <= LOGITS:
    return reference.attention(q, k, v, segments, causal=causal)
  block = rows_lib.block_size(n, most=BLOCK, multiple=8)
  return blockwise(q, k, v, segments, causal=causal, block=block)


def blockwise(
  q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, *, causal: bool, block: int
) -> jax.Array:
  """`attention` in blocks of `block` tokens, whatever the size."""
  (own_q, own_k, own_v), numbers = rows_lib.padded((q, k, v), segments, block)
  out = _attention(own_q, own_k, own_v, numbers, causal, block)
  return out[:, : q.shape[-3]].reshape(q.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q, k, v, segments, causal, block):
  return forward(q, k, v, segments, segments, None, causal, block)[0]


def forward(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  own: jax.Array,
  segments: jax.Array,
  start: jax.Array | None,
  causal: bool,
  block: int,
) -> tuple[jax.Array, jax.Array]:
  """Attended values, and the logarithm of every query's softmax sum [rows, queries, heads, 1].

  own, segments: of queries and keys, each a multiple of `block`; start: see `over_pairs`.
  """
  one = functools.partial(_forward_rows, start=start, causal=causal, block=block)
  return _in_turn(one, (q, k, v, own, segments), q.shape[2] * block**2)


def named(made: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
  """Output and softmax sums under the name by which a rematerialisation policy keeps them."""
  out, sums = made
  return checkpoint_name(out, names.SAVED), checkpoint_name(sums, names.SAVED)


def _forward_named(q, k, v, segments, causal, block):
  out, sums = named(forward(q, k, v, segments, segments, None, causal, block))
  return out, (q, k, v, segments, out, sums)


def backward(causal: bool, block: int, saved: tuple[jax.Array, ...], d_out: jax.Array) -> Any:
  """Gradients of (q, k, v, segments), for a forward by any kernel.

  saved: q, k, v, segments as [rows, n, ...] with n a multiple of `block`, the output, and the
  logarithm of every query's softmax sum [rows, n, heads, 1], 0 for padding.
  """
  q, k, v, segments, out, sums = saved
  saved = (q, k, v, segments, segments, out, sums)
  return (*gradients(saved, d_out, None, causal, block), None)


def gradients(
  saved: tuple[jax.Array, ...],
  d_out: jax.Array,
  start: jax.Array | None,
  causal: bool,
  block: int,
) -> tuple[jax.Array, ...]:
  """Gradients of (q, k, v); saved: q, k, v, own, segments as in `forward`, and what it gave."""
  one = functools.partial(_backward_rows, start=start, causal=causal, block=block)
  return _in_turn(one, (*saved, d_out), d_out.shape[2] * block**2)


_attention.defvjp(_forward_named, backward)


def _in_turn(f, arrays, logits):
  """f over groups of rows; `logits` are what one row has in memory."""
  rows = arrays[0].shape[0]
  at_once = max(r for r in range(1, rows + 1) if rows % r == 0 and (r == 1 or r * logits <= LOGITS))
  if at_once == rows:
    return f(arrays)
  grouped = [x.reshape(rows // at_once, at_once, *x.shape[1:]) for x in arrays]
  return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), jax.lax.map(f, grouped))


def _forward_rows(arrays, start, causal, block):
  q, k, v, own, segments = arrays
  rows = _heads_first(q, k, v, own, segments)

  def body(pair, state):
    acc, top, total = state
    i, j = pair
    logits = _logits(rows, i, j, start, causal, block)
    old = _take(top, i, block)
    new = jnp.maximum(old, logits.max(axis=-1, keepdims=True))
    weights, keep = jnp.exp(logits - new), jnp.exp(old - new)
    found = _product("rkgqt,rktd->rkgqd", weights.astype(v.dtype), _take(rows.v, j, block))
    return (
      _put(acc, _take(acc, i, block) * keep + found, i, block),
      _put(top, new, i, block),
      _put(total, _take(total, i, block) * keep + weights.sum(-1, keepdims=True), i, block),
    )

  shape = (*rows.q.shape[:-1], 1)
  nothing = (
    jnp.zeros(rows.q.shape, jnp.float32),
    jnp.full(shape, reference.MASKED, jnp.float32),
    jnp.zeros(shape, jnp.float32),
  )
  acc, top, total = over_pairs(body, nothing, (own, segments), start, causal, block)
  real = (own > 0)[:, None, None, :, None]
  total = jnp.where(real, total, 1.0)
  out = jnp.where(real, acc / total, 0.0).astype(v.dtype)
  return _heads_last(out), _heads_last(jnp.where(real, top + jnp.log(total), 0.0))


def _backward_rows(arrays, start, causal, block):
  q, k, v, own, segments, out, sums, d_out = arrays
  # What leaves a padding token is zero whatever went in.
  d_out = jnp.where(own[..., None, None] > 0, d_out, 0)
  moved = out.astype(jnp.float32) * d_out.astype(jnp.float32)
  pulled = _group(moved.sum(axis=-1, keepdims=True), k)
  d_out, sums = _group(d_out.astype(v.dtype), k), _group(sums, k)
  rows = _heads_first(q, k, v, own, segments)
  scale = q.shape[-1] ** -0.5

  def body(pair, state):
    dq, dk, dv = state
    i, j = pair
    own_d = _take(d_out, i, block)
    logits = _logits(rows, i, j, start, causal, block)
    weights = jnp.exp(logits - _take(sums, i, block))
    d_weights = _product("rkgqd,rktd->rkgqt", own_d, _take(rows.v, j, block))
    d_logits = weights * (d_weights - _take(pulled, i, block)) * scale
    d_logits, weights = d_logits.astype(q.dtype), weights.astype(v.dtype)
    more_q = _product("rkgqt,rktd->rkgqd", d_logits, _take(rows.k, j, block))
    more_k = _product("rkgqt,rkgqd->rktd", d_logits, _take(rows.q, i, block))
    more_v = _product("rkgqt,rkgqd->rktd", weights, own_d)
    return (
      _put(dq, _take(dq, i, block) + more_q, i, block),
      _put(dk, _take(dk, j, block) + more_k, j, block),
      _put(dv, _take(dv, j, block) + more_v, j, block),
    )

  nothing = tuple(jnp.zeros(x.shape, jnp.float32) for x in (rows.q, rows.k, rows.v))
  dq, dk, dv = over_pairs(body, nothing, (own, segments), start, causal, block)
  return (
    _heads_last(dq).astype(q.dtype),
    jnp.moveaxis(dk, 1, 2).astype(k.dtype),
    jnp.moveaxis(dv, 1, 2).astype(v.dtype),
  )


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _heads_first(q, k, v, own, segments):
  return _Rows(_group(q, k), jnp.moveaxis(k, 2, 1), jnp.moveaxis(v, 2, 1), own, segments)


def _group(x, k):
  """[r, n, heads, d] -> [r, kv_heads, group, n, d], the kv heads being those of k [r, n, ...]."""
  r, n, heads, d = x.shape
  return jnp.moveaxis(x, 2, 1).reshape(r, k.shape[2], heads // k.shape[2], n, d)


def _heads_last(x):
  """[r, kv_heads, group, n, d] -> [r, n, heads, d]."""
  r, kv_heads, group, n, d = x.shape
  return jnp.moveaxis(x.reshape(r, kv_heads * group, n, d), 1, 2)


def _logits(rows, i, j, start, causal, block):
  """float32 logits of query block i with key block j: [r, kv_heads, group, block, block]."""
  logits = _product("rkgqd,rktd->rkgqt", _take(rows.q, i, block), _take(rows.k, j, block))
  own = _take(rows.own[..., None], i, block)[..., 0]
  other = _take(rows.segments[..., None], j, block)[..., 0]
  seen = (own[:, :, None] == other[:, None, :]) & (own[:, :, None] > 0)
  if causal:
    order = jnp.arange(block)
    place = i * block if start is None else start + i * block
    seen &= place + order[:, None] >= j * block + order[None, :]
  logits = logits * rows.q.shape[-1] ** -0.5
  return jnp.where(seen[:, None, None], logits, reference.MASKED)


def over_pairs(
  body: Callable[[tuple[jax.Array, jax.Array], Any], Any],
  state: Any,
  segments: tuple[jax.Array, jax.Array],
  start: jax.Array | None,
  causal: bool,
  block: int,
) -> Any:
  """body(pair, state) over the pairs (query block, key block) in which some query sees some key.

  segments: of queries and keys, int [rows, n], each n a multiple of `block`; start: place of the
  first query in its row, None where the queries are the row.  Which pairs those are is known at run
  time only, so a loop of that many turns runs over a list that has them first.  Returns the last
  state.
  """
  blocks, others = (numbers.shape[1] // block for numbers in segments)
  aligned = causal and start is None
  pairs = [(i, j) for i in range(blocks) for j in range(i + 1 if aligned else others)]
  queries, keys = (np.array(side, np.int32) for side in zip(*pairs, strict=True))
  first, last = _range(segments[0], block)
  first_key, last_key = _range(segments[1], block)
  meet = (first[:, queries] <= last_key[:, keys]) & (first_key[:, keys] <= last[:, queries])
  meet = meet.any(axis=0)
  if causal and start is not None:
    meet &= start + (queries + 1) * block > keys * block
  order = jnp.argsort(~meet, stable=True)
  table = jnp.asarray(pairs, jnp.int32)[order]
  return jax.lax.fori_loop(0, meet.sum(), lambda p, s: body((table[p, 0], table[p, 1]), s), state)


def _range(segments, block):
  """Of each block of [rows, n], the lowest number of a segment and the highest."""
  numbers = segments.reshape(len(segments), -1, block)
  real = jnp.where(numbers > 0, numbers, jnp.iinfo(numbers.dtype).max)
  return real.min(axis=-1), numbers.max(axis=-1)


def _take(x, i, block):
  """Block i of x [..., n, d] along n."""
  return jax.lax.dynamic_slice_in_dim(x, i * block, block, axis=x.ndim - 2)


def _put(x, part, i, block):
  return jax.lax.dynamic_update_slice_in_dim(x, part, i * block, axis=x.ndim - 2)
