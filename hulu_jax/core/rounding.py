"""Rounding to bfloat16 by chance, so that many small changes add up which one by one round away.

A float32 has 16 bits that a bfloat16 lacks.  They, as a fraction of the distance between the two
bfloat16 neighbours, are the probability of the upper one, so the expected result is the value
itself (Gupta et al., "Deep Learning with Limited Numerical Precision", 2015, section 3).
"""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

_LOWER = 0xFFFF


def stochastic(key: jax.Array, x: jax.Array) -> jax.Array:
  """float32 to bfloat16 of the same shape and sharding; infinities and NaN stay what they are.

  The bits drawn depend on `key` and on a value's place in the whole array, not on its sharding.

  Raises:
    TypeError: x is not float32.
  """
  if x.dtype != jnp.float32:
    raise TypeError(f"stochastic rounding of {x.dtype}; expected float32")
  drawn = jax.random.bits(key, x.shape, jnp.uint16, out_sharding=_where(x))
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + drawn.astype(jnp.uint32)
  rounded = jax.lax.bitcast_convert_type(bits & ~jnp.uint32(_LOWER), jnp.float32)
  return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


def _where(x: jax.Array) -> jax.P | None:
  """How x lies, None where no explicit mesh says it."""
  place = jax.typeof(x).sharding
  explicit = not place.mesh.empty and AxisType.Explicit in place.mesh.axis_types
  return place.spec if explicit else None
