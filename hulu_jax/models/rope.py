"""Rotary positions: one angle per pair of dimensions, always in float32.

bfloat16 angles are wrong by up to 0.9 radians at position 255, so nothing here follows the compute
dtype.
"""

import jax
import jax.numpy as jnp
import numpy as np


def sequence_angles(positions: jax.Array, head_dim: int, theta: float) -> jax.Array:
  """int [...] -> angles float32 [..., head_dim / 2]: position * theta^(-2j / head_dim)."""
  return positions[..., None].astype(jnp.float32) * _frequencies(head_dim, theta)


def _frequencies(head_dim: int, theta: float) -> np.ndarray:
  """theta^(-2j / head_dim), float32 [head_dim / 2], rounded step by step as torch rounds it.

  One unit in the last place of a frequency is 0.002 radians at position 32767.
  """
  exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
  return np.float32(1) / (theta ** exponent.astype(np.float64)).astype(np.float32)


def grid_angles(hw: jax.Array, head_dim: int, theta: float) -> jax.Array:
  """Row and column int [..., 2] -> angles float32 [..., head_dim / 2].

  The first half of the pairs turns with the row, the second with the column, both with
  frequencies theta^(-2j / (head_dim / 2)).  There is no temporal position.
  """
  row = sequence_angles(hw[..., 0], head_dim // 2, theta)
  column = sequence_angles(hw[..., 1], head_dim // 2, theta)
  return jnp.concatenate([row, column], axis=-1)


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
  """Turns dimension i with i + head_dim / 2.  x: [..., seq, heads, head_dim]."""
  cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
