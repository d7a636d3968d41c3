"""The visual tokenizer on NVIDIA GPUs through Pallas' Triton backend.

Triton and not Mosaic GPU: one source serves both supported JAX lines, masked loads take any number
of tokens and the 588 bytes of a patch as they are (TMA would want them padded, one more pass), and
nothing here is limited by the tensor cores.  Programs run in no order, so the rule that a frame
keeps a token and the prefix sum follow in XLA, on one integer a token.
"""

import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
import jax.numpy as jnp

# Powers of two, as Triton wants; rows, columns and depth of a product.
_ROWS, _COLUMNS, _DEPTH = 64, 64, 64
# Tokens and bytes that one program compares at a time.
_TOKENS, _BYTES = 16, 256
# Shares of the rows whose weight gradients are summed apart: 10 x 18 tiles alone leave SMs idle.
_SHARES = 8


def _precision(dtype: Any) -> jax.lax.Precision | None:
  """Float32 products are rounded to TF32 unless this is said."""
  return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def _load(ref: Any, row: Any, column: Any, shape: tuple[int, int], limits: tuple[Any, int]) -> Any:
  """A tile at (row, column) of a matrix that ends at `limits`; 0 past its end."""
  inside = (row + jnp.arange(shape[0]) < limits[0])[:, None]
  inside &= (column + jnp.arange(shape[1]) < limits[1])[None, :]
  tile = ref.at[pl.ds(row, shape[0]), pl.ds(column, shape[1])]
  return plt.load(tile, mask=inside, other=0)


def _store(
  ref: Any, lead: tuple[Any, ...], row: Any, column: Any, value: jax.Array, limits: tuple[int, int]
) -> None:
  """Writes a tile of a matrix that ends at `limits`; lead: indices of the axes before it."""
  inside = (row + jnp.arange(value.shape[0]) < limits[0])[:, None]
  inside &= (column + jnp.arange(value.shape[1]) < limits[1])[None, :]
  tile = (*lead, pl.ds(row, value.shape[0]), pl.ds(column, value.shape[1]))
  plt.store(ref.at[tile], value, mask=inside)


def _unit(x: jax.Array, dtype: Any) -> jax.Array:
  return (x.astype(jnp.float32) * (2.0 / 255.0) - 1.0).astype(dtype)


def _embed_kernel(patches: Any, kernel: Any, bias: Any, out: Any) -> None:
  (rows, values), width = patches.shape, kernel.shape[1]
  row, column = pl.program_id(0) * _ROWS, pl.program_id(1) * _COLUMNS

  def step(k: Any, total: jax.Array) -> jax.Array:
    x = _load(patches, row, k * _DEPTH, (_ROWS, _DEPTH), (rows, values))
    # Past the last byte the kernel is 0, whatever is multiplied with it.
    w = _load(kernel, k * _DEPTH, column, (_DEPTH, _COLUMNS), (values, width))
    return total + jnp.dot(
      _unit(x, w.dtype), w, preferred_element_type=jnp.float32, precision=_precision(w.dtype)
    )

  nothing = jnp.zeros((_ROWS, _COLUMNS), jnp.float32)
  total = jax.lax.fori_loop(0, pl.cdiv(values, _DEPTH), step, nothing)
  total += _load(bias, 0, column, (1, _COLUMNS), (1, width))
  _store(out, (), row, column, total.astype(out.dtype), (rows, width))


def _call(kernel: Any, *, name: str, grid: tuple[int, ...], out: Any, interpret: bool) -> Any:
  return pl.pallas_call(
    kernel,
    grid=grid,
    out_shape=out,
    compiler_params=plt.CompilerParams(num_warps=4, num_stages=3),
    interpret=interpret,
    name=name,
  )


def embed(patches: jax.Array, kernel: jax.Array, bias: jax.Array, *, interpret: bool) -> jax.Array:
  """uint8 [rows, values], kernel [values, embed], float32 bias [1, embed] -> [rows, embed] in the
  kernel's dtype, which also is that of the product's operands."""
  rows, width = patches.shape[0], kernel.shape[1]
  return _call(
    _embed_kernel,
    name="visual_tokenizer_embed",
    grid=(pl.cdiv(rows, _ROWS), pl.cdiv(width, _COLUMNS)),
    out=jax.ShapeDtypeStruct((rows, width), kernel.dtype),
    interpret=interpret,
  )(patches, kernel, bias)


def _gradient_kernel(patches: Any, g: Any, out: Any) -> None:
  (rows, values), width = patches.shape, g.shape[1]
  value, column = pl.program_id(0) * _DEPTH, pl.program_id(1) * _COLUMNS
  steps = pl.cdiv(rows, _ROWS * _SHARES)
  first = pl.program_id(2) * steps * _ROWS

  def step(i: Any, total: jax.Array) -> jax.Array:
    row = first + i * _ROWS
    x = _load(patches, row, value, (_ROWS, _DEPTH), (rows, values))
    # Past the last row the gradient is 0, whatever is multiplied with it.
    here = _load(g, row, column, (_ROWS, _COLUMNS), (rows, width))
    return total + jnp.dot(
      _unit(x, g.dtype).T, here, preferred_element_type=jnp.float32, precision=_precision(g.dtype)
    )

  nothing = jnp.zeros((_DEPTH, _COLUMNS), jnp.float32)
  total = jax.lax.fori_loop(0, steps, step, nothing)
  _store(out, (pl.program_id(2),), value, column, total, (values, width))


def gradient(patches: jax.Array, g: jax.Array, *, interpret: bool) -> tuple[jax.Array, jax.Array]:
  """Of `embed`: uint8 [rows, values], g [rows, embed] -> float32 [values, embed], [1, embed]."""
  values, width = patches.shape[1], g.shape[1]
  shares = _call(
    _gradient_kernel,
    name="visual_tokenizer_gradient",
    grid=(pl.cdiv(values, _DEPTH), pl.cdiv(width, _COLUMNS), _SHARES),
    out=jax.ShapeDtypeStruct((_SHARES, values, width), jnp.float32),
    interpret=interpret,
  )(patches, g)
  return jnp.sum(shares, axis=0), jnp.sum(g.astype(jnp.float32), axis=0, keepdims=True)


def _change(tokens: Any, frame: Any, before: jax.Array, number: jax.Array) -> jax.Array:
  """int32 [_TOKENS]: sum of absolute differences to each token's version of frame `before`."""
  size = tokens.shape[2]
  real = (number < tokens.shape[1])[:, None]

  def step(k: Any, total: jax.Array) -> jax.Array:
    byte = k * _BYTES + jnp.arange(_BYTES)[None, :]
    inside = real & (byte < size)
    place = number[:, None]
    now = plt.load(tokens.at[frame, place, byte], mask=inside, other=0)
    then = plt.load(tokens.at[before[:, None], place, byte], mask=inside, other=0)
    return total + jnp.sum(jnp.abs(now.astype(jnp.int32) - then.astype(jnp.int32)), axis=1)

  return jax.lax.fori_loop(0, pl.cdiv(size, _BYTES), step, jnp.zeros(_TOKENS, jnp.int32))


def _write(score: Any, keep: Any, frame: Any, number: jax.Array, change: Any, kept: Any) -> None:
  real = number < score.shape[1]
  plt.store(score.at[frame, number], change, mask=real)
  plt.store(keep.at[frame, number], kept, mask=real)


def _previous_kernel(tokens: Any, limit: Any, score: Any, keep: Any, *, first: int) -> None:
  number = pl.program_id(0) * _TOKENS + jnp.arange(_TOKENS)
  frame = pl.program_id(1)
  before = jnp.full(_TOKENS, jnp.maximum(frame - 1, 0))
  change = _change(tokens, frame, before, number)
  kept = jnp.where(frame == 0, first, (change > limit[0]).astype(jnp.int32))
  _write(score, keep, frame, number, change, kept)


def _last_kept_kernel(tokens: Any, limit: Any, score: Any, keep: Any, *, first: int) -> None:
  number = pl.program_id(0) * _TOKENS + jnp.arange(_TOKENS)

  def step(frame: Any, last: jax.Array) -> jax.Array:
    change = _change(tokens, frame, last, number)
    kept = jnp.where(frame == 0, first, (change > limit[0]).astype(jnp.int32))
    _write(score, keep, frame, number, change, kept)
    return jnp.where(kept > 0, frame, last)

  jax.lax.fori_loop(0, tokens.shape[0], step, jnp.zeros(_TOKENS, jnp.int32))


def mask(
  patches: jax.Array, limit: jax.Array, *, rule: dict[str, bool], interpret: bool
) -> tuple[jax.Array, jax.Array]:
  """uint8 [T, N, block, values] -> change score int32 [T, N], keep bool [T, N].

  rule: `first_whole` and `last_kept` of a `rule.Rule`; limit: int32 [1].  Against `last_kept` a
  program walks the frames and remembers which one it compares each token with.
  """
  frames, tokens = patches.shape[:2]
  kernel = _last_kept_kernel if rule["last_kept"] else _previous_kernel
  blocks = pl.cdiv(tokens, _TOKENS)
  score, keep = _call(
    functools.partial(kernel, first=int(rule["first_whole"])),
    name="visual_tokenizer_mask",
    grid=(blocks,) if rule["last_kept"] else (blocks, frames),
    out=[jax.ShapeDtypeStruct((frames, tokens), jnp.int32)] * 2,
    interpret=interpret,
  )(patches.reshape(frames, tokens, -1), limit)
  empty = ~jnp.any(keep > 0, axis=1)
  return score, (keep > 0).at[:, 0].set((keep[:, 0] > 0) | empty)


def whole(
  patches: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  limit: jax.Array,
  *,
  rule: dict[str, bool],
  interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """uint8 [T, N, block, values] -> embeddings [T, N * block, embed], score and keep as `mask`."""
  frames, _, _, values = patches.shape
  embeddings = embed(patches.reshape(-1, values), kernel, bias, interpret=interpret)
  return embeddings.reshape(frames, -1, kernel.shape[1]), *mask(
    patches, limit, rule=rule, interpret=interpret
  )
