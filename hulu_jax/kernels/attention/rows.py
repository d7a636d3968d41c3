"""Rows of tokens brought to the form that a kernel wants: one leading axis, whole blocks."""

import math

import jax
import jax.numpy as jnp


def block_size(n: int, *, most: int, multiple: int) -> int:
  """Tokens of a block: as many as share n evenly, at most `most`, rounded up to `multiple`."""
  blocks = math.ceil(n / most)
  return multiple * math.ceil(n / blocks / multiple)


def padded(
  arrays: tuple[jax.Array, ...], segments: jax.Array, block: int
) -> tuple[list[jax.Array], jax.Array]:
  """[..., n, heads, head_dim] -> [rows, m, heads, head_dim] with m a multiple of `block`; segments
  [..., n] -> [rows, m], the new tokens in segment 0."""
  n = segments.shape[-1]
  extra = -n % block
  flat = [x.reshape(-1, *x.shape[-3:]) for x in arrays]
  longer = [jnp.pad(x, ((0, 0), (0, extra), (0, 0), (0, 0))) for x in flat]
  return longer, jnp.pad(segments.reshape(-1, n), ((0, 0), (0, extra)))
