"""The estimate of memory: state held exactly, what backward keeps, and how the knobs move it."""

import jax
import jax.numpy as jnp
import pytest

from experiments import finetune_vqa
from experiments import quickstart
from hulu_jax.core import sharding
from hulu_jax.training import advice
from hulu_jax.training import build
from hulu_jax.training import footprint

# Compiled with libtpu 0.0.42: GB a chip, arguments and all (`benchmarks/aot.py`).
V5E_256 = {"data": 2, "fsdp": 128, "tensor": 1}
V5P_256 = {"data": 1, "fsdp": 128, "tensor": 1}
COMPILED = (
  ("7b,full", V5E_256, 256, "pictures", 0.89, 9.53),
  ("7b,full", V5E_256, 256, "grey_stacks", 0.90, 9.09),
  ("7b,full", V5E_256, 256, "colour_stacks", 0.96, 9.52),
  ("32b,full", V5P_256, 128, "pictures", 3.15, 21.95),
  ("32b,full", V5P_256, 128, "grey_stacks", 3.17, 28.32),
  ("32b,full", V5P_256, 128, "colour_stacks", 3.23, 30.39),
)


def small(**change):
  """The quick start's step over 2 x 2 x 2 chips."""
  cfg = advice.changed(quickstart.get_config(), {"rows": 8, **change})
  cfg.mesh = {"data": 2, "fsdp": 2, "tensor": 2}
  return build.build(cfg, platform="cpu"), sharding.abstract_mesh(cfg.mesh)


def estimated(**change):
  program, mesh = small(**change)
  return footprint.estimate(program, 0, mesh)


@pytest.mark.parametrize(("argument", "mesh", "rows", "shape", "arguments", "total"), COMPILED)
def test_large_steps_are_within_15_percent_of_what_the_compiler_said(
  argument, mesh, rows, shape, arguments, total
):
  cfg = finetune_vqa.get_config(argument)
  cfg.mesh, cfg.rows = mesh, rows
  with cfg.unlocked():
    cfg.shapes = {shape: cfg.shapes[shape]}
  program = build.build(cfg, platform="tpu")
  found = footprint.estimate(program, 0, sharding.abstract_mesh(cfg.mesh))
  assert found.total / 1e9 == pytest.approx(total, rel=0.15)
  # Arrays alone; the compiler pads their last two axes to whole tiles.
  assert 0.85 * arguments < found.arguments / 1e9 <= arguments


def test_the_state_is_what_devices_hold(mesh_2x2x2):
  program, _ = small()
  mesh = mesh_2x2x2
  with jax.set_mesh(mesh):
    state = jax.jit(program.init)(jax.random.key(0))
  found = estimated()

  def on_the_first(arrays):
    first = jax.devices()[0]
    shards = (s for x in jax.tree.leaves(arrays) for s in x.addressable_shards)
    return sum(s.data.nbytes for s in shards if s.device == first)

  assert found.weights == on_the_first((state.trainable, state.frozen))
  assert found.weights + found.moments == on_the_first(state)
  assert found.gradients == found.weights


def test_a_frozen_part_has_no_moments_and_no_gradients():
  whole, part = estimated(), estimated(trainable="projector/.*")
  assert part.weights == whole.weights
  assert part.gradients < 0.1 * whole.gradients and part.moments < 0.1 * whole.moments


def test_what_backward_keeps_by_hand():
  """sin(x) @ w: the cosine for x, the sine for w; x and w themselves are given."""
  mesh = sharding.abstract_mesh({})
  x, w = jnp.ones((4, 8)), jnp.ones((8, 2))
  with jax.sharding.use_abstract_mesh(mesh):
    both = footprint.residuals(lambda p: jnp.sin(p[0]) @ p[1], ((x, w),), mesh)
    weight = footprint.residuals(lambda w, x: jnp.sin(x) @ w, (w, x), mesh)
  assert both == 2 * 4 * 8 * 4
  assert weight == 4 * 8 * 4


def test_less_is_kept_the_more_is_made_again():
  def saved(remat):
    return estimated(**{"compute.vision_remat": remat, "compute.decoder_remat": remat}).saved

  policies = ("none", "save_dots", "save_qkv_out", "save_attention", "full")
  ladder = [saved(remat) for remat in policies]
  assert ladder == sorted(ladder, reverse=True) and len(set(ladder)) == 5


def test_microbatches_keep_less_and_add_up_in_a_second_gradient():
  once, twice = estimated(), estimated(accumulate=2)
  assert twice.saved == pytest.approx(once.saved / 2, rel=0.05)
  assert twice.gradients == 2 * once.gradients
  assert twice.batch == once.batch


def test_the_head_takes_what_a_chunk_takes():
  program, mesh = small(**{"compute.loss_chunk": 6})
  whole, _ = small()
  heads = [
    footprint.Working(p.config, p.compute, p.shapes[0], mesh).head(True) for p in (whole, program)
  ]
  rows, vocab = 8 / 4, 512 / 2
  assert heads[0] - heads[1] == 4 * rows * vocab * (36 - 6)


def test_context_deals_what_is_kept():
  cfg = quickstart.get_config()
  cfg.rows = 4
  with cfg.unlocked():
    cfg.shapes.all.groups = ((4, 96, 1, 2),)
  found = []
  for axes in ({"fsdp": 2}, {"fsdp": 2, "context": 2}):
    program = build.build(cfg, platform="cpu")
    found.append(footprint.estimate(program, 0, sharding.abstract_mesh(axes)))
  whole, dealt = found
  assert dealt.saved == pytest.approx(whole.saved / 2, rel=0.2)
  assert dealt.working == pytest.approx(whole.working / 2, rel=0.2)
