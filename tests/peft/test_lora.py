"""LoRA as a kind of weight: what it computes, what it costs backward, where its leaves lie."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax import peft
from hulu_jax.core import linear
from hulu_jax.core import params as P
from hulu_jax.core import plugins
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.peft.lora import LowRank

DECODER = "decoder/layers/(q|k|v|o|gate|up|down)"
EVERY = f"{DECODER}|vision/layers/(q|k|v|o|up|down)|projector/(up|down)"
TINY = hulu.specs(presets.TINY)
# Equation -> shape of x, of the weight, its logical axes, how many of them are inputs.
EQUATIONS = {
  "bse,ehd->bshd": ((4, 3, 8), (8, 4, 2), ("embed", "heads", "head_dim"), 1),
  "bshd,hde->bse": ((4, 3, 4, 2), (4, 2, 8), ("heads", "head_dim", "embed"), 2),
  "bse,em->bsm": ((4, 3, 8), (8, 6), ("embed", "mlp"), 1),
  "bsm,me->bse": ((4, 3, 6), (6, 8), ("mlp", "embed"), 1),
}


def settings(**changes):
  return {"method": "lora", "rank": 3, "alpha": 6.0, "rslora": False, "targets": EVERY} | changes


def moved(params):
  """Every adapter leaf away from where it starts, base leaves as they are."""
  return tree.map_named(
    lambda name, x: x + 0.05 if name.endswith(("/a", "/b")) else x, jax.device_get(params)
  )


@pytest.fixture(scope="module")
def adapters():
  return peft.named(settings())


@pytest.fixture(scope="module")
def adapted(adapters, fresh_tiny):
  """The tiny preset with adapters as they begin on every linear layer, on the host."""
  rng = np.random.default_rng(0)

  def start(name, spec):
    drawn = rng.uniform(-0.1, 0.1, spec.shape).astype(np.float32)
    return drawn if name.endswith("/a") else np.zeros(spec.shape, np.float32)

  mine, _ = tree.partition(adapters.specs(TINY), adapters.pattern(TINY))
  return tree.merge(tree.map_named(start, mine), adapters.wrap(fresh_tiny))


def by_hand(node):
  """W + scale A B of one node in float64, layer by layer as matrices."""
  w, a, b = (np.asarray(x, np.float64) for x in (node.w, node.a, node.b))
  rank = a.shape[-1]
  layers = a.shape[0] if a.ndim + b.ndim - 2 > w.ndim else 1
  a, b = a.reshape(layers, -1, rank), b.reshape(layers, rank, -1)
  return w + node.scale * np.matmul(a, b).reshape(w.shape)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_rule_is_the_merged_weight_on_one_device_and_on_eight(equation, mesh_2x2x2):
  x_shape, w_shape, axes, inputs = EQUATIONS[equation]
  spec = P.ParamSpec(w_shape, axes, P.normal(1.0))
  found = peft.named(settings(targets="q"))
  rng = np.random.default_rng(0)
  node = jax.tree.map(
    lambda s: rng.normal(size=s.shape).astype(np.float32), found.specs({"q": spec})["q"]
  )
  x = rng.normal(size=x_shape).astype(np.float32)
  assert node.a.shape == (*w_shape[:inputs], 3) and node.b.shape == (3, *w_shape[inputs:])
  want = np.einsum(equation, x, by_hand(node))
  # float32 against float64: sums of at most 8 products.
  close = {"rtol": 1e-5, "atol": 2e-5}
  np.testing.assert_allclose(linear.einsum(equation, x, node), want, **close)
  np.testing.assert_allclose(node.merged(), by_hand(node), **close)
  where = sharding.shardings(found.specs({"q": spec}), mesh_2x2x2)["q"]
  letters = equation.split(",")[0]
  with jax.set_mesh(mesh_2x2x2):
    x = jax.device_put(x, sharding.spec(tuple(linear.LETTERS[c] for c in letters)))
    spread = jax.tree.map(jax.device_put, node, where)
    got = jax.jit(linear.einsum, static_argnums=0)(equation, x, spread)
    plain = jax.jit(linear.einsum, static_argnums=0)(equation, x, spread.w)
    merged = jax.jit(linear.plain)(spread)
  assert jax.typeof(got).sharding.spec == jax.typeof(plain).sharding.spec
  assert merged.sharding.is_equivalent_to(where.w, merged.ndim)
  np.testing.assert_allclose(got, want, **close)
  np.testing.assert_allclose(merged, by_hand(node), **close)


def test_specs_of_the_factors():
  found = peft.named(settings(rank=5)).specs(TINY)
  v, d = presets.TINY.vision, presets.TINY.decoder

  def seen(node):
    return [(s.shape, s.axes) for s in (node.w, node.a, node.b)]

  assert seen(found["decoder"]["layers"]["o"]) == [
    ((3, d.heads, 16, d.embed), ("layer", "heads", "head_dim", "embed")),
    ((3, d.heads, 16, 5), ("layer", "heads", "head_dim", "rank")),
    ((3, 5, d.embed), ("layer", "rank", "embed")),
  ]
  assert seen(found["vision"]["layers"]["k"]) == [
    ((2, v.embed, v.heads, 16), ("layer", "embed", "heads", "head_dim")),
    ((2, v.embed, 5), ("layer", "embed", "rank")),
    ((2, 5, v.heads, 16), ("layer", "rank", "heads", "head_dim")),
  ]
  assert seen(found["projector"]["up"])[1:] == [
    ((v.embed, 5), ("embed", "rank")),
    ((5, d.embed), ("rank", "mlp")),
  ]
  adapted = {n.rpartition("/")[0] for n in tree.names(found) if n.endswith("/a")}
  assert len(adapted) == 7 + 6 + 2
  # What is not a target is what it was.
  assert found["decoder"]["embed"] == TINY["decoder"]["embed"]


def test_scale():
  """alpha / rank, and alpha / sqrt(rank) for rsLoRA."""
  plain, stable = (
    peft.named(settings(rank=16, alpha=8, rslora=rslora)).specs(TINY) for rslora in (False, True)
  )
  assert plain["projector"]["up"].scale == 0.5
  assert stable["projector"]["up"].scale == 2.0


def test_a_starts_uniform_within_one_over_root_inputs_and_b_at_zero():
  """torch's kaiming_uniform_(a=sqrt(5)): gain sqrt(2 / 6) times sqrt(3 / inputs)."""
  specs = {"o": TINY["decoder"]["layers"]["o"], "down": TINY["decoder"]["layers"]["down"]}
  found = peft.named(settings(targets="o|down"))
  fresh = found.add(jax.random.key(0), dict.fromkeys(specs, 0.0), specs)
  for path, inputs in (("o", 64), ("down", 176)):
    node = fresh[path]
    bound = math.sqrt(2 / (1 + 5)) * math.sqrt(3 / inputs)
    assert np.abs(node.a).max() <= bound
    assert np.std(node.a) == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert not node.b.any()


def test_fresh_adapters_change_no_bit(adapted, fresh_tiny, packed, forward):
  batch, run = packed, forward
  np.testing.assert_array_equal(run(adapted, batch), run(fresh_tiny, batch))


def test_whole_model_equals_weights_merged_by_hand(adapted, packed, forward, mesh_2x2x2, adapters):
  """Text, pictures, volumes, clips; layers under scan; then the same on eight devices."""
  mine = moved(adapted)
  merged = jax.tree.map(
    lambda x: by_hand(x).astype(np.float32) if isinstance(x, LowRank) else x,
    mine,
    is_leaf=lambda x: isinstance(x, LowRank),
  )
  want = forward(merged, packed)
  got = forward(mine, packed)
  assert np.abs(want - forward(adapted, packed)).max() > 0.1
  # float32 through three decoder and two encoder layers; logits are of order one.
  np.testing.assert_allclose(got, want, atol=2e-4)
  where = sharding.shardings(adapters.specs(TINY), mesh_2x2x2)
  with jax.set_mesh(mesh_2x2x2):
    spread = forward(
      jax.device_put(mine, where), jax.device_put(packed, sharding.batch_sharding(mesh_2x2x2))
    )
  np.testing.assert_allclose(spread, want, atol=2e-4)


def test_backward_forms_no_gradient_of_the_base_weight():
  """No product in value and gradient has the shape of W: neither W + A B nor dW is ever made."""
  shape = (48, 80)
  spec = P.ParamSpec(shape, ("embed", "mlp"), P.normal(1.0))
  found = peft.named(settings(targets="up"))
  node = jax.tree.map(lambda s: jnp.ones(s.shape), found.specs({"up": spec}))
  mine, frozen = tree.partition(node, found.pattern({"up": spec}))
  x = jnp.ones((2, 7, 48))

  def loss(mine, merge):
    w = tree.merge(mine, frozen)["up"]
    return linear.einsum("bse,em->bsm", x, w.merged() if merge else w).sum()

  def products(merge):
    jaxpr = jax.make_jaxpr(jax.grad(loss), static_argnums=1)(mine, merge)
    return [e.outvars[0].aval.shape for e in jaxpr.eqns if e.primitive.name == "dot_general"]

  assert shape not in products(False) and shape[::-1] not in products(False)
  assert {shape, shape[::-1]} & set(products(True))  # the test can tell
  grads = jax.grad(loss)(mine, False)
  assert tree.names(grads) == ["up/a", "up/b"]
  assert grads["up"].w is None


def test_bfloat16_activations_stay_bfloat16(adapted):
  node = jax.tree.map(lambda x: x[0], moved(adapted)["decoder"]["layers"]["gate"])
  x = np.random.default_rng(0).normal(size=(1, 5, 64)).astype(np.float32)
  got = linear.einsum("bse,em->bsm", jnp.asarray(x, jnp.bfloat16), node)
  assert got.dtype == jnp.bfloat16
  # bfloat16 has 8 bits; x A is rounded once more before B.
  want = np.einsum("bse,em->bsm", x, by_hand(node))
  np.testing.assert_allclose(got.astype(np.float32), want, atol=0.05 * np.abs(want).max())


def test_a_merged_weight_has_the_dtype_of_its_base(adapted):
  node = moved(adapted)["projector"]["up"]
  half = LowRank(w=jnp.asarray(node.w, jnp.bfloat16), a=node.a, b=node.b, scale=node.scale)
  got = half.merged()
  assert got.dtype == jnp.bfloat16
  want = np.asarray(half.w, np.float32) + (by_hand(node) - node.w)
  np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))


def test_adapters_are_born_in_their_shards(mesh_2x2x2, quick):
  specs = {"o": TINY["decoder"]["layers"]["o"]}
  found = peft.named(settings(targets="o"))
  where = sharding.shardings(found.specs(specs), mesh_2x2x2)
  with jax.set_mesh(mesh_2x2x2):
    base = {"o": jax.device_put(np.ones(specs["o"].shape, np.float32), where["o"].w)}
    add = jax.jit(lambda key, w: found.add(key, w, specs), compiler_options=quick)
    got = add(jax.random.key(1), base)
  for x, place in zip(jax.tree.leaves(got), jax.tree.leaves(where), strict=True):
    assert x.sharding.is_equivalent_to(place, x.ndim)
  a, b = got["o"].a, got["o"].b
  assert a.sharding.shard_shape(a.shape) == (3, 2, 16, 3)  # heads over tensor
  assert b.sharding.shard_shape(b.shape) == (3, 3, 32)  # embed over fsdp


def test_partition_by_path_holds_the_node_open(adapters):
  specs = adapters.specs(TINY)
  mine, frozen = tree.partition(specs, adapters.pattern(TINY))
  assert all(name.endswith(("/a", "/b")) for name in tree.names(mine))
  assert len(tree.names(mine)) == 2 * 15
  assert not [name for name in tree.names(frozen) if name.endswith(("/a", "/b"))]
  assert tree.merge(mine, frozen) == specs == tree.merge(frozen, mine)


def test_rank_64_on_the_7b_decoder_has_161_million_parameters():
  """28 layers of 64 (inputs + outputs): q, o 2 x 7168, k, v 2 x 4096, the MLP 3 x 22528."""
  base = hulu.specs(presets.get("hulu-7b"))
  found = peft.named(settings(rank=64, alpha=16, targets=DECODER))
  mine, frozen = tree.partition(found.specs(base), found.pattern(base))
  assert P.count(mine) == 28 * 64 * (2 * 7168 + 2 * 4096 + 3 * 22528) == 161_480_704
  assert P.count(frozen) == P.count(base)


@pytest.mark.parametrize("method", plugins.names("hulu_jax.peft"))
def test_every_method_keeps_the_protocol(method):
  found = plugins.load("hulu_jax.peft", method)
  assert all(callable(getattr(found, name)) for name in ("Settings", "wrap", "new"))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"method": "lore"}, "no 'lore' in hulu_jax.peft; there are: lora"),
    ({"dropout": 0.1}, r"has the settings \['alpha', 'rank', 'rslora', 'targets'\], found .*dropo"),
    ({"rank": 0}, "peft.rank = 0; expected a whole number from 1"),
    ({"rank": 2.5}, "peft.rank = 2.5"),
    ({"alpha": -1.0}, "peft.alpha = -1.0; expected a number above 0"),
    ({"rslora": "no"}, "peft.rslora = 'no'; expected True or False"),
    ({"targets": "decoder/q"}, "peft.targets: pattern 'decoder/q' matches no parameter"),
    ({"targets": "decoder/(q"}, "peft.targets: missing "),
    (
      {"targets": "decoder/(embed|norm|layers/q)|vision/patch/kernel"},
      r"no linear layer: decoder/embed \('vocab', 'embed'\), decoder/norm .*vision/patch/kernel",
    ),
  ],
)
def test_settings_that_cannot_be_meant(changes, message):
  with pytest.raises(ValueError, match=message):
    peft.named(settings(**changes)).specs(TINY)
