"""The Flax surface: the same tree, logits and training step; nnx through Flax's bridge."""

from flax import nnx
from flax.training.train_state import TrainState as FlaxState
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import params as P
from hulu_jax.core import tree
from hulu_jax.data import packing
from hulu_jax.interop.flax_module import HuluMed
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.training import losses
from hulu_jax.training import optimizer as optimizer_lib
from hulu_jax.training import step as step_lib
from hulu_jax.training.state import TrainState
from tests.models.mixed import CONVERSATIONS
from tests.models.mixed import MERGES
from tests.models.mixed import PLAIN
from tests.models.mixed import SETTINGS
from tests.models.mixed import SHAPE

MODULE = HuluMed(config=presets.TINY, merges=MERGES, compute=PLAIN)


@pytest.fixture(scope="module")
def batch(builder):
  packer = packing.Packer(SHAPE)
  for name, messages in CONVERSATIONS.items():
    assert packer.add(builder.build(messages, name, generate=False))
  return jax.tree.map(jnp.asarray, packer.batch())


@pytest.fixture(scope="module")
def variables(batch, quick):
  return jax.jit(MODULE.init, compiler_options=quick)(jax.random.key(0), batch)


@pytest.fixture(scope="module")
def want(variables, batch, quick):
  forward = jax.jit(
    lambda w, b: hulu.logits(w, b, MERGES, presets.TINY, PLAIN), compiler_options=quick
  )
  return np.asarray(forward(variables["params"], batch))


def test_init_gives_the_projects_own_tree(variables):
  specs = hulu.specs(presets.TINY)
  assert list(variables) == ["params"]
  assert tree.names(variables["params"]) == tree.names(specs)
  for value, spec in zip(jax.tree.leaves(variables["params"]), jax.tree.leaves(specs), strict=True):
    assert (value.shape, value.dtype) == (spec.shape, spec.dtype)
  norm = variables["params"]["decoder"]["norm"]
  np.testing.assert_array_equal(norm, 1.0)
  assert np.std(variables["params"]["decoder"]["embed"]) == pytest.approx(0.7, rel=0.05)


def test_init_under_a_mesh_is_born_sharded(mesh_2x2x2):
  """Shapes alone: the shardings are part of the types."""
  empty = packing.empty_batch(SHAPE)
  with jax.set_mesh(mesh_2x2x2):
    rows = jax.P(("data", "fsdp"))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), empty)
    abstract = jax.eval_shape(MODULE.init, jax.random.key(0), like)["params"]
  wanted = P.abstract(hulu.specs(presets.TINY), mesh_2x2x2)
  for (path, a), b in zip(
    jax.tree.leaves_with_path(abstract), jax.tree.leaves(wanted), strict=True
  ):
    assert a.sharding.spec == b.sharding.spec, tree.path_name(path)


def test_apply_equals_the_functions(variables, batch, want, quick):
  got = jax.jit(MODULE.apply, compiler_options=quick)(variables, batch)
  np.testing.assert_array_equal(got, want)


def test_the_config_alone_is_enough_for_text(batch):
  text = batch._replace(patches=(), patch_segment=(), patch_hw=())
  logits = jax.eval_shape(HuluMed(presets.TINY).init_with_output, jax.random.key(0), text)[0]
  assert logits.shape == (*batch.tokens.shape, presets.TINY.decoder.vocab)
  with pytest.raises(ValueError, match=r"merges \(\) for a batch of 4 patch groups"):
    jax.eval_shape(HuluMed(presets.TINY).init, jax.random.key(0), batch)


def test_weights_of_another_shape_are_refused(variables, batch):
  wrong = jax.tree.map(lambda x: x, variables)
  wrong["params"]["decoder"]["norm"] = jnp.ones(3)
  with pytest.raises(Exception, match="decoder"):
    jax.eval_shape(MODULE.apply, wrong, batch)


def test_nnx_through_the_bridge(batch, quick):
  def create():
    bridged = nnx.bridge.ToNNX(MODULE, rngs=nnx.Rngs(0))
    return nnx.split(nnx.bridge.lazy_init(bridged, batch), nnx.Param, ...)

  graph, params, rest = jax.jit(create, compiler_options=quick)()
  own = nnx.to_pure_dict(params)
  assert tree.names(own) == tree.names(hulu.specs(presets.TINY))

  def loss(params, rest):
    logits = nnx.merge(graph, params, rest, copy=True)(batch)
    return jnp.mean(logits**2), logits

  def own_loss(params, _):
    logits = hulu.logits(params, batch, MERGES, presets.TINY, PLAIN)
    return jnp.mean(logits**2), logits

  def both(f, *arguments):
    return jax.jit(jax.value_and_grad(f, has_aux=True), compiler_options=quick)(*arguments)

  (value, logits), grads = both(loss, params, rest)
  (own_value, own_logits), own_grads = both(own_loss, own, None)
  np.testing.assert_array_equal(logits, own_logits)
  assert float(value) == float(own_value)
  grads = nnx.to_pure_dict(grads)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads, own_grads
  )


def test_a_flax_train_state_takes_the_same_step(variables, batch, quick):
  optimizer = optimizer_lib.make(SETTINGS, 10)
  params = variables["params"]

  def flax_step(state: FlaxState, batch):
    def loss_fn(params):
      logits = state.apply_fn({"params": params}, batch, method="supervised_logits")
      targets = hulu.take_rows(batch.targets, batch.loss_index)
      loss = losses.token_losses(logits, targets, 0.0) * batch.loss_weights
      return jnp.sum(loss) / jnp.sum(batch.loss_weights)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss

  theirs = FlaxState.create(apply_fn=MODULE.apply, params=params, tx=optimizer)
  flax_step = jax.jit(flax_step, compiler_options=quick)
  nothing = jax.tree.map(lambda _: None, params)
  ours = TrainState(jnp.zeros((), jnp.int32), params, nothing, optimizer.init(params))
  loss_fn = step_lib.make_loss(presets.TINY, MERGES, PLAIN, 1, 0.0)
  our_step = jax.jit(step_lib.make_train_step(loss_fn, optimizer, 1), compiler_options=quick)
  for _ in range(3):
    theirs, loss = flax_step(theirs, batch)
    ours, metrics = our_step(ours, batch)
    assert float(loss) == pytest.approx(float(metrics["loss"]), rel=1e-6)
  assert int(theirs.step) == int(ours.step) == 3
  for (path, a), b in zip(
    jax.tree.leaves_with_path(ours.trainable), jax.tree.leaves(theirs.params), strict=True
  ):
    # Adam divides by the root of a gradient's square: a last bit of a gradient near zero shows.
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=tree.path_name(path))
