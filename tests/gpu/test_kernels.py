"""Every kernel on the device against its reference in float32, value and gradient."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import gpu
from benchmarks import kernel_cases

pytestmark = pytest.mark.gpu
CASES = list(kernel_cases.small("gpu"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("seed", (0, 1))
def test_a_kernel_gives_what_its_reference_gives_in_float32(case, seed):
  arguments = kernel_cases.values(case, seed)
  got = jax.jit(case.function)(*arguments)
  exact = [a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a for a in arguments]
  with jax.default_matmul_precision("highest"):
    want = jax.jit(case.oracle)(*exact)
  assert gpu.difference(jax.device_get(got), jax.device_get(want)) <= case.tolerance
