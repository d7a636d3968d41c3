"""What a supervised token counts under each weighting, by hand and on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hulu_jax.core import sharding
from hulu_jax.data import packing
from hulu_jax.data.schema import StepShape
from hulu_jax.models import hulu
from hulu_jax.training import step as step_lib
from hulu_jax.training import weighting
from hulu_jax.training.state import TrainState

# Two rows.  The first holds a conversation of dataset 0 with one answer token, and one of dataset 1
# with three; the second one of dataset 0 with two, of which the second counts half.  K = 5.
SHAPE = StepShape(rows=2, tokens=8, supervised=5, visual=0, groups=())


@pytest.fixture
def batch():
  b = packing.empty_batch(SHAPE)
  b.segments[0] = [1, 1, 2, 2, 2, 2, 0, 0]
  b.source[0] = [0, 0, 1, 1, 1, 1, 0, 0]
  b.loss_index[0, :4] = [0, 2, 3, 4]
  b.loss_weights[0, :4] = 1.0
  b.segments[1] = [1, 1, 1, 0, 0, 0, 0, 0]
  b.loss_index[1, :2] = [0, 1]
  b.loss_weights[1, :2] = [1.0, 0.5]
  return b


CASES = [
  ("token", (1.0, 1.0), [[1, 1, 1, 1, 0], [1, 0.5, 0, 0, 0]]),
  ("token", (1.0, 3.0), [[1, 3, 3, 3, 0], [1, 0.5, 0, 0, 0]]),
  ("sample", (1.0, 1.0), [[1, 1 / 3, 1 / 3, 1 / 3, 0], [2 / 3, 1 / 3, 0, 0, 0]]),
  ("sample", (0.5, 3.0), [[0.5, 1, 1, 1, 0], [1 / 3, 1 / 6, 0, 0, 0]]),
  # Dataset 0 has 2.5 in all, dataset 1 has 3.
  ("dataset", (1.0, 1.0), [[0.4, 1 / 3, 1 / 3, 1 / 3, 0], [0.4, 0.2, 0, 0, 0]]),
  ("dataset", (5.0, 1.0), [[2, 1 / 3, 1 / 3, 1 / 3, 0], [2, 1, 0, 0, 0]]),
  # A dataset that the batch has nothing of changes nothing.
  ("dataset", (1.0, 1.0, 9.0), [[0.4, 1 / 3, 1 / 3, 1 / 3, 0], [0.4, 0.2, 0, 0, 0]]),
]


@pytest.mark.parametrize(("name", "factors", "expected"), CASES)
def test_by_hand(batch, name, factors, expected):
  got = jax.jit(weighting.make(name, factors))(batch)
  np.testing.assert_allclose(got.loss_weights, np.float32(expected), rtol=1e-6)
  for field in set(batch._fields) - {"loss_weights"}:
    jax.tree.map(np.testing.assert_array_equal, getattr(got, field), getattr(batch, field))


@pytest.mark.parametrize("name", weighting.NAMES)
def test_a_mesh_gives_the_same(batch, name, mesh_2x2x2):
  four = packing.concatenate([batch, batch])
  run = jax.jit(weighting.make(name, (0.5, 2.0)))
  alone = jax.device_get(run(four).loss_weights)
  with jax.set_mesh(mesh_2x2x2):
    rows = sharding.batch_sharding(mesh_2x2x2)
    got = run(jax.device_put(four, rows)).loss_weights
    assert got.sharding.is_equivalent_to(rows, got.ndim)
  np.testing.assert_allclose(got, alone, rtol=1e-6)


def test_tokens_alike_is_the_batch_itself(batch):
  assert weighting.make("token", (1.0, 1.0))(batch) is batch


def test_nothing_supervised_weighs_nothing(batch):
  batch.loss_weights[...] = 0.0
  for name in weighting.NAMES:
    assert not np.asarray(weighting.make(name, (1.0, 2.0))(batch).loss_weights).any()


def test_factors_are_the_entries_own():
  assert weighting.factors([{"loss_weight": 2}, {}, {"loss_weight": None}]) == (2.0, 1.0, 1.0)


def test_another_name_is_refused():
  with pytest.raises(ValueError, match="loss_weighting = 'task'; there are: token, sample, data"):
    weighting.make("task", (1.0,))


def loss_fn(trainable, frozen, batch):
  """The squared distance of a table's entry from 1, at every supervised target."""
  del frozen
  targets = hulu.take_rows(batch.targets, batch.loss_index)
  hit = targets[..., None] == jnp.arange(trainable["decoder"]["table"].shape[0])
  found = jnp.sum(jnp.where(hit, trainable["decoder"]["table"], 0.0), axis=-1)
  loss = jnp.sum((found - 1.0) ** 2 * batch.loss_weights)
  return loss, {"weight": jnp.sum(batch.loss_weights)}


@pytest.mark.parametrize("name", weighting.NAMES)
def test_microbatches_and_a_mesh_take_the_step_of_the_whole_batch(batch, name, mesh_2x2x2):
  """The second half of the rows has other datasets than the first: what a dataset weighs is known
  only where all rows are."""
  other = batch._replace(source=np.where(batch.segments > 0, 2, 0).astype(np.int32))
  eight = packing.concatenate([batch, batch, batch, other])
  eight.targets[...] = np.random.default_rng(0).integers(0, 5, eight.targets.shape)
  weigh = weighting.make(name, (1.0, 2.0, 0.5))
  optimizer = optax.sgd(0.1)

  def step(accumulate, place):
    trainable = {"decoder": {"table": jnp.linspace(0.0, 2.0, 5)}}
    state = TrainState(jnp.zeros((), jnp.int32), trainable, {}, optimizer.init(trainable))
    own = step_lib.make_train_step(loss_fn, optimizer, accumulate)
    new, metrics = jax.jit(lambda s, b: own(s, weigh(b)))(state, place(eight))
    return jax.device_get((new.trainable["decoder"]["table"], metrics["loss"]))

  whole = step(1, lambda b: b)
  dealt = step(4, lambda b: b)
  with jax.set_mesh(mesh_2x2x2):
    spread = step(2, lambda b: jax.device_put(b, sharding.batch_sharding(mesh_2x2x2)))
  for other_way in (dealt, spread):
    for got, want in zip(other_way, whole, strict=True):
      np.testing.assert_allclose(got, want, rtol=1e-6)  # sums in another order
