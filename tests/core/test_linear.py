"""The one einsum: letters are axes, dtypes follow the activation, new weights register."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import linear
from hulu_jax.core import sharding

EQUATIONS = {
  "bse,ehd->bshd": ((4, 3, 8), (8, 4, 2), ("embed", "heads", "head_dim")),
  "bshd,hde->bse": ((4, 3, 4, 2), (4, 2, 8), ("heads", "head_dim", "embed")),
  "bse,em->bsm": ((4, 3, 8), (8, 6), ("embed", "mlp")),
  "bsm,me->bse": ((4, 3, 6), (6, 8), ("mlp", "embed")),
  "bse,ve->bsv": ((4, 3, 8), (10, 8), ("vocab", "embed")),
}
# How a result must lie, spelled out: rows over the data axes, and the last split axis over tensor.
RESULTS = {
  "bse,ehd->bshd": jax.P(("data", "fsdp"), None, "tensor", None),
  "bshd,hde->bse": jax.P(("data", "fsdp"), None, None),
  "bse,em->bsm": jax.P(("data", "fsdp"), None, "tensor"),
  "bsm,me->bse": jax.P(("data", "fsdp"), None, None),
  "bse,ve->bsv": jax.P(("data", "fsdp"), None, "tensor"),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_value_and_sharding_of_a_result_are_read_off_its_letters(equation, mesh_2x2x2):
  x_shape, w_shape, axes = EQUATIONS[equation]
  x = jax.random.normal(jax.random.key(0), x_shape)
  w = jax.random.normal(jax.random.key(1), w_shape)
  want = np.einsum(equation, np.asarray(x), np.asarray(w))
  np.testing.assert_allclose(linear.einsum(equation, x, w), want, rtol=1e-5, atol=1e-5)
  letters = equation.split(",")[0]
  with jax.set_mesh(mesh_2x2x2):
    x = jax.device_put(x, sharding.spec(tuple(linear.LETTERS[c] for c in letters)))
    w = jax.device_put(w, sharding.spec(axes))
    got = jax.jit(linear.einsum, static_argnums=0)(equation, x, w)
  assert jax.typeof(got).sharding.spec == RESULTS[equation]
  # float32; only the order of the contracted sum differs between devices.
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_weights_follow_the_dtype_of_the_activation():
  x, w = jnp.ones((1, 2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.float32)
  assert linear.einsum("bse,em->bsm", x, w).dtype == jnp.bfloat16


def test_a_new_kind_of_weight_brings_its_own_rule():
  @jax.tree_util.register_dataclass
  @dataclasses.dataclass(frozen=True)
  class Doubled:
    w: jax.Array

  @linear.register
  def _(w: Doubled, equation, x, out):
    return 2 * jnp.einsum(equation, x, w.w, out_sharding=out)

  x, w = jnp.ones((1, 2, 3)), jnp.ones((3, 4))
  np.testing.assert_array_equal(linear.einsum("bse,em->bsm", x, Doubled(w)), 6.0)
