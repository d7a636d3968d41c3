"""Parameters: what a fresh one looks like and where it is born, on any mesh alike."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models.config import DecoderConfig
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.config import VisionConfig

DRAWS = 40_000
# Which dimensions of a weight its matmul contracts, counted without the layer axis.  Written from
# the reference's torch modules (Linear, Conv2d), not from the einsums of the model.
CONTRACTED = {
  "vision/patch/kernel": (0,),
  "vision/layers/q": (0,),
  "vision/layers/k": (0,),
  "vision/layers/v": (0,),
  "vision/layers/o": (0, 1),
  "vision/layers/up": (0,),
  "vision/layers/down": (0,),
  "projector/up": (0,),
  "projector/down": (0,),
  "decoder/layers/q": (0,),
  "decoder/layers/k": (0,),
  "decoder/layers/v": (0,),
  "decoder/layers/o": (0, 1),
  "decoder/layers/gate": (0,),
  "decoder/layers/up": (0,),
  "decoder/layers/down": (0,),
  "decoder/head": (1,),
}
TINY_BIASES = ("vision/layers/up_bias", "vision/layers/down_bias")


def expected(name: str, shape: tuple[int, ...], embed_std: float) -> tuple[float, float]:
  """(mean, standard deviation) of a fresh parameter, from its shape without the layer axis."""
  if name in CONTRACTED:
    inputs = math.prod(shape[i] for i in CONTRACTED[name])
    outputs = math.prod(shape) // inputs
    # torch's xavier_uniform_: variance 2 / (in + out); everything else: variance 1 / in.
    if name.startswith("vision/layers"):
      return 0.0, math.sqrt(2 / (inputs + outputs))
    return 0.0, inputs**-0.5
  if name == "decoder/embed":
    return 0.0, embed_std
  if name in TINY_BIASES:
    return 0.0, 1e-6
  return (0.0 if name.endswith("bias") else 1.0), 0.0


# Every length differs from every other, so that no wrong fan is right by chance.
UNLIKE = HuluConfig(
  vision=VisionConfig(
    patch=7, channels=3, embed=96, layers=2, heads=3, head_dim=16, mlp=200, norm_eps=1e-6,
    rope_theta=1e4,
  ),
  decoder=DecoderConfig(
    layers=3, embed=80, heads=6, kv_heads=2, head_dim=24, mlp=220, vocab=130, rope_theta=1e6,
    norm_eps=1e-6, qkv_bias=True, qk_norm=True, tied=False, max_positions=64, embed_std=0.3,
  ),
)  # fmt: skip
CONFIGS = {**presets.PRESETS, "unlike": UNLIKE}


def cases():
  for preset, config in CONFIGS.items():
    for path, spec in jax.tree.leaves_with_path(hulu.specs(config)):
      name = tree.path_name(path)
      stacked = spec.axes[0] == "layer"
      shape = spec.shape[1:] if stacked else spec.shape
      yield preset, name, spec, expected(name, shape, config.decoder.embed_std)


@pytest.mark.parametrize("preset", CONFIGS)
def test_every_initializer_has_its_standard_deviation(preset):
  """At every preset's full width: an initializer's spread does not depend on the shape drawn."""
  for name, spec, (mean, std) in (case[1:] for case in cases() if case[0] == preset):
    draw = np.asarray(spec.init(jax.random.key(1), (DRAWS,), jnp.float32, None), np.float64)
    # Five standard errors of a mean and, for a normal, of a standard deviation.
    assert abs(draw.mean() - mean) <= 5 * std / DRAWS**0.5, name
    assert abs(draw.std() - std) <= 5 * std / (2 * DRAWS) ** 0.5, name
    # Xavier draws are uniform: none lies beyond sqrt(3) deviations.  Normal ones reach beyond 3.
    reach = np.abs(draw - mean).max() / (std or 1.0)
    uniform = name.startswith("vision/layers") and name in CONTRACTED
    assert reach <= 3**0.5 if uniform or not std else reach > 3, name


def test_whole_trees_are_drawn_with_these_deviations(fresh_tiny):
  for (path, value), (_, name, _, (mean, std)) in zip(
    jax.tree.leaves_with_path(fresh_tiny), (c for c in cases() if c[0] == "tiny"), strict=True
  ):
    assert tree.path_name(path) == name
    assert abs(np.mean(value) - mean) <= 5 * std / value.size**0.5, name
    assert abs(np.std(value) - std) <= 5 * std / (2 * value.size) ** 0.5, name
  layers = fresh_tiny["decoder"]["layers"]
  assert not np.allclose(layers["q"][0], layers["q"][1]), "layers start different"
  assert not np.allclose(layers["k"], layers["v"])


@pytest.fixture(scope="module")
def born_on_2x2x2(mesh_2x2x2, quick):
  specs = hulu.specs(presets.TINY)
  with jax.set_mesh(mesh_2x2x2):
    draw = jax.jit(lambda key: P.initialize(key, specs), compiler_options=quick)
    return draw(jax.random.key(0))


def test_a_draw_does_not_depend_on_the_mesh(fresh_tiny, born_on_2x2x2):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(born_on_2x2x2), fresh_tiny)


def test_a_draw_depends_on_its_path_and_the_key_only(fresh_tiny):
  up = {"projector": {"up": hulu.specs(presets.TINY)["projector"]["up"]}}
  more = {**up, "another": P.ParamSpec((3,), (None,), P.normal(1.0))}
  drawn = P.initialize(jax.random.key(0), more)["projector"]["up"]
  # The same bits; the last one of their inverse error function depends on compiler options.
  np.testing.assert_allclose(drawn, fresh_tiny["projector"]["up"], rtol=1e-5)
  other = P.initialize(jax.random.key(1), up)["projector"]["up"]
  assert not np.allclose(drawn, other)
  elsewhere = P.initialize(jax.random.key(0), {"b": up["projector"]["up"]})["b"]
  assert not np.allclose(drawn, elsewhere)


def test_parameters_are_born_with_their_shardings(born_on_2x2x2, mesh_2x2x2):
  want = P.abstract(hulu.specs(presets.TINY), mesh_2x2x2)
  for (path, value), like in zip(
    jax.tree.leaves_with_path(born_on_2x2x2), jax.tree.leaves(want), strict=True
  ):
    assert value.sharding.is_equivalent_to(like.sharding, value.ndim), tree.path_name(path)
    assert (value.shape, value.dtype) == (like.shape, like.dtype)
  gate = born_on_2x2x2["decoder"]["layers"]["gate"]
  layers, embed, mlp = gate.shape
  assert gate.sharding.shard_shape(gate.shape) == (layers, embed // 2, mlp // 2)


@pytest.mark.parametrize(
  ("init", "axes"),
  [
    (P.normal(0.02), ("embed", "mlp")),
    (P.xavier(1024, 512), ("embed", "mlp")),
    (P.constant(1.0), ("embed", "mlp")),
    (P.lecun(1024), ("vocab", "embed")),
  ],
)
def test_no_device_ever_draws_a_whole_leaf(init, axes):
  """Drawing first and resharding after would hold a whole leaf's random bits on every device."""
  mesh = sharding.make_mesh({"fsdp": 4, "tensor": 2})
  spec = P.ParamSpec((1024, 512), axes, init)
  with jax.set_mesh(mesh):
    compiled = (
      jax.jit(lambda key: P.initialize(key, {"w": spec})).lower(jax.random.key(0)).compile()
    )
  memory = compiled.memory_analysis()
  leaf = 4 * math.prod(spec.shape)
  assert memory.output_size_in_bytes <= leaf // 8 + 64
  # A normal draw holds its bits, their float and the result: three shards, not one whole leaf.
  assert memory.temp_size_in_bytes <= 4 * leaf // 8


def test_stack_adds_a_layer_axis_and_count_counts():
  spec = P.ParamSpec((3, 5), ("embed", None), P.normal(1.0))
  stacked = P.stack({"a": spec}, 7)["a"]
  assert (stacked.shape, stacked.axes, stacked.init) == (
    (7, 3, 5),
    ("layer", *spec.axes),
    spec.init,
  )
  assert P.count({"a": spec, "b": {"c": stacked}}) == 15 + 105


def test_a_spec_whose_axes_do_not_fit_its_shape_is_refused():
  with pytest.raises(ValueError, match="differ in length"):
    P.ParamSpec((3, 5), ("embed",), P.normal(1.0))
