"""Every experiment and every preset traces at full size on abstract chips, allocating nothing."""

import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.training import build as build_lib
from hulu_jax.training import recipe

FILES = (Path(__file__).parents[2] / "experiments").glob("*.py")
EXPERIMENTS = sorted(p.stem for p in FILES if p.stem != "__init__")
CHIPS = 256
# fsdp must divide the encoder's width and every decoder's; tensor must divide the kv heads.
MESHES = ({"data": 2, "fsdp": 128}, {"data": 2, "fsdp": 32, "tensor": 4})


def load(experiment: str):
  return importlib.import_module(f"experiments.{experiment}")


def cases():
  """(experiment, its argument): an experiment that takes a size is traced with every size.

  In the suite's budget are all sizes of one experiment and one size of all.
  """
  for name in EXPERIMENTS:
    takes = [*inspect.signature(load(name).get_config).parameters]
    sizes = recipe.SIZES if takes and takes[0].startswith("size") else [None]
    for size in sizes:
      quick = name == "finetune_vqa" or size in (None, "7b")
      yield pytest.param(name, size, marks=() if quick else pytest.mark.slow)


def places(state):
  """Path -> shape, dtype and sharding; JAX gives an abstract scalar no sharding."""
  return {
    tree.path_name(path): (x.shape, x.dtype, x.sharding.spec if x.sharding else jax.P())
    for path, x in jax.tree.leaves_with_path(state)
  }


def check(cfg, mesh):
  program = build_lib.build(cfg, platform="cpu")
  key = jax.eval_shape(lambda: jax.random.key(0))
  with jax.sharding.use_abstract_mesh(mesh):
    state = jax.eval_shape(program.init, key)
    rows = sharding.batch_sharding(mesh)
    for shape, step in enumerate(program.steps):
      batch = program.abstract_batch(shape, rows)
      new, metrics = jax.eval_shape(jax.jit(step), state, batch)
      assert places(new) == places(state)
      assert metrics["loss"].shape == metrics["grad_norm"].shape == ()
      assert metrics["loss_by_dataset"].shape == (len(cfg.data.mixture),)
  trains = set(tree.names(state.trainable))
  dtypes = {True: jnp.dtype(cfg.dtypes.params), False: jnp.dtype(cfg.dtypes.frozen)}
  where = jax.tree.leaves(sharding.shardings(program.specs, mesh))
  held = places(tree.merge(state.trainable, state.frozen))
  for (path, spec), at in zip(jax.tree.leaves_with_path(program.specs), where, strict=True):
    # One device has nothing to shard.
    where_it_is = at.spec if mesh.size > 1 else jax.P()
    name = tree.path_name(path)
    assert held[name] == (spec.shape, dtypes[name in trains], where_it_is)


@pytest.mark.parametrize(("experiment", "size"), list(cases()))
def test_an_experiment_traces_as_it_is_written(experiment, size):
  cfg = load(experiment).get_config() if size is None else load(experiment).get_config(size)
  assert size is None or cfg.model == recipe.SIZES[size].model
  check(cfg, sharding.abstract_mesh(cfg.mesh))


@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize(
  "preset", sorted({size.model for size in recipe.SIZES.values()} - {"tiny"})
)
def test_every_large_preset_traces_on_256_chips(preset, mesh):
  size = next(size for size, own in recipe.SIZES.items() if own.model == preset)
  cfg = load("finetune_vqa").get_config(f"{size},full")
  cfg.rows = CHIPS
  mesh = sharding.abstract_mesh(mesh)
  assert mesh.size == CHIPS
  check(cfg, mesh)


def test_a_slot_of_a_large_preset_holds_its_largest_picture_and_no_more():
  """Splash attends densely inside a slot; a picture of one token a patch takes the whole budget."""
  cfg = load("finetune_vqa").get_config("7b")
  shapes = build_lib.step_shapes(cfg.shapes, cfg.rows)
  assert len(shapes) == 3
  largest = {
    (g.channels, g.merge): max(h.size for s in shapes for h in s.groups if h[2:] == g[2:])
    for s in shapes
    for g in s.groups
  }
  assert largest == dict.fromkeys([(1, 1), (3, 1), (1, 2), (3, 2)], cfg.policy.max_tokens)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_opens_with_its_command(experiment):
  assert f"hulu train --config=experiments/{experiment}.py" in (load(experiment).__doc__ or "")
