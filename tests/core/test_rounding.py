"""Stochastic rounding: right on average, the same bits on every mesh, other bits for other keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import rounding

DRAWS = 4096


def neighbours(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The bfloat16 below and above each float32 in size, as float32, by the bits."""
  low = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
  return low, (low.view(np.uint32) + np.uint32(0x10000)).view(np.float32)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
  rng = np.random.default_rng(0)
  scales = 10.0 ** rng.uniform(-30, 30, 200)
  return (rng.normal(size=200) * scales).astype(np.float32)


@pytest.fixture(scope="module")
def rounded(values) -> np.ndarray:
  """float32 [draws, values]"""
  many = jnp.broadcast_to(values, (DRAWS, len(values)))
  return np.asarray(jax.jit(rounding.stochastic)(jax.random.key(1), many).astype(jnp.float32))


def test_a_value_becomes_one_of_its_neighbours(values, rounded):
  low, high = neighbours(values)
  assert ((rounded == low) | (rounded == high)).all()


def test_on_average_nothing_changes(values, rounded):
  low, high = (bound.astype(np.float64) for bound in neighbours(values))
  share = (rounded == high).mean(axis=0)
  expected = (values - low) / (high - low)
  # Standard deviations of a share of DRAWS draws; 200 values, so that 4 of them are rarely left.
  deviation = np.sqrt(np.maximum(expected * (1 - expected), 1e-3) / DRAWS)
  assert (np.abs(share - expected) < 4.5 * deviation).all()
  assert abs(((share - expected) / deviation).mean()) < 4.5 / np.sqrt(len(values))


def test_what_bfloat16_holds_stays():
  exact = jnp.asarray([0.0, -0.0, 1.0, -3.5, 2.0**-120, 2.0**100, jnp.inf, -jnp.inf, jnp.nan])
  got = rounding.stochastic(jax.random.key(0), exact)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.asarray(got, np.float32), exact)


def test_bits_do_not_depend_on_the_mesh_but_on_the_key(mesh_2x2x2):
  x = np.random.default_rng(0).normal(size=(8, 16, 4)).astype(np.float32)
  run = jax.jit(rounding.stochastic)
  alone = np.asarray(run(jax.random.key(5), x))
  with jax.set_mesh(mesh_2x2x2):
    where = jax.NamedSharding(mesh_2x2x2, jax.P("fsdp", "tensor"))
    got = run(jax.random.key(5), jax.device_put(x, where))
    assert got.sharding.is_equivalent_to(where, x.ndim)
  np.testing.assert_array_equal(np.asarray(got), alone)
  assert (np.asarray(run(jax.random.key(6), x)) != alone).mean() > 0.1


def test_other_types_are_refused():
  with pytest.raises(TypeError, match="stochastic rounding of bfloat16; expected float32"):
    rounding.stochastic(jax.random.key(0), jnp.ones(3, jnp.bfloat16))
