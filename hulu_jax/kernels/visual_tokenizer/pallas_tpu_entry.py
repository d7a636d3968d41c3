"""A whole entry on TPU in one launch: its bytes are read once, for embeddings and for the mask.

The grid walks the frames in order, one frame a step, so that the version that a token is compared
with, and the number of tokens kept so far, stay on the core.
"""

import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from hulu_jax.kernels.visual_tokenizer import pallas_tpu
from hulu_jax.kernels.visual_tokenizer import pallas_tpu_mask as mask
from hulu_jax.kernels.visual_tokenizer.pallas_tpu import padded
from hulu_jax.kernels.visual_tokenizer.pallas_tpu_mask import Chunk
from hulu_jax.kernels.visual_tokenizer.pallas_tpu_mask import Refs


def in_specs(rows: int, values: int, width: int) -> list[pl.BlockSpec]:
  """Of limit, bytes (a frame a step), kernel and bias."""
  return [
    pl.BlockSpec(memory_space=pltpu.SMEM),
    pl.BlockSpec((1, rows, values), lambda t: (t, 0, 0)),
    pl.BlockSpec((values, width), lambda t: (0, 0)),
    pl.BlockSpec((1, width), lambda t: (0, 0)),
  ]


def per_token(frames: int, tokens: int) -> tuple[list[pl.BlockSpec], list[Any]]:
  """Blocks and shapes of score, keep and place."""
  tokens = mask.whole_tiles(tokens)
  spec = pl.BlockSpec((1, 1, tokens), lambda t: (t, 0, 0))
  return [spec] * 3, [jax.ShapeDtypeStruct((frames, 1, tokens), jnp.int32)] * 3


def scratch(rows: int, values: int) -> list[Any]:
  """The versions compared with, and the running count."""
  return [pltpu.VMEM((rows, values), jnp.bfloat16), pltpu.SMEM((1,), jnp.int32)]


def need(rows: int, values: int, kernel: jax.Array, block: int) -> int:
  """VMEM in bytes beside the embeddings: bytes twice, versions, weights, and a chunk's values."""
  chunk = mask.TOKENS * block
  weights = padded(values, kernel.shape[1], kernel.dtype.itemsize)
  of_chunk = 5 * padded(chunk, values, 4) + 3 * padded(chunk, kernel.shape[1], 4)
  return 2 * padded(rows, values, 1) + padded(rows, values, 2) + 2 * weights + 2 * of_chunk


def _whole_kernel(
  limit: Any, patches: Any, kernel: Any, bias: Any, *rest: Any, block: int, rule: Any, tokens: int
) -> None:
  out, score, keep, place, last, base = rest
  refs = Refs(patches, last, limit, base, score, keep, place, tokens, pl.program_id(0))

  @pl.when(refs.frame == 0)
  def _() -> None:
    base[0] = 0

  passing = mask.compare_frame(refs, block, rule)

  def settle(first: Any, size: int, carry: Any) -> Any:
    base[0] += mask.place(refs, Chunk(first, size, block), passing)[1]
    return carry

  def embed(first: Any, size: int, carry: Any) -> Any:
    rows = pl.ds(first, size)
    now = pallas_tpu.as_float(patches[0, rows, :])
    out[0, rows, :] = pallas_tpu.project(now, kernel[...], bias[...]).astype(out.dtype)
    return carry

  mask.walk(keep.shape[2], mask.TOKENS, settle, 0)
  mask.walk(patches.shape[1], pallas_tpu.ROWS, embed, 0)


def whole(
  patches: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  limit: jax.Array,
  *,
  block: int,
  rule: dict[str, bool],
  interpret: Any,
) -> tuple[jax.Array, ...]:
  """uint8 [T, N * block, values] -> embeddings [T, N * block, embed] in the kernel's dtype, and
  int32 [T, 1, N]: change score, 1 where kept, and how many are kept before.

  limit: int32 [1]; rule: `first_whole` and `last_kept` of a `rule.Rule`.
  """
  frames, rows, values = patches.shape
  width, tokens = kernel.shape[1], rows // block
  specs, shapes = per_token(frames, tokens)
  seen = mask.whole_tiles(tokens) * block
  vmem = need(seen, values, kernel, block) + 2 * padded(seen, width, kernel.dtype.itemsize)
  embedded, *found = pl.pallas_call(
    functools.partial(_whole_kernel, block=block, rule=rule, tokens=tokens),
    grid=(frames,),
    in_specs=in_specs(seen, values, width),
    out_specs=[pl.BlockSpec((1, seen, width), lambda t: (t, 0, 0)), *specs],
    out_shape=[jax.ShapeDtypeStruct((frames, rows, width), kernel.dtype), *shapes],
    scratch_shapes=scratch(seen, values),
    compiler_params=pallas_tpu.params(vmem, f"a frame of {rows} patches"),
    interpret=interpret,
    name="visual_tokenizer",
  )(limit, patches, kernel, bias)
  return embedded, *(x[..., :tokens] for x in found)
