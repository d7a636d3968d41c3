"""Embedding of patches on TPU: bytes are read once, normalised and multiplied in VMEM."""

import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

# Rows of patches in one grid step: a multiple of the 32 sublanes of a uint8 tile.
ROWS = 128
_LANES = 128


def precision(dtype: Any) -> jax.lax.Precision | None:
  """The MXU multiplies float32 in one bfloat16 pass unless it is told otherwise."""
  return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def project(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """float32 bytes [rows, values] -> float32 [rows, embed]; normalised and cast as the kernel is."""
  unit = (x * (2.0 / 255.0) - 1.0).astype(kernel.dtype)
  out = jnp.dot(unit, kernel, preferred_element_type=jnp.float32, precision=precision(kernel.dtype))
  return out + bias


def as_float(patches: jax.Array) -> jax.Array:
  """uint8 to float32 by way of int32, which every TPU generation converts."""
  return patches.astype(jnp.int32).astype(jnp.float32)


def padded(rows: int, columns: int, itemsize: int) -> int:
  """Bytes that an array takes in VMEM, whose tiles are 32 bytes of rows by 128 columns."""
  sublanes = 32 // itemsize
  return -(-rows // sublanes) * sublanes * -(-columns // _LANES) * _LANES * itemsize


def params(bytes_needed: int, what: str) -> pltpu.CompilerParams:
  """Sequential grid with this much VMEM.

  Raises:
    ValueError: more than a core has.
  """
  most = 96 * 2**20
  if bytes_needed > most:
    raise ValueError(
      f"{what} needs {bytes_needed >> 20} MiB of VMEM, a core has {most >> 20}; "
      "implementation 'reference' has no such limit"
    )
  return pltpu.CompilerParams(
    dimension_semantics=("arbitrary",), vmem_limit_bytes=max(bytes_needed, 32 * 2**20)
  )


def _embed_kernel(patches: Any, kernel: Any, bias: Any, out: Any) -> None:
  out[...] = project(as_float(patches[...]), kernel[...], bias[...]).astype(out.dtype)


def embed(patches: jax.Array, kernel: jax.Array, bias: jax.Array, *, interpret: Any) -> jax.Array:
  """uint8 [rows, values], kernel [values, embed], float32 bias [1, embed] -> [rows, embed] in the
  kernel's dtype, which also is that of the product's operands."""
  rows, values = patches.shape
  width = kernel.shape[1]
  size = kernel.dtype.itemsize
  need = 2 * padded(values, width, size) + 4 * padded(ROWS, width, 4) + 4 * padded(ROWS, values, 4)
  return pl.pallas_call(
    _embed_kernel,
    grid=(pl.cdiv(rows, ROWS),),
    in_specs=[
      pl.BlockSpec((ROWS, values), lambda i: (i, 0)),
      pl.BlockSpec((values, width), lambda i: (0, 0)),
      pl.BlockSpec((1, width), lambda i: (0, 0)),
    ],
    out_specs=pl.BlockSpec((ROWS, width), lambda i: (i, 0)),
    out_shape=jax.ShapeDtypeStruct((rows, width), kernel.dtype),
    compiler_params=params(need, f"a kernel of {values} x {width}"),
    interpret=interpret,
    name="visual_tokenizer_embed",
  )(patches, kernel, bias)


def _gradient_kernel(patches: Any, g: Any, d_kernel: Any, d_bias: Any, *, rows: int) -> None:
  @pl.when(pl.program_id(0) == 0)
  def _() -> None:
    d_kernel[...] = jnp.zeros_like(d_kernel)
    d_bias[...] = jnp.zeros_like(d_bias)

  left = rows - pl.program_id(0) * ROWS
  # Past the last row lies whatever was in memory, NaN perhaps: selected away, not multiplied.
  row = jax.lax.broadcasted_iota(jnp.int32, (ROWS, 1), 0)
  here = jnp.where(row < left, g[...].astype(jnp.float32), 0.0)
  unit = jnp.where(row < left, as_float(patches[...]) * (2.0 / 255.0) - 1.0, 0.0)
  d_kernel[...] += jax.lax.dot_general(
    unit.astype(g.dtype),
    here.astype(g.dtype),
    (((0,), (0,)), ((), ())),
    preferred_element_type=jnp.float32,
    precision=precision(g.dtype),
  )
  d_bias[...] += jnp.sum(here, axis=0, keepdims=True)


def gradient(patches: jax.Array, g: jax.Array, *, interpret: Any) -> tuple[jax.Array, jax.Array]:
  """Of `embed`: uint8 [rows, values], g [rows, embed] -> float32 [values, embed], [1, embed].

  Both sums stay in VMEM while the rows stream past.
  """
  rows, values = patches.shape
  width = g.shape[1]
  need = 3 * padded(values, width, 4) + 6 * padded(ROWS, width, 4) + 6 * padded(ROWS, values, 4)
  whole = [pl.BlockSpec((size, width), lambda i: (0, 0)) for size in (values, 1)]
  return pl.pallas_call(
    functools.partial(_gradient_kernel, rows=rows),
    grid=(pl.cdiv(rows, ROWS),),
    in_specs=[
      pl.BlockSpec((ROWS, values), lambda i: (i, 0)),
      pl.BlockSpec((ROWS, width), lambda i: (i, 0)),
    ],
    out_specs=whole,
    out_shape=[
      jax.ShapeDtypeStruct((values, width), jnp.float32),
      jax.ShapeDtypeStruct((1, width), jnp.float32),
    ],
    compiler_params=params(need, f"the gradient of a kernel of {values} x {width}"),
    interpret=interpret,
    name="visual_tokenizer_gradient",
  )(patches, g)
