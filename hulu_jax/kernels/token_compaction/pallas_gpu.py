"""Token compaction on NVIDIA GPUs through Pallas' Triton backend: one program a kept token.

A program gathers the rows of its merge block by address, so no feature of a dropped token is read.
Why Triton: see the visual tokenizer's GPU kernels.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
import jax.numpy as jnp

from hulu_jax.kernels.token_compaction import layout
from hulu_jax.kernels.token_compaction.reference import Sizes


class _Block(NamedTuple):
  """One token's patches as unit features, and rsqrt of variance, float32; which of the rows and
  columns are real; how many patches there are."""

  unit: jax.Array
  inverse: jax.Array
  rows: jax.Array
  columns: jax.Array
  count: Any


def _load(x: Any, starts: Any, counts: Any, *, most: int, eps: float) -> _Block:
  b, v = pl.program_id(0), pl.program_id(1)
  start, count, width = starts[b, v], counts[b, v], x.shape[2]
  row = jnp.arange(pl.next_power_of_2(most))
  column = jnp.arange(pl.next_power_of_2(width))
  rows, columns = (row < count)[:, None], (column < width)[None, :]
  place = x.at[b, (start + row)[:, None], column[None, :]]
  y = plt.load(place, mask=rows & columns, other=0).astype(jnp.float32)
  y = jnp.where(columns, y - jnp.sum(y, axis=1, keepdims=True) / width, 0.0)
  inverse = jax.lax.rsqrt(jnp.sum(y * y, axis=1, keepdims=True) / width + eps)
  return _Block(y * inverse, inverse, rows, columns, count)


def _row(ref: Any, place: tuple[Any, ...], block: _Block) -> jax.Array:
  """float32 [padded embed]: the `embed` numbers at `place`, then zeros."""
  columns = block.columns[0]
  where = (*place, jnp.arange(columns.shape[0]))
  return plt.load(ref.at[where], mask=columns, other=0).astype(jnp.float32)


def _pooled(block: _Block) -> jax.Array:
  share = 1.0 / jnp.maximum(block.count, 1).astype(jnp.float32)
  return jnp.sum(jnp.where(block.rows, block.unit, 0.0), axis=0) * share


def _store(ref: Any, value: jax.Array, block: _Block) -> None:
  """Of this program's token."""
  columns = block.columns[0]
  where = (pl.program_id(0), pl.program_id(1), jnp.arange(columns.shape[0]))
  plt.store(ref.at[where], value.astype(ref.dtype), mask=columns)


def _forward_kernel(
  x: Any, starts: Any, counts: Any, scale: Any, bias: Any, out: Any, *, most: int, eps: float
) -> None:
  block = _load(x, starts, counts, most=most, eps=eps)
  token = _pooled(block) * _row(scale, (), block) + _row(bias, (), block)
  _store(out, jnp.where(block.count > 0, token, 0.0), block)


def _backward_kernel(*refs: Any, most: int, eps: float) -> None:
  x, starts, counts, scale, g, d_rows, unit = refs
  block = _load(x, starts, counts, most=most, eps=eps)
  b, v, width = pl.program_id(0), pl.program_id(1), x.shape[2]
  share = 1.0 / jnp.maximum(block.count, 1).astype(jnp.float32)
  by = (_row(g, (b, v), block) * _row(scale, (), block) * share)[None, :]
  along = jnp.sum(by * block.unit, axis=1, keepdims=True) / width
  d_x = block.inverse * (by - jnp.sum(by, axis=1, keepdims=True) / width - block.unit * along)
  row, column = jnp.arange(d_x.shape[0]), jnp.arange(d_x.shape[1])
  place = d_rows.at[b, (v * most + row)[:, None], column[None, :]]
  d_x = jnp.where(block.rows, d_x, 0.0).astype(d_rows.dtype)
  plt.store(place, d_x, mask=(row < most)[:, None] & block.columns)
  _store(unit, _pooled(block), block)


def _call(
  kernel: Any, index: jax.Array, out: Any, *, sizes: Sizes, eps: float, interpret: bool
) -> Any:
  return pl.pallas_call(
    functools.partial(kernel, most=layout.largest(sizes), eps=eps),
    grid=index.shape,
    out_shape=out,
    compiler_params=plt.CompilerParams(num_warps=8, num_stages=1),
    interpret=interpret,
    name="token_compaction" + kernel.__name__.removesuffix("_kernel"),
  )


def forward(
  x: jax.Array,
  index: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  *,
  sizes: Sizes,
  eps: float,
  interpret: bool,
) -> jax.Array:
  """`reference.compact`, but reading kept blocks only; scale, bias: float32 [embed]."""
  out = jax.ShapeDtypeStruct((*index.shape, x.shape[2]), x.dtype)
  call = _call(_forward_kernel, index, out, sizes=sizes, eps=eps, interpret=interpret)
  return call(x, *layout.blocks(index, sizes), scale, bias)


def backward(
  x: jax.Array,
  index: jax.Array,
  scale: jax.Array,
  g: jax.Array,
  *,
  sizes: Sizes,
  eps: float,
  interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Of `forward`: gradients of the patches of kept blocks [batch, V * largest block, embed], those
  of a smaller block followed by zeros; of scale and bias, float32 [embed]."""
  start, count = layout.blocks(index, sizes)
  (batch, tokens), width = index.shape, x.shape[2]
  out = [
    jax.ShapeDtypeStruct((batch, tokens * layout.largest(sizes), width), x.dtype),
    jax.ShapeDtypeStruct((batch, tokens, width), jnp.float32),
  ]
  call = _call(_backward_kernel, index, out, sizes=sizes, eps=eps, interpret=interpret)
  d_rows, unit = call(x, start, count, scale, g)
  own = jnp.where((count > 0)[..., None], g.astype(jnp.float32), 0.0)
  return d_rows, jnp.sum(own * unit, axis=(0, 1)), jnp.sum(own, axis=(0, 1))
