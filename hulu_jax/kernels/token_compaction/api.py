"""Token compaction by implementation: the caller names one, and bad input raises here."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hulu_jax.kernels import names
from hulu_jax.kernels.token_compaction import layout
from hulu_jax.kernels.token_compaction import pallas_gpu
from hulu_jax.kernels.token_compaction import pallas_tpu
from hulu_jax.kernels.token_compaction import reference
from hulu_jax.kernels.token_compaction.reference import Sizes

_MOST_MERGE = 31  # a block's patches are counted in 10 bits


class Compacted(NamedTuple):
  """tokens: [batch, capacity, embed], 0 where there is none; valid: int32 [batch], tokens that are
  there; overflow: int32 [batch], tokens of the index for which there was no room."""

  tokens: jax.Array
  valid: jax.Array
  overflow: jax.Array


def compact(
  x: jax.Array,
  index: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  *,
  sizes: Sizes,
  eps: float,
  capacity: int,
  implementation: str,
) -> Compacted:
  """The encoder's last norm, the mean of every merge block and the gather of kept tokens, in order.

  x: float [batch, all patches, embed]; index: int32 [batch, V], kept visual tokens of the row's
  pooled axis (all groups in order), padding past its end; scale, bias: [embed] of the norm; sizes:
  (patches per row, merge) of each group.  Token i of the result is that of index i.

  Raises:
    ValueError, TypeError: shapes, sizes or types that do not fit, or an unknown implementation.
  """
  if implementation not in names.PALLAS:
    known = ", ".join(names.PALLAS)
    raise ValueError(f"token_compaction has no implementation {implementation!r}; it has: {known}")
  _check(x, index, scale, bias, sizes, capacity)
  total = layout.pooled(sizes)
  real = (index >= 0) & (index < total)
  count = jnp.sum(real, axis=1, dtype=jnp.int32)
  valid = jnp.sum(real[:, :capacity], axis=1, dtype=jnp.int32)
  more = max(capacity - index.shape[1], 0)
  index = jnp.where(real, index, total)[:, :capacity]
  index = jnp.pad(index, ((0, 0), (0, more)), constant_values=total)
  if not x.shape[0]:
    return Compacted(jnp.zeros((0, capacity, x.shape[2]), x.dtype), valid, count - valid)
  if implementation == "reference":
    tokens = reference.compact(x, index, scale, bias, sizes=sizes, eps=eps)
  else:
    scale, bias = scale.astype(jnp.float32), bias.astype(jnp.float32)
    tokens = _compact(x, index, scale, bias, sizes, eps, implementation)
  return Compacted(tokens, valid, count - valid)


def _check(
  x: jax.Array, index: jax.Array, scale: jax.Array, bias: jax.Array, sizes: Sizes, capacity: int
) -> None:
  if x.dtype not in (jnp.float32, jnp.bfloat16):
    raise TypeError(f"features are {x.dtype}; every implementation takes float32 or bfloat16")
  if not jnp.issubdtype(index.dtype, jnp.integer):
    raise TypeError(f"index is {index.dtype}; every implementation takes int32")
  if x.ndim != 3 or index.ndim != 2 or len(index) != len(x):
    raise ValueError(
      f"features {x.shape} and index {index.shape}; expected [batch, patches, embed], [batch, V]"
    )
  if capacity < 1:
    raise ValueError(f"capacity {capacity}; expected at least 1")
  for patches, merge in sizes:
    if not 1 <= merge <= _MOST_MERGE or patches % merge**2:
      raise ValueError(f"{patches} patches of a group do not divide into {merge} x {merge} blocks")
  if sum(patches for patches, _ in sizes) != x.shape[1] or not x.shape[1]:
    raise ValueError(f"features of {x.shape[1]} patches; the groups {sizes} hold another number")
  if x.shape[1] >= 2**21:
    raise ValueError(f"{x.shape[1]} patches a row; every implementation takes less than {2**21}")
  if scale.shape != x.shape[2:] or bias.shape != x.shape[2:]:
    raise ValueError(f"scale {scale.shape}, bias {bias.shape} for features of {x.shape[2]}")


def _module(implementation: str) -> Any:
  return pallas_tpu if implementation.startswith("pallas_tpu") else pallas_gpu


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _compact(
  x: jax.Array,
  index: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  sizes: Sizes,
  eps: float,
  implementation: str,
) -> jax.Array:
  interpret = implementation.endswith("_interpret")
  return _module(implementation).forward(
    x, index, scale, bias, sizes=sizes, eps=eps, interpret=interpret
  )


def _forward(
  x: jax.Array,
  index: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  sizes: Sizes,
  eps: float,
  implementation: str,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  return _compact(x, index, scale, bias, sizes, eps, implementation), (x, index, scale)


def _backward(
  sizes: Sizes, eps: float, implementation: str, saved: tuple[jax.Array, ...], g: jax.Array
) -> tuple[Any, ...]:
  x, index, scale = saved
  interpret = implementation.endswith("_interpret")
  d_rows, d_scale, d_bias = _module(implementation).backward(
    x, index, scale, g, sizes=sizes, eps=eps, interpret=interpret
  )
  start, count = layout.blocks(index, sizes)
  step = jnp.arange(layout.largest(sizes))
  rows = jnp.where(step < count[..., None], start[..., None] + step, x.shape[1])
  rows = rows.reshape(len(x), -1)
  d_x = jax.vmap(lambda zero, r, d: zero.at[r].add(d, mode="drop"))(jnp.zeros_like(x), rows, d_rows)
  return d_x, None, d_scale, d_bias


_compact.defvjp(_forward, _backward)
