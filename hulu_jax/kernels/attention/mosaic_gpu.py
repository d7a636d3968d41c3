"""Segment-aware attention on Hopper GPUs: an own Mosaic kernel forward, `xla`'s blocks backward.

One warpgroup holds 64 queries of one head; keys, values and segment numbers stream through shared
memory by TMA, only those blocks in which some key may be seen (first and last are computed
outside).  The online softmax is FlashAttention-2's (Dao 2023, algorithm 1), in base 2.

The only file that knows `jax.experimental.pallas.mosaic_gpu`.
"""

import functools
import math
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

from hulu_jax.kernels.attention import reference
from hulu_jax.kernels.attention import rows as rows_lib
from hulu_jax.kernels.attention import xla

QUERIES, KEYS, STAGES = 64, 64, 2
# Bytes of a swizzle: the tensor cores read rows of head_dim in pieces of this length.
SWIZZLES = (128, 64, 32)
DTYPES = ("bfloat16", "float16")
_WGMMA = plgpu.Layout.WGMMA
_LOG2E = math.log2(math.e)


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

  Rows are padded with segment 0 to blocks of 64, head_dim with zeros to a multiple of 16.

  Raises:
    ValueError: a dtype other than bfloat16 and float16, a head_dim above 256, or interpretation by
      a JAX that has no interpreter for it.
  """
  if interpret and jax.__version_info__ < (0, 11):
    raise ValueError(f"mosaic_interpret needs jax >= 0.11, found {jax.__version__}; xla runs here")
  if jnp.dtype(q.dtype).name not in DTYPES or q.shape[-1] > 256:
    raise ValueError(
      f"mosaic attention takes {' or '.join(DTYPES)} and head_dim up to 256, found {q.dtype} and "
      f"{q.shape[-1]}; xla takes any"
    )
  (own_q, own_k, own_v), numbers = rows_lib.padded((q, k, v), segments, KEYS)
  out = _attention(own_q, own_k, own_v, numbers, causal, interpret)
  return out[:, : q.shape[-3]].reshape(q.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q, k, v, segments, causal, interpret):
  return _forward(q, k, v, segments, causal, interpret)[0]


def _forward_saved(q, k, v, segments, causal, interpret):
  out, sums = xla.named(_forward(q, k, v, segments, causal, interpret))
  return out, (q, k, v, segments, out, sums)


def _backward(causal, interpret, saved, d_out):
  del interpret
  n = saved[0].shape[1]
  # Blocks of 64 are the kernel's; the backward's are as large as they can be.
  block = max(b for b in range(KEYS, xla.BLOCK + 1, KEYS) if n % b == 0)
  return xla.backward(causal, block, saved, d_out)


_attention.defvjp(_forward_saved, _backward)


def _forward(q, k, v, segments, causal, interpret):
  """Attended values, and the logarithm of every query's softmax sum [rows, n, heads, 1]."""
  head_dim = q.shape[-1]
  extra = -head_dim % 16
  q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, extra))) for x in (q, k, v))
  out, sums = _kernel(q, k, head_dim**-0.5, causal, interpret)(
    q, k, v, segments, _ranges(segments, causal)
  )
  real = (segments > 0)[..., None, None]
  sums = jnp.moveaxis(sums, 1, 2)[..., None]
  return jnp.where(real, out[..., :head_dim], 0), jnp.where(real, sums, 0.0)


def _ranges(segments: jax.Array, causal: bool) -> jax.Array:
  """int32 [rows, query blocks, 2]: the first block of keys to visit, and how many, at least one."""
  rows, n = segments.shape
  numbers = segments.reshape(rows, -1, KEYS)
  last = numbers.max(axis=-1)
  first = jnp.where(numbers > 0, numbers, jnp.iinfo(numbers.dtype).max).min(axis=-1)
  meet = (first[:, :, None] <= last[:, None, :]) & (first[:, None, :] <= last[:, :, None])
  block = jnp.arange(n // KEYS)
  if causal:
    meet &= block[:, None] >= block[None, :]
  low = jnp.where(meet, block, n // KEYS - 1).min(axis=-1)
  high = jnp.where(meet, block, -1).max(axis=-1)
  return jnp.stack([low, jnp.maximum(high - low + 1, 1)], axis=-1).astype(jnp.int32)


def _kernel(q: Any, k: Any, scale: float, causal: bool, interpret: bool) -> Any:
  """The launch for arrays like q [rows, n, heads, d] and k [rows, n, kv_heads, d]."""
  heads, d = q.shape[2:]
  group = heads // k.shape[2]
  swizzle = next(s for s in SWIZZLES if d * q.dtype.itemsize % s == 0)
  transforms = (
    plgpu.TilingTransform((8, swizzle // q.dtype.itemsize)),
    plgpu.SwizzleTransform(swizzle),
  )

  def body(q_ref, k_ref, v_ref, segment_ref, range_ref, out_ref, sums_ref, *scratch):
    q_smem, own_smem, sums_smem, barriers = scratch
    head, tile, row = (jax.lax.axis_index(name) for name in ("head", "tile", "row"))
    here = pl.ds(tile * QUERIES, QUERIES)
    plgpu.copy_gmem_to_smem(q_ref.at[row, here, head], q_smem, barriers.at[0])
    plgpu.copy_gmem_to_smem(segment_ref.at[row, here], own_smem, barriers.at[1])
    start, count = range_ref[row, tile, 0], range_ref[row, tile, 1]
    for i in range(2):
      plgpu.barrier_wait(barriers.at[i])
    own = plgpu.load(own_smem, (), layout=_WGMMA.reduce(1))
    products = _products(q_smem, interpret)
    seen = functools.partial(_seen, own, tile, start, causal)
    step = functools.partial(_step, products, scale * _LOG2E, seen)
    acc, top, total = plgpu.emit_pipeline(
      step,
      grid=(count,),
      in_specs=[
        plgpu.BlockSpec((KEYS, d), lambda j: (start + j, 0), transforms=transforms),
        plgpu.BlockSpec((KEYS, d), lambda j: (start + j, 0), transforms=transforms),
        plgpu.BlockSpec((KEYS,), lambda j: (start + j,)),
      ],
      max_concurrent_steps=STAGES,
      init_carry=(
        _filled((QUERIES, d), 0.0, _WGMMA),
        _filled((QUERIES,), reference.MASKED, _WGMMA.reduce(1)),
        _filled((QUERIES,), 0.0, _WGMMA.reduce(1)),
      ),
    )(
      k_ref.at[row, :, jax.lax.div(head, group)],
      v_ref.at[row, :, jax.lax.div(head, group)],
      segment_ref.at[row],
    )
    q_smem[...] = (acc / jax.lax.broadcast_in_dim(total, acc.shape, [0])).astype(q_ref.dtype)
    sums_smem[...] = top * (1 / _LOG2E) + jnp.log(total)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(q_smem, out_ref.at[row, here, head])
    plgpu.copy_smem_to_gmem(sums_smem, sums_ref.at[row, head, here])
    plgpu.wait_smem_to_gmem(0)

  return _launch(body, q, transforms, interpret)


def _launch(body, q, transforms, interpret):
  rows, n, heads, d = q.shape
  # Not there before JAX 0.11; `attention` has checked.
  options = {"interpret": plgpu.InterpretGPUParams()} if interpret else {}  # type: ignore[attr-defined]
  return plgpu.kernel(
    body,
    out_type=(
      jax.ShapeDtypeStruct(q.shape, q.dtype),
      jax.ShapeDtypeStruct((rows, heads, n), jnp.float32),
    ),
    grid=(heads, n // QUERIES, rows),
    grid_names=("head", "tile", "row"),
    scratch_types=[
      plgpu.SMEM((QUERIES, d), q.dtype, transforms=transforms),
      plgpu.SMEM((QUERIES,), jnp.int32),
      plgpu.SMEM((QUERIES,), jnp.float32),
      plgpu.Barrier(num_barriers=2),
    ],
    compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
    **options,
  )


def _step(products, scale, seen, indices, k_smem, v_smem, other_smem, carry):
  """One block of keys: logits in base 2, online softmax, weighted values."""
  with_keys, add_values = products
  acc, top, total = carry
  shape = (QUERIES, KEYS)
  logits = with_keys(k_smem) * scale
  other = plgpu.load(other_smem, (), layout=_WGMMA.reduce(0))
  spread = jax.lax.broadcast_in_dim
  logits = jnp.where(seen(other, indices[0]), logits, reference.MASKED)
  new = jnp.maximum(top, logits.max(axis=1))
  keep = jnp.exp2(top - new)
  weights = jnp.exp2(logits - spread(new, shape, [0]))
  total = total * keep + weights.sum(axis=1)
  acc = acc * spread(keep, acc.shape, [0])
  return add_values(acc, weights.astype(v_smem.dtype), v_smem), new, total


def _seen(own, tile, start, causal, other, j):
  """Which of the tile's queries sees which key of the j-th block visited."""
  shape, spread = (QUERIES, KEYS), jax.lax.broadcast_in_dim
  seen = spread(own, shape, [0]) == spread(other, shape, [1])
  if causal:
    query, key = (plgpu.broadcasted_iota(jnp.int32, shape, i, layout=_WGMMA) for i in (0, 1))
    seen &= query + tile * QUERIES >= key + (start + j) * KEYS
  return seen


def _products(q_smem, interpret):
  """(keys -> logits), (acc, weights, values -> acc): on tensor cores, or as dots where those are
  interpreted: JAX's interpreter knows no wgmma."""
  if interpret:
    dot = functools.partial(jnp.dot, preferred_element_type=jnp.float32)
    return lambda k: dot(q_smem[...], k[...].T), lambda acc, p, v: acc + dot(p, v[...])

  def with_keys(k_smem):
    def product(acc_ref):
      plgpu.wgmma(acc_ref, q_smem, plgpu.transpose_ref(k_smem, (1, 0)))
      return acc_ref[...]

    return pl.run_scoped(product, plgpu.ACC((QUERIES, KEYS), jnp.float32))

  def add_values(acc, weights, v_smem):
    def add(acc_ref):
      plgpu.wgmma(acc_ref, weights, v_smem)

    return pl.run_state(add)(plgpu.ACC.init(acc))

  return with_keys, add_values


def _filled(shape, value, layout):
  return plgpu.layout_cast(jnp.full(shape, value, jnp.float32), layout)
