"""From bytes to the embeddings of kept tokens on TPU in one launch, for pruning before the encoder.

Kept bytes are gathered first, by a 0/1 matrix on the MXU, and only they are multiplied with the
weights.  They gather in a stage of two blocks; a full block is embedded and copied out, so that
every copy is aligned, wherever a frame ends.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from hulu_jax.kernels.visual_tokenizer import pallas_tpu
from hulu_jax.kernels.visual_tokenizer import pallas_tpu_entry as entry
from hulu_jax.kernels.visual_tokenizer import pallas_tpu_mask as mask
from hulu_jax.kernels.visual_tokenizer.pallas_tpu import padded
from hulu_jax.kernels.visual_tokenizer.pallas_tpu_mask import Chunk
from hulu_jax.kernels.visual_tokenizer.pallas_tpu_mask import Refs

_STAGED = mask.TOKENS  # tokens of a block that is copied out
_NOWHERE = 256  # a place that no kept token has; 8 bits and a power of two, so exact in bfloat16


class _Stage(NamedTuple):
  """Where kept tokens wait.  bytes: float32 [2 blocks of patches, values]; index: int32 [1, 2 *
  128]; embedded: one block [patches, embed]; out, out_index: all blocks, in HBM."""

  bytes: Any
  index: Any
  embedded: Any
  block_index: Any
  out: Any
  out_index: Any


def _gather(stage: _Stage, refs: Refs, chunk: Chunk, keep: jax.Array, per_frame: int) -> None:
  """Puts the chunk's kept bytes and their numbers behind what waits."""
  rows, tokens = chunk.tokens * chunk.block, chunk.tokens
  offset = refs.base[0] & (_STAGED - 1)
  lanes = pl.ds(chunk.first, tokens)
  rank = jnp.where(keep > 0, refs.place[0, :, lanes] - refs.base[0], _NOWHERE)
  lane = mask.iota((8, tokens), 1)
  both = jnp.where(mask.iota((8, tokens), 0) == 0, rank, lane).astype(jnp.float32)
  of_row = mask.times(both.astype(jnp.bfloat16), mask.ones(mask.belongs(chunk)), 1)
  of_row = of_row.astype(jnp.int32) * chunk.block
  goes_to = of_row[:1] + mask.iota((1, rows), 1) - of_row[1:2]
  moves = mask.ones(goes_to == mask.iota((rows, rows), 0))
  now = pallas_tpu.as_float(refs.bytes[0, chunk.rows, :]).astype(jnp.bfloat16)
  stage.bytes[pl.ds(offset * chunk.block, rows), :] = mask.times(moves, now, 0)
  number = pl.program_id(0) * per_frame + chunk.first + lane
  moves = mask.ones(mask.iota((2 * _STAGED, tokens), 0) == rank + offset)
  moved = mask.undo_digits(mask.times(mask.digits(number), moves, 1))
  waits = mask.iota(moved.shape, 1) < offset
  stage.index[...] = jnp.where(waits, stage.index[...], moved)


def _copy_out(
  stage: _Stage, number: Any, valid: Any, weights: tuple[Any, Any], nothing: int
) -> None:
  """Embeds the first block of the stage and writes it as block `number`; what follows its first
  `valid` tokens becomes 0, and `nothing` in the index."""
  rows = stage.embedded.shape[0]
  block = rows // _STAGED
  embedded = pallas_tpu.project(stage.bytes[:rows, :], weights[0][...], weights[1][...])
  used = mask.iota((rows, 1), 0) < valid * block
  stage.embedded[...] = jnp.where(used, embedded, 0.0).astype(stage.embedded.dtype)
  pltpu.sync_copy(stage.embedded, stage.out.at[pl.ds(number * rows, rows), :])
  used = mask.iota((1, _STAGED), 1) < valid
  stage.block_index[...] = jnp.where(used, stage.index[:, :_STAGED], nothing)
  pltpu.sync_copy(stage.block_index, stage.out_index.at[number])


def _kernel(
  limit: Any,
  patches: Any,
  kernel: Any,
  bias: Any,
  *rest: Any,
  parts: list[Chunk],
  rule: Any,
  frames: int,
) -> None:
  out, out_index, score, keep, place, last, base, *stage_refs = rest
  refs = Refs(patches, last, limit, base, score, keep, place)
  stage = _Stage(*stage_refs, out, out_index)
  per_frame = parts[-1].first + parts[-1].tokens
  blocks, rows = out_index.shape[0], stage.embedded.shape[0]
  write = functools.partial(_copy_out, stage, weights=(kernel, bias), nothing=frames * per_frame)

  @pl.when(pl.program_id(0) == 0)
  def _() -> None:
    base[0] = 0

  passing = jnp.float32(0)
  for chunk in parts:
    passing += mask.compare(refs, chunk, **rule)[1]
  for chunk in parts:
    kept, count = mask.place(refs, chunk, passing)
    _gather(stage, refs, chunk, kept, per_frame)
    before = base[0]
    base[0] = before + count.astype(jnp.int32)
    number = before // _STAGED
    full = base[0] // _STAGED > number

    @pl.when(full & (number < blocks))
    def _(number: Any = number) -> None:
      write(number, _STAGED)

    @pl.when(full)
    def _() -> None:
      stage.bytes[:rows, :] = stage.bytes[rows:, :]
      stage.index[:, :_STAGED] = stage.index[:, _STAGED:]

  @pl.when(pl.program_id(0) == frames - 1)
  def _() -> None:
    def pad(number: Any, carry: Any) -> Any:
      write(number, jnp.clip(base[0] - number * _STAGED, 0, _STAGED))
      return carry

    jax.lax.fori_loop(jnp.minimum(base[0] // _STAGED, blocks), blocks, pad, 0)


def compacted(
  patches: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  limit: jax.Array,
  *,
  block: int,
  rule: dict[str, bool],
  capacity: int,
  interpret: Any,
) -> tuple[jax.Array, ...]:
  """As `pallas_tpu_entry.whole`, but embeddings [capacity * block, embed] of kept tokens alone, in
  order, 0 past the last; then int32 [capacity], which token each is, T * N past the last."""
  frames, rows, values = patches.shape
  width, tokens = kernel.shape[1], rows // block
  specs, shapes = entry.per_token(frames, tokens)
  blocks, staged = pl.cdiv(capacity, _STAGED), _STAGED * block
  need = entry.need(rows, values, kernel, block) + 3 * padded(staged, max(values, width), 4)
  parts = mask.chunks(tokens, block)
  largest = parts[0].tokens * block
  need += 2 * padded(largest, largest, 2)
  embedded, index, *per_token = pl.pallas_call(
    functools.partial(_kernel, parts=parts, rule=rule, frames=frames),
    grid=(frames,),
    in_specs=entry.in_specs(rows, values, width),
    out_specs=[pl.BlockSpec(memory_space=pl.ANY)] * 2 + specs,
    out_shape=[
      jax.ShapeDtypeStruct((blocks * staged, width), kernel.dtype),
      jax.ShapeDtypeStruct((blocks, 1, _STAGED), jnp.int32),
      *shapes,
    ],
    scratch_shapes=[
      *entry.scratch(rows, values),
      pltpu.VMEM((2 * staged, values), jnp.float32),
      pltpu.VMEM((1, 2 * _STAGED), jnp.int32),
      pltpu.VMEM((staged, width), kernel.dtype),
      pltpu.VMEM((1, _STAGED), jnp.int32),
    ],
    compiler_params=pallas_tpu.params(need, f"a frame of {rows} patches"),
    interpret=interpret,
    name="visual_tokenizer_prune",
  )(limit, patches, kernel, bias)
  return embedded[: capacity * block], index.reshape(-1)[:capacity], *per_token
