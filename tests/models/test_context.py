"""A row dealt over the mesh axis `context` gives what a row on one device gives."""

import dataclasses

import jax
import numpy as np
import pytest

from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.data import packing
from hulu_jax.data.schema import Group
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models.scan import FLOAT32
from hulu_jax.training import step as step_lib
from tests.models.mixed import CONVERSATIONS
from tests.models.mixed import MERGES
from tests.models.mixed import REMAT
from tests.models.mixed import SHAPE

# Slots and supervised positions divide by 4, tokens by 8.
DEALT = SHAPE._replace(
  rows=4,
  tokens=120,
  supervised=24,
  groups=(Group(4, 18, 3, 1), Group(4, 19, 1, 1), Group(4, 36, 1, 2), Group(4, 20, 3, 2)),
)


@pytest.fixture(scope="module")
def batch(builder):
  packer = packing.Packer(DEALT)
  examples = [builder.build(m, name, generate=False) for name, m in CONVERSATIONS.items()]
  assert all(packer.add(e) for e in examples)
  return packer.batch()


def gradient(compute, quick):
  loss = step_lib.make_loss(presets.TINY, MERGES, compute, 1, 1e-3)
  grad = jax.value_and_grad(loss, has_aux=True)
  return jax.jit(lambda w, b: grad(w, jax.tree.map(lambda _: None, w), b), compiler_options=quick)


def on_mesh(mesh, run, params, batch):
  mesh = sharding.make_mesh(mesh)
  where = sharding.shardings(hulu.specs(presets.TINY), mesh)
  with jax.set_mesh(mesh):
    return run(jax.device_put(params, where), jax.device_put(batch, sharding.batch_sharding(mesh)))


def assert_same(got, want):
  (loss, sums), grads = got
  (want_loss, want_sums), want = want
  assert float(loss) == pytest.approx(float(want_loss), rel=1e-6)
  for name, value in want_sums.items():
    np.testing.assert_allclose(sums[name], value, rtol=1e-6, err_msg=name)
  for (path, g), w in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(want), strict=True):
    scale = float(np.abs(w).max())
    # float32: only the order of sums differs.
    np.testing.assert_allclose(g, w, rtol=0, atol=1e-5 * scale, err_msg=tree.path_name(path))


def test_one_row_over_context_and_tensor(params, batch, quick):
  """Of several kinds of media, on eight devices that share it; logits in chunks."""
  row = jax.tree.map(lambda x: x[:1], batch)
  assert all((s > 0).any() for s in row.patch_segment[1:3]) and row.segments.max() > 1
  compute = dataclasses.replace(REMAT, loss_chunk=3)
  got = on_mesh({"context": 4, "tensor": 2}, gradient(compute, quick), params, row)
  assert_same(got, gradient(FLOAT32, quick)(params, row))


@pytest.mark.slow  # a minute
@pytest.mark.parametrize("axis", ["data", "tensor"])
def test_rows_over_context_and_fsdp(axis, params, batch, quick):
  """Two slots of a group to a device, which the encoder takes in passes."""
  want = gradient(FLOAT32, quick)(params, batch)
  compute = dataclasses.replace(REMAT, vision_pass=36)
  got = on_mesh({axis: 2, "fsdp": 2, "context": 2}, gradient(compute, quick), params, batch)
  assert_same(got, want)


@pytest.mark.slow  # half a minute
def test_logits_come_back_in_the_order_of_the_row(params, batch, quick, logits):
  run = jax.jit(
    lambda w, b: hulu.logits(w, b, MERGES, presets.TINY, FLOAT32), compiler_options=quick
  )
  got = on_mesh({"fsdp": 2, "context": 4}, run, params, batch)
  np.testing.assert_allclose(got, logits(params, batch), rtol=1e-5, atol=1e-5)
