"""Where a visual token's patches lie in its row, and which tokens of a mask are kept."""

import jax
import jax.numpy as jnp

from hulu_jax.kernels.token_compaction.reference import Sizes


def pooled(sizes: Sizes) -> int:
  """Visual tokens of a row."""
  return sum(patches // merge**2 for patches, merge in sizes)


def blocks(index: jax.Array, sizes: Sizes) -> tuple[jax.Array, jax.Array]:
  """int32 indices of visual tokens -> the row's first patch and number of patches of each.

  Both are 0 for an index past the end.
  """
  start, count = jnp.zeros_like(index), jnp.zeros_like(index)
  first_patch = first_token = 0
  for patches, merge in sizes:
    tokens = patches // merge**2
    inside = (index >= first_token) & (index < first_token + tokens)
    start = jnp.where(inside, first_patch + (index - first_token) * merge**2, start)
    count = jnp.where(inside, merge**2, count)
    first_patch, first_token = first_patch + patches, first_token + tokens
  return start, count


def largest(sizes: Sizes) -> int:
  """Patches of the largest merge block."""
  return max(merge**2 for _, merge in sizes)


def compaction_index(keep: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """A keep mask as what `compact` takes, without a look from the host.

  keep: bool [batch, visual tokens] -> index int32 [batch, capacity], the kept in order, past the
  end where there are no more; valid int32 [batch], how many there are; overflow int32 [batch], how
  many had no room.
  """
  place = jnp.cumsum(keep, axis=1, dtype=jnp.int32) - 1
  tokens = jnp.arange(keep.shape[1], dtype=jnp.int32)
  empty = jnp.full(capacity, keep.shape[1], jnp.int32)
  where = jnp.where(keep, place, capacity)
  index = jax.vmap(lambda w: empty.at[w].set(tokens, mode="drop"))(where)
  count = jnp.sum(keep, axis=1, dtype=jnp.int32)
  valid = jnp.minimum(count, capacity)
  return index, valid, count - valid
