"""The whole model on a mixed batch: packing isolates, padding is inert, any mesh agrees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.data import packing
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models import scan
from hulu_jax.training import step as step_lib
from tests.models import mixed as shared


def test_logits_are_float32_of_every_position(params, mixed, logits):
  got = logits(params, mixed.batch)
  assert (got.shape, got.dtype) == ((4, 113, 512), jnp.float32)
  assert np.isfinite(got).all()


def test_supervised_logits_are_the_rows_of_all_logits(params, mixed, logits, quick):
  whole = np.asarray(logits(params, mixed.batch))

  def forward(w, batch):
    return hulu.supervised_logits(w, batch, shared.MERGES, presets.TINY, shared.PLAIN)

  got = jax.jit(forward, compiler_options=quick)(params, mixed.batch)
  assert got.shape == (4, 23, 512)
  for row, index, weights, found in zip(
    whole, mixed.batch.loss_index, mixed.batch.loss_weights, got, strict=True
  ):
    used = weights > 0
    # The same sums over 64 values, in another order.
    np.testing.assert_allclose(found[used], row[index[used]], rtol=1e-5, atol=1e-5)
    assert (np.asarray(found[~used]) == 0).all()


@pytest.mark.parametrize("name", shared.CONVERSATIONS)
def test_a_packed_sample_equals_the_same_sample_alone(params, mixed, logits, name):
  """Neither neighbours in the row, nor in a slot, nor in the batch show in its logits."""
  alone = packing.Packer(shared.SHAPE)
  assert alone.add(next(e for e in mixed.examples if e.id == name))
  row, here = mixed.places[name]
  want = np.asarray(logits(params, alone.batch()))[0, : here.stop - here.start]
  got = np.asarray(logits(params, mixed.batch))[row, here]
  # Padding adds exact zeros to every sum; what differs is where in a row a product is computed.
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_pictures_matter_and_only_where_they_can(params, mixed, logits):
  """Another picture changes the logits from its first token on, and no other segment."""
  row, here = mixed.places["pictures"]
  others = [place for name, place in mixed.places.items() if name != "pictures"]
  batch = mixed.batch
  colour = batch.patches[0].copy()
  colour[row] = 255 - colour[row]
  before = np.asarray(logits(params, batch))
  after = np.asarray(logits(params, batch._replace(patches=(colour, *batch.patches[1:]))))
  changed = np.abs(after - before).max(axis=-1)
  visual = np.flatnonzero(batch.visual_slot[row, here] < shared.SHAPE.visual)
  second_picture = here.start + visual[12]  # the first has 3 x 4 patches
  assert (changed[row, here.start : second_picture] == 0).all()
  assert (changed[row, second_picture : here.stop] > 0).all()
  assert all((changed[r, span] == 0).all() for r, span in others)


def with_garbage_in_padding(batch):
  rng = np.random.default_rng(9)

  def fill(array, padding, low, high):
    noise = rng.integers(low, high, array.shape).astype(array.dtype)
    return np.where(
      padding.reshape(padding.shape + (1,) * (array.ndim - padding.ndim)), noise, array
    )

  nothing = batch.segments == 0
  no_patch = [s == 0 for s in batch.patch_segment]
  return batch._replace(
    tokens=fill(batch.tokens, nothing, 0, 500),
    targets=fill(batch.targets, nothing, 0, 500),
    positions=fill(batch.positions, nothing, 0, 4000),
    patches=tuple(map(lambda p, n: fill(p, n, 0, 256), batch.patches, no_patch)),
    patch_hw=tuple(map(lambda p, n: fill(p, n, 0, 90), batch.patch_hw, no_patch)),
  )


def test_what_padding_holds_never_shows(params, mixed, logits):
  before = np.asarray(logits(params, mixed.batch))
  after = np.asarray(logits(params, with_garbage_in_padding(mixed.batch)))
  real = mixed.batch.segments > 0
  np.testing.assert_array_equal(after[real], before[real])
  assert np.isfinite(after).all()


@pytest.fixture(scope="module")
def loss_and_grads(quick):
  """remat -> compiled (params, batch) -> ((loss, sums), grads)."""

  def make(remat: str):
    compute = dataclasses.replace(scan.FLOAT32, vision_remat=remat, decoder_remat=remat)
    loss = step_lib.make_loss(presets.TINY, shared.MERGES, compute, 1, 0.0)

    def of_all(w, batch):
      return loss(w, jax.tree.map(lambda _: None, w), batch)

    return jax.jit(jax.value_and_grad(of_all, has_aux=True), compiler_options=quick)

  return make


def assert_grads_close(got, want, rtol):
  """To `rtol` of each leaf's largest gradient."""
  got_leaves = jax.tree.leaves_with_path(got)
  for (path, g), w in zip(got_leaves, jax.tree.leaves(want), strict=True):
    scale = np.abs(w).max()
    np.testing.assert_allclose(g, w, rtol=0, atol=rtol * scale, err_msg=tree.path_name(path))


@pytest.mark.parametrize("remat", [name for name in scan.REMAT if name != "none"])
def test_what_backward_recomputes_does_not_change_gradients(
  params, mixed, loss_and_grads, plain_grads, remat
):
  (loss, _), grads = loss_and_grads(remat)(params, mixed.batch)
  assert float(loss) == pytest.approx(plain_grads[0], rel=1e-6)
  # A recomputed activation may be fused differently.
  assert_grads_close(grads, plain_grads[1], 1e-5)


@pytest.fixture(scope="module")
def plain(loss_and_grads):
  return loss_and_grads("none")


@pytest.fixture(scope="module")
def plain_grads(plain, params, mixed):
  (loss, _), grads = plain(params, mixed.batch)
  return float(loss), grads


def test_gradients_reach_every_parameter_and_padding_adds_none(params, mixed, plain, plain_grads):
  _, grads = plain_grads
  for path, g in jax.tree.leaves_with_path(grads):
    assert np.isfinite(g).all() and np.abs(g).max() > 0, tree.path_name(path)
  (loss, _), garbage = plain(params, with_garbage_in_padding(mixed.batch))
  assert float(loss) == plain_grads[0]
  assert_grads_close(garbage, grads, 1e-6)


def test_a_batch_of_nothing_but_padding_has_a_zero_gradient(params, plain):
  (loss, sums), grads = plain(params, packing.empty_batch(shared.SHAPE))
  assert (float(loss), float(sums["weight"])) == (0.0, 0.0)
  assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads))


def test_the_loss_is_a_mean_over_supervised_positions(
  params, mixed, logits, plain_grads, run_on_one
):
  """Written over all positions, as the reference's cross entropy."""
  batch, total, weight = mixed.batch, 0.0, 0.0
  scores = np.asarray(logits(params, batch), np.float64)
  log_p = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
  for e in mixed.examples:
    row, here = mixed.places[e.id]
    for i in np.flatnonzero(e.weights):
      total -= e.weights[i] * log_p[row, here.start + i - 1, e.tokens[i]]
      weight += e.weights[i]
  assert plain_grads[0] == pytest.approx(total, rel=1e-5)
  assert run_on_one.metrics["loss"] == pytest.approx(total / weight, rel=1e-5)


def test_one_device_and_2x2x2_take_the_same_step(run_on_one, run_on_2x2x2):
  one, eight = run_on_one.metrics, run_on_2x2x2.metrics
  for name in ("loss", "grad_norm", "weight"):
    assert one[name] == pytest.approx(eight[name], rel=1e-5)
  # Sums over rows and over tensor shards in another order.
  assert_grads_close(run_on_2x2x2.grads, run_on_one.grads, 2e-5)


def test_a_step_keeps_every_sharding(run_on_2x2x2, params, mesh_2x2x2):
  want = sharding.shardings(hulu.specs(presets.TINY), mesh_2x2x2)
  for (path, leaf), where in zip(
    jax.tree.leaves_with_path(run_on_2x2x2.state.trainable), jax.tree.leaves(want), strict=True
  ):
    assert leaf.sharding.is_equivalent_to(where, leaf.ndim), tree.path_name(path)


def test_activations_in_bfloat16_stay_close(params, mixed, logits, quick):
  compute = dataclasses.replace(scan.FLOAT32, dtype=jnp.bfloat16)

  def forward(w, batch):
    return hulu.logits(w, batch, shared.MERGES, presets.TINY, compute)

  got = jax.jit(forward, compiler_options=quick)(params, mixed.batch)
  assert got.dtype == jnp.float32
  real = mixed.batch.segments > 0
  want = np.asarray(logits(params, mixed.batch))[real]
  # bfloat16 carries 8 bits; five layers on, logits of about 1 differ in the second decimal.
  assert np.abs(np.asarray(got)[real] - want).mean() < 0.03 * np.abs(want).mean() + 0.02


def test_an_index_past_the_end_gives_zeros():
  x = jnp.arange(24.0).reshape(2, 4, 3)
  got = hulu.take_rows(x, jnp.array([[3, 4], [0, 9]]))
  np.testing.assert_array_equal(got[0, 0], x[0, 3])
  np.testing.assert_array_equal(got[1, 0], x[1, 0])
  assert (np.asarray(got[:, 1]) == 0).all()
