"""How a state's numbers are kept between steps: in which dtypes, and with a moving average or not.

A step computes in float32 whatever is kept; what is kept in bfloat16 is rounded by chance, because
an update is mostly smaller than half the distance of two bfloat16 values (2^-9 of a value) and
rounding to the nearest would undo it.
"""

import dataclasses
from typing import Any
import zlib

import jax
import jax.numpy as jnp

from hulu_jax.core import rounding
from hulu_jax.core import tree

DTYPES = ("float32", "bfloat16")
# Keeps the bits drawn here apart from those that parameters were drawn from.
_STREAM = zlib.crc32(b"keeping")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dtypes:
  """params: of what trains; frozen: of what does not; moments: of the optimizer's two.

  Raises:
    ValueError: a name that is not in DTYPES.
  """

  params: str
  frozen: str
  moments: str

  def __post_init__(self) -> None:
    for name, found in vars(self).items():
      if found not in DTYPES:
        raise ValueError(f"dtypes.{name} = {found!r}; there are: {', '.join(DTYPES)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keeping:
  """ema: decay of the average of what trains, which is float32 always; None keeps no average.

  seed: of the rounding.

  Raises:
    ValueError: a decay outside of (0, 1).
  """

  dtypes: Dtypes
  ema: float | None
  seed: int

  def __post_init__(self) -> None:
    if self.ema is not None and not 0.0 < self.ema < 1.0:
      raise ValueError(f"ema = {self.ema}; expected a decay between 0 and 1, or None for none")

  def params(self, new: Any, step: jax.Array) -> Any:
    """What trains as it is kept; new: in float32, as `step` made it."""
    return by_chance(new, self.dtypes.params, self.seed, step, "params")

  def moments(self, new: Any, step: jax.Array) -> Any:
    """The optimizer's state as it is kept; new: in float32, as `step` made it."""
    return by_chance(new, self.dtypes.moments, self.seed, step, "moments")

  def average(self, before: Any, params: Any) -> Any:
    """The average with these parameters in it, None where there is none."""
    return None if self.ema is None else averaged(before, params, self.ema)


PLAIN = Keeping(
  dtypes=Dtypes(params="float32", frozen="float32", moments="float32"), ema=None, seed=0
)


def wide(values: Any) -> Any:
  """Every floating leaf in float32, the others as they are."""
  return _floats(lambda _, x: x.astype(jnp.float32), values)


def nearest(values: Any, dtype: str) -> Any:
  """Every floating leaf rounded to the nearest of `dtype`: for what is kept the first time."""
  return _floats(lambda _, x: x.astype(dtype), values)


def by_chance(values: Any, dtype: str, seed: int, step: jax.Array, what: str) -> Any:
  """Every float32 leaf in `dtype`; to bfloat16 by chance.

  The chance is a function of the seed, the step, and `what` with the leaf's path: no two leaves
  share it, and a step that is repeated rounds as it did.
  """
  if dtype == "float32":
    return values
  now = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAM), step)

  def one(name: str, x: jax.Array) -> jax.Array:
    return rounding.stochastic(jax.random.fold_in(now, zlib.crc32(f"{what}/{name}".encode())), x)

  return _floats(one, values)


def averaged(before: Any, params: Any, decay: float) -> Any:
  """The exponential moving average after one step more: before + (1 - decay) (params - before)."""
  return jax.tree.map(lambda a, p: a + (1.0 - decay) * (p.astype(a.dtype) - a), before, params)


def _floats(f: Any, values: Any) -> Any:
  def one(name: str, x: jax.Array) -> jax.Array:
    return f(name, x) if jnp.issubdtype(x.dtype, jnp.floating) else x

  return tree.map_named(one, values)
