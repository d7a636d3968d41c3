"""Parameters are dicts of arrays; a parallel dict of `ParamSpec` says what each array is."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any
import zlib

import jax
import jax.numpy as jnp

from hulu_jax.core import sharding
from hulu_jax.core import tree

Params = Mapping[str, Any]  # nested dict, leaves are jax.Array
Specs = Mapping[str, Any]  # same structure, leaves are ParamSpec
Initializer = Callable[[jax.Array, tuple[int, ...], Any, jax.P | None], jax.Array]


@dataclasses.dataclass(frozen=True)
class ParamSpec:
  """Everything known about one parameter before it exists.

  A plain dataclass is a pytree leaf, so `jax.tree.map` over specs just works.

  shape: lengths; axes: the logical name of each dimension, None where it is never sharded.
  """

  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  init: Initializer
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    if len(self.shape) != len(self.axes):
      raise ValueError(f"shape {self.shape} and axes {self.axes} differ in length")


def normal(std: float) -> Initializer:
  """Gaussian; every device draws only its own shard."""

  def init(key: jax.Array, shape: tuple[int, ...], dtype: Any, out: jax.P | None) -> jax.Array:
    return jax.random.normal(key, shape, dtype, out_sharding=out) * jnp.asarray(std, dtype)

  return init


def uniform(bound: float) -> Initializer:
  """Uniform in [-bound, bound); every device draws only its own shard."""

  def init(key: jax.Array, shape: tuple[int, ...], dtype: Any, out: jax.P | None) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound, out_sharding=out)

  return init


def constant(value: float) -> Initializer:
  """The same value everywhere: norms start at 1, biases at 0."""

  def init(key: jax.Array, shape: tuple[int, ...], dtype: Any, out: jax.P | None) -> jax.Array:
    del key
    return jnp.broadcast_to(jnp.asarray(value, dtype), shape, out_sharding=out)

  return init


def lecun(fan_in: int) -> Initializer:
  """Normal with variance 1 / fan_in, fan_in being the product of ALL contracted axes."""
  return normal(fan_in**-0.5)


def xavier(fan_in: int, fan_out: int) -> Initializer:
  """Uniform with bound sqrt(6 / (fan_in + fan_out)), as torch's xavier_uniform_."""
  return uniform(math.sqrt(6.0 / (fan_in + fan_out)))


def stack(specs: Specs, layers: int) -> Specs:
  """Adds a leading layer axis to every spec, for `jax.lax.scan` over layers."""
  return jax.tree.map(
    lambda s: dataclasses.replace(s, shape=(layers, *s.shape), axes=("layer", *s.axes)), specs
  )


def initialize(key: jax.Array, specs: Specs) -> Params:
  """Draws every parameter where it will live; call it under `jax.jit` and `jax.set_mesh`."""
  return tree.map_named(lambda name, spec: draw(key, name, spec), specs)


def draw(key: jax.Array, name: str, spec: ParamSpec) -> jax.Array:
  """One parameter of a model that begins with `key`; name: its path.

  Its own key depends on its path, so adding a parameter does not reshuffle the others.
  """
  own = jax.random.fold_in(key, zlib.crc32(name.encode()))
  return spec.init(own, spec.shape, spec.dtype, sharding.spec(spec.axes))


def abstract(specs: Specs, mesh: jax.sharding.Mesh) -> Any:
  """Specs as `jax.ShapeDtypeStruct`s with their shardings: what a restore needs to know."""
  return jax.tree.map(
    lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where),
    specs,
    sharding.shardings(specs, mesh),
  )


def count(specs: Specs) -> int:
  """Number of parameters."""
  return sum(math.prod(s.shape) for s in jax.tree.leaves(specs))
