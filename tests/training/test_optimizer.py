"""The optimizer against a loop in numpy: clipping, moments, decay, rates by module, schedule."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import quickstart
from hulu_jax.core import tree
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.training import optimizer

STEPS = 10
SETTINGS = optimizer.Settings(
  learning_rates={"vision": 1e-2, "projector": 2e-2, "decoder": 3e-2},
  warmup=0.4,
  decay_start=0.5,
  final=0.1,
  b1=0.8,
  b2=0.9,
  eps=1e-6,
  weight_decay=0.5,
  clip=1.0,
)
# Every bias and norm of the tiny model, by hand: these take no decay.
PLAIN = {
  "decoder/norm",
  *(f"decoder/layers/{n}" for n in ("attn_norm", "mlp_norm")),
  *(f"vision/{norm}/{part}" for norm in ("norm",) for part in ("scale", "bias")),
  *(f"vision/layers/{n}_norm/{part}" for n in ("attn", "mlp") for part in ("scale", "bias")),
  *(f"vision/layers/{n}_bias" for n in ("q", "k", "v", "o", "up", "down")),
  "vision/patch/bias",
  *(f"projector/{n}_bias" for n in ("up", "down")),
}


def by_hand(step: int) -> float:
  """Four steps up to the peak, one at it, five down half a cosine to a tenth."""
  rise = [0.25, 0.5, 0.75, 1.0, 1.0]
  fall = [0.1 + 0.9 * (1 + math.cos(math.pi * i / 5)) / 2 for i in range(5)]
  return (rise + fall)[step]


def test_the_schedule_by_hand():
  factor = optimizer.schedule(SETTINGS, STEPS)
  assert [float(factor(s)) for s in range(STEPS)] == pytest.approx(
    [by_hand(s) for s in range(STEPS)]
  )


def test_no_warmup_begins_at_the_peak():
  factor = optimizer.schedule(dataclasses.replace(SETTINGS, warmup=0.0), STEPS)
  assert [float(factor(s)) for s in range(6)] == pytest.approx([1.0] * 6)


def test_the_quick_starts_warmup_is_forty_steps():
  c = quickstart.get_config()
  factor = optimizer.schedule(optimizer.Settings(**c.optimizer.to_dict()), c.steps)
  assert float(factor(38)) < float(factor(39)) == float(factor(40)) == 1.0
  assert float(factor(0)) == pytest.approx(1 / 40)


def test_ten_steps_are_those_of_a_loop():
  rng = np.random.default_rng(0)
  shapes = {"vision": {"q": (3, 4), "q_bias": (4,)}, "projector": {"up": (4, 4)}, "decoder": {}}
  shapes["decoder"] = {"norm": (4,), "o": (4, 2)}
  params = jax.tree.map(
    lambda s: rng.normal(size=s).astype(np.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
  )
  draws = [jax.tree.map(lambda p: rng.normal(size=p.shape), params) for _ in range(STEPS)]
  # Smaller and larger than the norm at which they are clipped.
  grads = [jax.tree.map(lambda g, s=s: g * 3.0 ** (s - 4), d) for s, d in enumerate(draws)]
  found, transform = jax.tree.map(jnp.asarray, params), optimizer.make(SETTINGS, STEPS)
  state = transform.init(found)
  for step in range(STEPS):
    small = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads[step])
    updates, state = transform.update(small, state, found)
    found = optax.apply_updates(found, updates)
  expected = loop(params, grads)
  for path, leaf in jax.tree.leaves_with_path(found):
    np.testing.assert_allclose(leaf, expected[tree.path_name(path)], rtol=2e-5, atol=1e-6)


def loop(params, grads):
  """AdamW (Loshchilov and Hutter, algorithm 2), written out, in float64."""
  p = dict(zip(tree.names(params), map(np.float64, jax.tree.leaves(params)), strict=True))
  m, v = ({name: np.zeros_like(x) for name, x in p.items()} for _ in range(2))
  for step, given in enumerate(grads):
    g = dict(zip(tree.names(given), jax.tree.leaves(given), strict=True))
    norm = math.sqrt(sum((x**2).sum() for x in g.values()))
    for name in p:
      clipped = g[name] * min(1.0, 1.0 / norm)
      m[name] = 0.8 * m[name] + 0.2 * clipped
      v[name] = 0.9 * v[name] + 0.1 * clipped**2
      first, second = m[name] / (1 - 0.8 ** (step + 1)), v[name] / (1 - 0.9 ** (step + 1))
      change = first / (np.sqrt(second) + 1e-6)
      if not name.endswith(("bias", "norm")):
        change = change + 0.5 * p[name]
      rate = SETTINGS.learning_rates[name.split("/")[0]]
      p[name] = p[name] - rate * by_hand(step) * change
  return p


@pytest.mark.parametrize("preset", list(presets.PRESETS))
def test_biases_and_norms_take_no_decay(preset):
  """Asked of the optimizer: with no gradient, what takes decay shrinks and the rest stays."""
  specs = hulu.specs(presets.get(preset))
  like = jax.tree.map(lambda _: jnp.ones(()), specs)
  nothing = jax.tree.map(jnp.zeros_like, like)
  transform = optimizer.make(SETTINGS, STEPS)
  updates, _ = transform.update(nothing, transform.init(like), like)
  stay = {n for n, u in zip(tree.names(updates), jax.tree.leaves(updates), strict=True) if u == 0}
  own = {f"decoder/layers/{n}" for n in ("q_bias", "k_bias", "v_bias", "q_norm", "k_norm")}
  assert stay == PLAIN | (own & set(tree.names(specs)))
