"""A model, a step and a resumed run on the device: what a CPU computes, to float32's rounding."""

import dataclasses

import jax
import numpy as np
import pytest

from hulu_jax.data import packing
from hulu_jax.kernels import choice
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models import scan
from hulu_jax.training import loop
from tests.models import mixed as shared
from tests.training.test_loop import config
from tests.training.test_loop import run

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def batch(builder):
  packer = packing.Packer(shared.SHAPE)
  for name, conversation in shared.CONVERSATIONS.items():
    assert packer.add(builder.build(conversation, name, generate=False))
  return packer.batch()


def test_logits_are_those_of_a_cpu(fresh_tiny, batch):
  def logits(w, batch, compute):
    return hulu.logits(w, batch, shared.MERGES, presets.TINY, compute)

  compute = dataclasses.replace(scan.FLOAT32, kernels=choice.automatic("gpu"))
  forward = jax.jit(logits, static_argnames="compute")
  with jax.default_matmul_precision("highest"):
    here = np.asarray(forward(fresh_tiny, batch, compute))
    with jax.default_device(jax.devices("cpu")[0]):
      there = np.asarray(forward(fresh_tiny, batch, scan.FLOAT32))
  real = batch.segments > 0
  # Sums of 64 products in another order, through five layers.
  np.testing.assert_allclose(here[real], there[real], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """Six steps on one GPU."""
  return run(config(mesh={"data": 1}), tmp_path_factory.mktemp("straight"))


def test_a_step_learns_and_stays_finite(straight):
  seen, state = straight
  assert seen[6]["loss"] < seen[1]["loss"]
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.trainable))


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(straight, tmp_path):
  seen, _ = straight

  def stop(report):
    if report.step == 4:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    loop.train(config(mesh={"data": 1}), tmp_path, stop)
  resumed, _ = run(config(mesh={"data": 1}), tmp_path)
  assert sorted(resumed) == [4, 5, 6]
  for step, scalars in resumed.items():
    # A GPU may add in another order each time.
    assert scalars["loss"] == pytest.approx(seen[step]["loss"], rel=1e-4)
