"""Tests of a real NVIDIA GPU: `pytest -m gpu tests/gpu`; anywhere else they are skipped."""

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def on_a_gpu() -> None:
  """Skips where JAX computes on something else."""
  found = jax.default_backend()
  if found != "gpu":
    pytest.skip(f"needs an NVIDIA GPU that JAX can use; JAX computes on {found} here")
