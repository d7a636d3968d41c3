"""Averages and dtypes of what a run keeps between steps, against loops in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.training import keeping
from hulu_jax.training import optimizer as optimizer_lib
from hulu_jax.training import step as step_lib
from hulu_jax.training.keeping import Dtypes
from hulu_jax.training.keeping import Keeping
from hulu_jax.training.state import TrainState

STEPS = 12
RATES = {"vision": 1e-3, "projector": 1e-3, "decoder": 1e-3}
SETTINGS = optimizer_lib.Settings(
  learning_rates=RATES,
  warmup=0.0,
  decay_start=1.0,
  final=1.0,
  b1=0.9,
  b2=0.999,
  eps=1e-8,
  weight_decay=0.0,
  clip=1e9,
)
ROWS, WIDTH = 8, 16


def loss(trainable, frozen, x):
  """A regression through three parts, of which the middle one is frozen."""
  parts = tree.merge(trainable, frozen)
  for part in ("vision", "projector", "decoder"):
    x = jnp.tanh(jnp.einsum("be,ef->bf", x, parts[part]["w"].astype(jnp.float32)))
  total = jnp.sum((x - 0.5) ** 2)
  return total, {"weight": jnp.asarray(float(WIDTH))}


def parameters():
  rng = np.random.default_rng(0)
  return {n: {"w": rng.normal(0, 0.3, (WIDTH, WIDTH)).astype(np.float32)} for n in RATES}


def keep(params="float32", moments="float32", ema=None, seed=0):
  return Keeping(
    dtypes=Dtypes(params=params, frozen="float32", moments=moments), ema=ema, seed=seed
  )


def start(kept, place=lambda x: x):
  trainable, frozen = tree.partition(place(parameters()), "(vision|decoder)/.*")
  optimizer = optimizer_lib.make(SETTINGS, STEPS)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    trainable=keeping.nearest(jax.tree.map(jnp.asarray, trainable), kept.dtypes.params),
    frozen=jax.tree.map(jnp.asarray, frozen),
    opt=keeping.nearest(optimizer.init(trainable), kept.dtypes.moments),
    ema=None if kept.ema is None else keeping.wide(jax.tree.map(jnp.array, trainable)),
  )


def steps(kept, state, number, accumulate=1, place=lambda x: x):
  """The states after each step."""
  optimizer = optimizer_lib.make(SETTINGS, STEPS)
  step = jax.jit(step_lib.make_train_step(loss, optimizer, accumulate, kept))
  rng = np.random.default_rng(1)
  batches = [rng.normal(size=(ROWS, WIDTH)).astype(np.float32) for _ in range(STEPS)]
  found = []
  for batch in batches[int(state.step) : int(state.step) + number]:
    state, _ = step(state, place(batch))
    found.append(state)
  return found


def test_the_average_is_that_of_a_loop():
  kept = keep(ema=0.75)
  average = {k: v["w"].astype(np.float64) for k, v in parameters().items() if k != "projector"}
  for state in steps(kept, start(kept), STEPS):
    for name, before in average.items():
      average[name] = 0.75 * before + 0.25 * np.asarray(state.trainable[name]["w"], np.float64)
    assert state.ema["projector"]["w"] is None
    for name, expected in average.items():
      # Float32 against float64.
      np.testing.assert_allclose(state.ema[name]["w"], expected, rtol=0, atol=1e-6)


def test_an_average_changes_nothing_else():
  with_one = steps(keep(ema=0.9), start(keep(ema=0.9)), STEPS)[-1]
  without = steps(keep(), start(keep()), STEPS)[-1]
  assert without.ema is None
  jax.tree.map(np.testing.assert_array_equal, with_one.trainable, without.trainable)


def test_dtypes_are_as_they_are_asked_for():
  kept = keep("bfloat16", "bfloat16", ema=0.9)
  for state in (start(kept), steps(kept, start(kept), 1)[0]):
    assert {x.dtype for x in jax.tree.leaves(state.trainable)} == {jnp.dtype(jnp.bfloat16)}
    moments = [x for x in jax.tree.leaves(state.opt) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert len(moments) == 4 and {x.dtype for x in moments} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(state.ema)} == {jnp.dtype(jnp.float32)}
    assert state.frozen["projector"]["w"].dtype == jnp.float32


@pytest.mark.parametrize("accumulate", [1, 4])
def test_bfloat16_moves_as_float32_does_on_average(accumulate):
  """Twelve steps of 1e-3 on weights near 0.3, where bfloat16 values lie 2e-3 apart: rounded to the
  nearest most would not move at all."""
  exact = steps(keep(), start(keep()), STEPS)[-1].trainable
  began = parameters()
  several = []
  for seed in range(8):
    kept = keep("bfloat16", "bfloat16", seed=seed)
    state = steps(kept, start(kept), STEPS, accumulate)[-1]
    several.append(np.asarray(state.trainable["decoder"]["w"], np.float32))
  moved = np.mean(several, axis=0) - began["decoder"]["w"]
  expected = np.asarray(exact["decoder"]["w"]) - began["decoder"]["w"]
  assert np.corrcoef(moved.ravel(), expected.ravel())[0, 1] > 0.9
  assert np.abs(moved).mean() == pytest.approx(np.abs(expected).mean(), rel=0.1)


def test_the_chance_is_of_seed_step_and_leaf():
  """Equal values in equal leaves are rounded apart, and the same step twice alike."""
  x = {"a": jnp.full((64, 64), 1.001), "b": jnp.full((64, 64), 1.001)}

  def draw(seed, step, what):
    return jax.device_get(keeping.by_chance(x, "bfloat16", seed, jnp.asarray(step), what))

  first = draw(0, 3, "params")
  jax.tree.map(np.testing.assert_array_equal, first, draw(0, 3, "params"))
  others = [draw(1, 3, "params"), draw(0, 4, "params"), draw(0, 3, "moments"), {"a": first["b"]}]
  for other in others:
    assert (other["a"] != first["a"]).mean() > 0.2


def test_going_on_is_bitwise():
  kept = keep("bfloat16", "bfloat16", ema=0.9)
  straight = steps(kept, start(kept), STEPS)
  again = steps(kept, jax.device_get(straight[4]), STEPS)
  jax.tree.map(np.testing.assert_array_equal, again[-1], straight[-1])


def test_rounding_does_not_depend_on_the_mesh(mesh_2x2x2):
  """Before any sum is taken in another order: parameters after one step of equal gradients."""
  kept = keep("bfloat16", "bfloat16")
  alone = keeping.by_chance(parameters(), "bfloat16", 0, jnp.asarray(0), "params")
  with jax.set_mesh(mesh_2x2x2):
    where = jax.NamedSharding(mesh_2x2x2, jax.P("fsdp", "tensor"))
    placed = jax.device_put(parameters(), where)
    found = jax.jit(lambda p: kept.params(p, jnp.asarray(0)))(placed)
  assert all(x.sharding.is_equivalent_to(where, 2) for x in jax.tree.leaves(found))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(alone))


def test_the_average_lies_as_the_parameters(mesh_2x2x2):
  kept = keep(ema=0.9)
  with jax.set_mesh(mesh_2x2x2):
    where = jax.NamedSharding(mesh_2x2x2, jax.P("fsdp", "tensor"))
    rows = sharding.batch_sharding(mesh_2x2x2)
    state = start(kept, lambda p: jax.device_put(p, where))
    new = jax.jit(lambda s: kept.average(s.ema, s.trainable))(state)
  assert rows.mesh == mesh_2x2x2
  assert all(x.sharding.is_equivalent_to(where, 2) for x in jax.tree.leaves(new))


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: keep("float16"), "dtypes.params = 'float16'; there are: float32, bfloat16"),
    (lambda: keep(moments="bf16"), "dtypes.moments = 'bf16'"),
    (lambda: keep(ema=1.0), "ema = 1.0; expected a decay between 0 and 1, or None"),
    (lambda: keep(ema=float("nan")), "ema = nan"),
  ],
)
def test_what_cannot_be_meant(make, message):
  with pytest.raises(ValueError) as error:
    make()
  assert message in str(error.value)
