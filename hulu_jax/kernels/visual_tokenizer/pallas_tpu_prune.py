"""From bytes to the embeddings of kept tokens on TPU in one launch, for pruning before the encoder.

Kept bytes are gathered first, by a 0/1 matrix on the MXU, and only they are multiplied with the
weights.  They gather in a stage of two blocks; a full block is embedded and copied out, so that
every copy is aligned, wherever a frame ends.
"""

from collections.abc import Callable
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

_BITS = 7
_STAGED = mask.TOKENS  # tokens of a block that is copied out, 2**_BITS
_NOWHERE = 256  # a place that no kept token has; 8 bits and a power of two, so exact in bfloat16


class _Stage(NamedTuple):
  """Where kept tokens wait.  bytes: float32 [2 blocks of patches and 8, values]; index: int32
  [1, 2 * 128]; embedded: one block [patches, embed]; out, out_index: all blocks, in HBM."""

  bytes: Any
  index: Any
  embedded: Any
  block_index: Any
  semaphore: Any
  out: Any
  out_index: Any


def _gather(stage: _Stage, refs: Refs, chunk: Chunk, keep: jax.Array) -> None:
  """Puts the chunk's kept bytes and their numbers behind what waits."""
  rows, tokens = chunk.tokens * chunk.block, chunk.tokens
  offset = refs.base[0] & (_STAGED - 1)
  rank = jnp.where(keep > 0, refs.place[0, :, chunk.lanes] - refs.base[0], _NOWHERE)
  lane = mask.iota((8, tokens), 1)
  both = jnp.where(mask.iota((8, tokens), 0) == 0, rank, lane).astype(jnp.float32)
  of_row = mask.times(both.astype(jnp.bfloat16), mask.ones(mask.belongs(chunk)), 1)
  of_row = of_row.astype(jnp.int32) * chunk.block
  goes_to = of_row[:1] + mask.iota((1, rows), 1) - of_row[1:2]
  # A store begins at a tile of 8 rows, so what waits in the first of them is written again.
  begin = offset * chunk.block
  waiting = begin & 7
  window = pl.ds(pl.multiple_of(begin - waiting, 8), rows + 8)
  moves = mask.ones(goes_to + waiting == mask.iota((rows + 8, rows), 0))
  now = pallas_tpu.as_float(refs.bytes[0, chunk.rows, :]).astype(jnp.bfloat16)
  moved = mask.times(moves, now, 0)
  waits = mask.iota((rows + 8, 1), 0) < waiting
  stage.bytes[window, :] = jnp.where(waits, stage.bytes[window, :], moved)
  number = refs.frame * refs.tokens + chunk.first + lane
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

  def embed(first: Any, size: int, carry: Any) -> Any:
    here = pl.ds(first, size)
    embedded = pallas_tpu.project(stage.bytes[here, :], weights[0][...], weights[1][...])
    used = mask.iota((size, 1), 0) + first < valid * block
    stage.embedded[here, :] = jnp.where(used, embedded, 0.0).astype(stage.embedded.dtype)
    return carry

  mask.walk(rows, pallas_tpu.ROWS, embed, 0)
  used = mask.iota((1, _STAGED), 1) < valid
  stage.block_index[...] = jnp.where(used, stage.index[:, :_STAGED], nothing)
  to = stage.out.at[pl.ds(pl.multiple_of(number * rows, rows), rows), :]
  for source, target in ((stage.embedded, to), (stage.block_index, stage.out_index.at[number])):
    copy = pltpu.make_async_copy(source, target, stage.semaphore)
    copy.start()
    copy.wait()


def _advance(stage: _Stage, refs: Refs, count: Any, write: Callable[[Any, Any], None]) -> None:
  """Counts what was gathered; copies the first block out once it is full and there is room."""
  rows, number = stage.embedded.shape[0], refs.base[0] >> _BITS
  refs.base[0] += count
  full = (refs.base[0] >> _BITS) > number

  @pl.when(full & (number < stage.out_index.shape[0]))
  def _() -> None:
    write(number, _STAGED)

  @pl.when(full)
  def _() -> None:
    stage.bytes[:rows, :] = stage.bytes[rows : 2 * rows, :]
    stage.index[:, :_STAGED] = stage.index[:, _STAGED:]


def _kernel(
  limit: Any,
  patches: Any,
  kernel: Any,
  bias: Any,
  *rest: Any,
  rule: Any,
  frames: int,
  tokens: int,
) -> None:
  out, out_index, score, keep, place, last, base, *stage_refs = rest
  refs = Refs(patches, last, limit, base, score, keep, place, tokens, pl.program_id(0))
  stage = _Stage(*[*stage_refs, out, out_index])
  block, blocks = stage.embedded.shape[0] // _STAGED, out_index.shape[0]
  write = functools.partial(_copy_out, stage, weights=(kernel, bias), nothing=frames * tokens)

  @pl.when(refs.frame == 0)
  def _() -> None:
    base[0] = 0

  passing = mask.compare_frame(refs, block, rule)

  def settle(first: Any, size: int, carry: Any) -> Any:
    chunk = Chunk(first, size, block)
    kept, count = mask.place(refs, chunk, passing)
    _gather(stage, refs, chunk, kept)
    _advance(stage, refs, count, write)
    return carry

  mask.walk(keep.shape[2], mask.TOKENS, settle, 0)

  @pl.when(refs.frame == frames - 1)
  def _() -> None:
    def pad(number: Any, carry: Any) -> Any:
      write(number, jnp.clip(base[0] - number * _STAGED, 0, _STAGED))
      return carry

    jax.lax.fori_loop(jnp.minimum(base[0] >> _BITS, blocks), blocks, pad, 0)


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
  seen = mask.whole_tiles(tokens) * block
  vmem = entry.need(seen, values, kernel, block) + 3 * padded(staged, max(values, width), 4)
  vmem += 3 * padded(staged, staged, 4)
  embedded, index, *per_token = pl.pallas_call(
    functools.partial(_kernel, rule=rule, frames=frames, tokens=tokens),
    grid=(frames,),
    in_specs=entry.in_specs(seen, values, width),
    out_specs=[pl.BlockSpec(memory_space=pl.ANY)] * 2 + specs,
    out_shape=[
      jax.ShapeDtypeStruct((blocks * staged, width), kernel.dtype),
      jax.ShapeDtypeStruct((blocks, 1, _STAGED), jnp.int32),
      *shapes,
    ],
    scratch_shapes=[
      *entry.scratch(seen, values),
      pltpu.VMEM((2 * staged + 8, values), jnp.float32),
      pltpu.VMEM((1, 2 * _STAGED), jnp.int32),
      pltpu.VMEM((staged, width), kernel.dtype),
      pltpu.VMEM((1, _STAGED), jnp.int32),
      pltpu.SemaphoreType.DMA(()),
    ],
    compiler_params=pallas_tpu.params(vmem, f"a frame of {rows} patches"),
    interpret=interpret,
    name="visual_tokenizer_prune",
  )(limit, patches, kernel, bias)
  per_token = [x[..., :tokens] for x in per_token]
  return embedded[: capacity * block], index.reshape(-1)[:capacity], *per_token
