"""Rotary positions: one angle per pair of dimensions, always in float32.

bfloat16 angles are wrong by up to 0.9 radians at position 255, so nothing here follows the compute
dtype.
"""

import jax
import jax.numpy as jnp


def sequence_angles(positions: jax.Array, head_dim: int, theta: float) -> jax.Array:
  """positions int [...] -> angles float32 [..., head_dim / 2]: position * theta^(-2j / head_dim)."""
  pairs = head_dim // 2
  frequency = theta ** (-jnp.arange(pairs, dtype=jnp.float32) / pairs)
  return positions[..., None].astype(jnp.float32) * frequency


def grid_angles(hw: jax.Array, head_dim: int, theta: float) -> jax.Array:
  """Row and column int [..., 2] -> angles float32 [..., head_dim / 2].

  The first half of the pairs turns with the row, the second with the column, both with
  frequencies theta^(-2j / (head_dim / 2)).  There is no temporal position.
  """
  row = sequence_angles(hw[..., 0], head_dim // 2, theta)
  column = sequence_angles(hw[..., 1], head_dim // 2, theta)
  return jnp.concatenate([row, column], axis=-1)


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
  """Turns dimension i with i + head_dim / 2.  x: [..., seq, heads, head_dim], angles [..., seq, *]."""
  cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
