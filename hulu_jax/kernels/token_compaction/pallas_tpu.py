"""Token compaction on TPU: kept merge blocks are fetched by index, normalised and pooled in VMEM.

The indices are prefetched to SMEM, and the features enter once for each token and tile of a grid
step, so that the pipeline of Pallas fetches the next step's blocks while this one's are worked on.
A row of features is moved in tiles of 8, the smallest piece of HBM that can be addressed.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from hulu_jax.kernels.token_compaction import layout
from hulu_jax.kernels.token_compaction.reference import Sizes

TOKENS = 16  # of one grid step: the rows of a bfloat16 tile
_TILE = 8
_BITS = 10  # of a packed entry that hold the number of patches of a block


def _tiles(sizes: Sizes) -> int:
  """Tiles that the blocks of any group may touch; a block may straddle where a group begins at an
  odd place."""
  most, first = 1, 0
  for patches, merge in sizes:
    block = merge**2
    offsets = {(first + i * block) % _TILE for i in range(min(patches // block, _TILE))}
    most = max([most, *((o + block - 1) // _TILE + 1 for o in offsets)])
    first += patches
  return most


class _Plan(NamedTuple):
  """What is static.  merges: patches of a block, each size once; tiles: of a token; steps: of the
  grid a row; last: tile of a row's features; width: features."""

  merges: tuple[int, ...]
  tiles: int
  steps: int
  last: int
  width: int
  eps: float


def _plan(x: jax.Array, index: jax.Array, sizes: Sizes, eps: float) -> _Plan:
  return _Plan(
    merges=tuple(sorted({merge**2 for _, merge in sizes})),
    tiles=_tiles(sizes),
    steps=pl.cdiv(index.shape[1], TOKENS),
    last=pl.cdiv(x.shape[1], _TILE) - 1,
    width=x.shape[2],
    eps=eps,
  )


def _packed(index: jax.Array, sizes: Sizes, plan: _Plan) -> jax.Array:
  """First patch and number of patches of every token in one int32, row after row."""
  start, count = layout.blocks(index, sizes)
  short = plan.steps * TOKENS - index.shape[1]
  return jnp.pad(start << _BITS | count, ((0, 0), (0, short))).reshape(-1)


def _fetch(plan: _Plan) -> list[pl.BlockSpec]:
  """One tile of features for every (token, tile) of a grid step."""

  def spec(token: int, tile: int) -> pl.BlockSpec:
    def where(b: Any, i: Any, packed: Any) -> tuple[Any, Any, int]:
      start = packed[(b * plan.steps + i) * TOKENS + token] >> _BITS
      # Where a row ends inside the first tile nothing of the second is used.
      return b, jnp.minimum((start >> 3) + tile, plan.last), 0

    return pl.BlockSpec((1, _TILE, plan.width), where)

  return [spec(token, tile) for token in range(TOKENS) for tile in range(plan.tiles)]


class _Block(NamedTuple):
  """One token's patches: tiles of unit features [8, embed] and rsqrt of variance [8, 1], both
  float32; the row of the first tile where they begin; how many there are, and one over that."""

  unit: list[jax.Array]
  inverse: list[jax.Array]
  offset: Any
  count: Any
  share: Any

  def pick(self, values: list[jax.Array], first: Any, count: Any) -> jax.Array:
    """[1, embed]: sum of rows [first, first + count) of the block, tile by tile."""
    total = jnp.zeros((1, values[0].shape[1]), jnp.float32)
    for n, value in enumerate(values):
      row = jax.lax.broadcasted_iota(jnp.int32, (_TILE, 1), 0) + n * _TILE - self.offset - first
      # Selected, not multiplied: other rows may lie past the end, and hold anything.
      total += jnp.sum(jnp.where((row >= 0) & (row < count), value, 0.0), axis=0, keepdims=True)
    return total


def _block(packed: Any, tiles: Any, token: int, plan: _Plan) -> _Block:
  step = pl.program_id(0) * plan.steps + pl.program_id(1)
  entry = packed[step * TOKENS + token]
  count, share = entry & (2**_BITS - 1), jnp.float32(0)
  for size in plan.merges:
    share = jnp.where(count == size, jnp.float32(1 / size), share)
  unit, inverse = [], []
  for tile in tiles[token * plan.tiles : (token + 1) * plan.tiles]:
    y = tile[0].astype(jnp.float32)
    y = y - jnp.mean(y, axis=1, keepdims=True)
    inverse.append(jax.lax.rsqrt(jnp.mean(y * y, axis=1, keepdims=True) + plan.eps))
    unit.append(y * inverse[-1])
  return _Block(unit, inverse, (entry >> _BITS) & (_TILE - 1), count, share)


def _forward_kernel(packed: Any, scale: Any, bias: Any, *rest: Any, plan: _Plan) -> None:
  *tiles, out, rows = rest
  for token in range(TOKENS):
    block = _block(packed, tiles, token, plan)
    mean = block.pick(block.unit, 0, block.count) * block.share
    pooled = mean * scale[...] + bias[...]
    rows[token : token + 1, :] = jnp.where(block.count > 0, pooled, 0.0)
  out[0] = rows[...].astype(out.dtype)


def _call(
  kernel: Callable[..., None],
  plan: _Plan,
  batch: int,
  *,
  extra_in: list[pl.BlockSpec],
  out: list[tuple[pl.BlockSpec, Any]],
  scratch: list[Any],
  interpret: Any,
) -> Any:
  return pl.pallas_call(
    functools.partial(kernel, plan=plan),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(batch, plan.steps),
      in_specs=[*extra_in, *_fetch(plan)],
      out_specs=[spec for spec, _ in out],
      scratch_shapes=scratch,
    ),
    out_shape=[shape for _, shape in out],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=64 * 2**20
    ),
    interpret=interpret,
    name=kernel.__name__.strip("_"),
  )


def _whole(width: int) -> pl.BlockSpec:
  return pl.BlockSpec((1, width), lambda b, i, packed: (0, 0))


def _rows(count: int, width: int) -> pl.BlockSpec:
  return pl.BlockSpec((1, count, width), lambda b, i, packed: (b, i, 0))


def forward(
  x: jax.Array,
  index: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  *,
  sizes: Sizes,
  eps: float,
  interpret: Any,
) -> jax.Array:
  """`reference.compact`, but reading kept blocks only; scale, bias: float32 [embed]."""
  plan = _plan(x, index, sizes, eps)
  batch, width = x.shape[0], plan.width
  (out,) = _call(
    _forward_kernel,
    plan,
    batch,
    extra_in=[_whole(width)] * 2,
    out=[(_rows(TOKENS, width), jax.ShapeDtypeStruct((batch, index.shape[1], width), x.dtype))],
    scratch=[pltpu.VMEM((TOKENS, width), jnp.float32)],
    interpret=interpret,
  )(_packed(index, sizes, plan), scale[None], bias[None], *[x] * (TOKENS * plan.tiles))
  return out


def _backward_kernel(packed: Any, scale: Any, g: Any, *rest: Any, plan: _Plan) -> None:
  *tiles, d_rows, d_scale, d_bias, rows = rest

  @pl.when((pl.program_id(0) == 0) & (pl.program_id(1) == 0))
  def _() -> None:
    d_scale[...] = jnp.zeros_like(d_scale)
    d_bias[...] = jnp.zeros_like(d_bias)

  most = plan.merges[-1]
  grads = g[0].astype(jnp.float32)
  for token in range(TOKENS):
    block = _block(packed, tiles, token, plan)
    # Padding may lie past the end of g, where anything is.
    own = jnp.where(block.count > 0, grads[token : token + 1, :], 0.0)
    d_bias[...] += own
    d_scale[...] += own * block.pick(block.unit, 0, block.count) * block.share
    by = own * scale[...] * block.share
    centre = jnp.mean(by, axis=1, keepdims=True)
    d_x = [
      inverse * (by - centre - unit * jnp.mean(by * unit, axis=1, keepdims=True))
      for unit, inverse in zip(block.unit, block.inverse, strict=True)
    ]
    for row in range(most):
      place = token * most + row
      rows[place : place + 1, :] = block.pick(d_x, row, jnp.where(row < block.count, 1, 0))
  d_rows[0] = rows[...].astype(d_rows.dtype)


def backward(
  x: jax.Array,
  index: jax.Array,
  scale: jax.Array,
  g: jax.Array,
  *,
  sizes: Sizes,
  eps: float,
  interpret: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Of `forward`: gradients of the patches of kept blocks [batch, V * largest block, embed], those
  of a smaller block followed by zeros; of scale and bias, float32 [embed]."""
  plan = _plan(x, index, sizes, eps)
  batch, width, most = x.shape[0], plan.width, plan.merges[-1]
  total = jax.ShapeDtypeStruct((1, width), jnp.float32)
  shape = jax.ShapeDtypeStruct((batch, index.shape[1] * most, width), x.dtype)
  d_rows, d_scale, d_bias = _call(
    _backward_kernel,
    plan,
    batch,
    extra_in=[_whole(width), _rows(TOKENS, width)],
    out=[(_rows(TOKENS * most, width), shape), (_whole(width), total), (_whole(width), total)],
    scratch=[pltpu.VMEM((TOKENS * most, width), jnp.float32)],
    interpret=interpret,
  )(_packed(index, sizes, plan), scale[None], g, *[x] * (TOKENS * plan.tiles))
  return d_rows, d_scale[0], d_bias[0]
