"""The mask half of the TPU kernels: change scores, kept tokens and their places, for one frame.

A chunk is 128 visual tokens, so that what is known per token is one row of lanes.  What crosses
between rows of patches and lanes of tokens goes through the MXU with 0/1 matrices, exactly: its
bfloat16 operands are integers of at most 8 bits, its sums stay below 2**24.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from hulu_jax.kernels.visual_tokenizer.pallas_tpu import as_float

TOKENS = 128  # of a chunk
_ROWS_OF_ONES = 8  # the fewest sublanes of a matmul operand


class Chunk(NamedTuple):
  """Visual tokens [first, first + tokens) of a frame, of `block` patches each; `first` may be
  traced, and is a multiple of 128."""

  first: Any
  tokens: int
  block: int

  @property
  def rows(self) -> Any:
    """The patches of these tokens, as an index."""
    return pl.ds(self.first * self.block, self.tokens * self.block)

  @property
  def lanes(self) -> Any:
    """These tokens, as an index."""
    return pl.ds(self.first, self.tokens)


def walk(total: int, size: int, body: Callable[[Any, int, Any], Any], carry: Any) -> Any:
  """`carry = body(start, length, carry)` over [0, total) in steps of `size` and a shorter last one.

  A loop, not unrolled: compiling takes as long as one body and the last.
  """

  def step(i: Any, carry: Any) -> Any:
    return body(pl.multiple_of(i * size, size), size, carry)

  whole = total // size
  if whole:
    carry = jax.lax.fori_loop(0, whole, step, carry)
  return body(whole * size, total % size, carry) if total % size else carry


def whole_tiles(tokens: int) -> int:
  """Tokens of a frame as the kernels see it: up to 7 more than there are, so that no matmul has
  a side shorter than a tile.  Their bytes are whatever lies behind, and `compare` drops them."""
  return -(-tokens // 8) * 8


def iota(shape: tuple[int, ...], axis: int) -> jax.Array:
  """int32 positions along an axis."""
  return jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def belongs(chunk: Chunk) -> jax.Array:
  """bool [rows, tokens]: whether a patch is one of a token's."""
  shape = (chunk.tokens * chunk.block, chunk.tokens)
  row, begin = iota(shape, 0), iota(shape, 1) * chunk.block
  return (row >= begin) & (row < begin + chunk.block)


def ones(x: jax.Array) -> jax.Array:
  """A condition as bfloat16 0 and 1."""
  return jnp.where(x, 1.0, 0.0).astype(jnp.bfloat16)


def times(a: jax.Array, b: jax.Array, contract_b: int) -> jax.Array:
  """Exact product of bfloat16 integers: a [m, k] with axis `contract_b` of b, float32."""
  dims = (((1,), (contract_b,)), ((), ()))
  return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def digits(x: jax.Array) -> jax.Array:
  """int32 [8, n], equal rows of numbers below 2**24 -> their base-256 digits in the first rows."""
  row = iota(x.shape, 0)
  return (
    jnp.where(
      row == 0, x & 255, jnp.where(row == 1, (x >> 8) & 255, jnp.where(row == 2, x >> 16, 0))
    )
    .astype(jnp.float32)
    .astype(jnp.bfloat16)
  )


def undo_digits(x: jax.Array) -> jax.Array:
  """float32 [8, n] of base-256 digits -> int32 [1, n]."""
  row = iota(x.shape, 0)
  weight = jnp.where(row == 0, 1, jnp.where(row == 1, 256, jnp.where(row == 2, 65536, 0)))
  return jnp.sum(x.astype(jnp.int32) * weight, axis=0, keepdims=True)


def score(now: jax.Array, before: jax.Array, chunk: Chunk) -> jax.Array:
  """float32 bytes [rows, values], twice -> sum of absolute differences per token, int32 [1, n]."""
  change = jnp.abs(now - before).astype(jnp.bfloat16)
  one = jnp.ones((_ROWS_OF_ONES, now.shape[1]), jnp.bfloat16)
  by_row = times(one, change, 1).astype(jnp.int32)  # [8, rows], equal rows
  if chunk.block == 1:
    return by_row[:1]
  return undo_digits(times(digits(by_row), ones(belongs(chunk)), 0))


class Refs(NamedTuple):
  """Memory of one frame's mask.  bytes: uint8 [1, rows, values]; last: bfloat16 [rows, values], the
  versions compared with; limit: int32 [1]; base: int32 [1], tokens kept so far; score, keep, place:
  int32 [1, 1, tokens]; tokens: how many of these are real; frame: its number."""

  bytes: Any
  last: Any
  limit: Any
  base: Any
  score: Any
  keep: Any
  place: Any
  tokens: int
  frame: Any


def compare(refs: Refs, chunk: Chunk, *, first_whole: bool, last_kept: bool) -> Any:
  """Writes scores and what passes the limit, remembers versions; how many pass, float32."""
  is_first = refs.frame == 0
  now = as_float(refs.bytes[0, chunk.rows, :])
  # In the first frame `last` is whatever was in memory.
  before = jnp.where(is_first, now, refs.last[chunk.rows, :].astype(jnp.float32))
  change = score(now, before, chunk)
  passes = jnp.where(is_first, int(first_whole), jnp.where(change > refs.limit[0], 1, 0))
  real = iota(change.shape, 1) + chunk.first < refs.tokens
  passes = jnp.where(real, passes, 0)
  refs.score[0, :, chunk.lanes] = change
  refs.keep[0, :, chunk.lanes] = passes
  version = now
  if last_kept:
    by_row = jnp.where(belongs(chunk), passes.astype(jnp.float32), 0.0)
    version = jnp.where(jnp.sum(by_row, axis=1, keepdims=True) > 0, now, before)
  refs.last[chunk.rows, :] = version.astype(jnp.bfloat16)
  return jnp.sum(passes.astype(jnp.float32))


def place(refs: Refs, chunk: Chunk, passing: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Writes what is kept and its place; int32 [1, n] kept, and how many, int32.

  passing: tokens of the whole frame that pass; where there is none, its first token stays.
  """
  keep = refs.keep[0, :, chunk.lanes]
  rescue = (iota(keep.shape, 1) + chunk.first == 0) & (passing == 0)
  keep = jnp.where(rescue, 1, keep)
  shape = (chunk.tokens, chunk.tokens)
  before = ones(iota(shape, 0) < iota(shape, 1))
  rows = jnp.broadcast_to(keep, (_ROWS_OF_ONES, chunk.tokens))
  earlier = times(ones(rows > 0), before, 0)[:1].astype(jnp.int32)
  refs.keep[0, :, chunk.lanes] = keep
  refs.place[0, :, chunk.lanes] = earlier + refs.base[0]
  return keep, jnp.sum(keep.astype(jnp.float32)).astype(jnp.int32)


def compare_frame(refs: Refs, block: int, rule: dict[str, bool]) -> Any:
  """`compare` for the whole frame; how many tokens pass, float32."""

  def step(first: Any, tokens: int, passing: Any) -> Any:
    return passing + compare(refs, Chunk(first, tokens, block), **rule)

  return walk(refs.keep.shape[2], TOKENS, step, jnp.float32(0))
