"""The knobs that are advised make the step fit, and none that recomputes less does."""

import pytest

from experiments import quickstart
from hulu_jax.core import sharding
from hulu_jax.training import advice
from hulu_jax.training import build
from hulu_jax.training import footprint


@pytest.fixture(name="cfg")
def on_four():
  cfg = quickstart.get_config()
  cfg.mesh, cfg.rows = {"data": 2, "fsdp": 2, "tensor": 1}, 16
  return cfg


def needs(cfg):
  program = build.build(cfg, platform="cpu")
  return footprint.estimate(program, 0, sharding.abstract_mesh(cfg.mesh)).total


def test_where_there_is_room_nothing_is_recomputed(cfg):
  found = advice.advise(cfg, "cpu", 1e9)
  assert found.change == {"compute.vision_remat": "none", "compute.decoder_remat": "none"}
  assert found.recomputed == 0
  assert found.flags.startswith("--config.compute.vision_remat=none --config.compute.decoder")


def test_what_stands_best_is_left(cfg):
  cfg.compute.update(vision_remat="none", decoder_remat="none")
  assert advice.advise(cfg, "cpu", 1e9).change == {}


@pytest.mark.parametrize("part", (0.9, 0.7, 0.5))
def test_advice_fits_where_the_experiment_does_not(cfg, part):
  allowed = part * needs(cfg)
  found = advice.advise(cfg, "cpu", allowed)
  assert found.change
  assert needs(advice.changed(cfg, found.change)) == found.footprint.total <= allowed


def test_nothing_helps_where_the_state_is_too_much(cfg):
  assert advice.advise(cfg, "cpu", 1e6) is None


def test_a_change_leaves_the_experiment_as_it_was(cfg):
  own = advice.changed(cfg, {"mesh.fsdp": 4, "accumulate": 2})
  assert (own.mesh.fsdp, own.accumulate, cfg.mesh.fsdp, cfg.accumulate) == (4, 2, 2, 1)
