"""The loop as a user meets it: it learns, it resumes bit by bit, and the mesh does not matter."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

from experiments import quickstart
from hulu_jax.models import presets
from hulu_jax.training import build
from hulu_jax.training import loop

STEPS = 6


def config(**changes) -> ConfigDict:
  """The quick start with small pools, every kind of input, a batch that eight devices divide."""
  c = quickstart.get_config()
  with c.unlocked():
    c.steps, c.report_every, c.checkpoint.every = STEPS, 1, 3
    c.rows, c.optimizer.warmup = 8, 0.34
    for entry in c.data.mixture:
      entry["size"] = 400
      entry["pool"] = min(entry["pool"], 12)
    c.update(changes)
  return c


def run(cfg, workdir):
  """Trains; returns ({step: scalars}, parameters on the host)."""
  seen = {}
  state = loop.train(cfg, workdir, lambda r: seen.__setitem__(r.step, dict(r.scalars)))
  return seen, jax.device_get(state)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  return run(config(mesh={"data": 8}), tmp_path_factory.mktemp("straight"))


def test_reports_every_step_of_every_dataset(straight):
  seen, _ = straight
  assert sorted(seen) == list(range(1, STEPS + 1))
  last = seen[STEPS]
  assert {"loss", "grad_norm", "loss/text", "loss/2D", "kept", "padding/tokens"} <= last.keys()
  assert last["loss"] < seen[1]["loss"]
  assert 0 <= last["padding/tokens"] < 1 and 0 <= last["padding/patches"] < 1


def test_resume_is_bitwise(straight, tmp_path):
  """Stopped after a checkpoint at step 3, later losses and the final state are the same bits."""
  seen, state = straight
  stopped = config(mesh={"data": 8})
  calls = []

  def stop(report):
    calls.append((report.step, dict(report.scalars)))
    if report.step == 4:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    loop.train(stopped, tmp_path, stop)
  resumed, again = run(config(mesh={"data": 8}), tmp_path)
  assert sorted(resumed) == [4, 5, 6]
  for step, scalars in [*calls, *resumed.items()]:
    assert scalars == seen[step]
  jax.tree.map(np.testing.assert_array_equal, again, state)


def test_losses_do_not_depend_on_the_mesh(straight, tmp_path):
  seen, _ = straight
  other, _ = run(config(mesh={"data": 2, "fsdp": 2, "tensor": 2}), tmp_path)
  for step, scalars in other.items():
    # float32: only the order of sums over devices differs.
    assert scalars["loss"] == pytest.approx(seen[step]["loss"], rel=1e-5)


def test_one_device_by_the_command_line(straight, root, tmp_path):
  """As a user runs it: its own process, one device, an experiment file of their own."""
  experiment = tmp_path / "mine.py"
  experiment.write_text(
    "from tests.training.test_loop import config\n\n"
    "def get_config():\n  return config(mesh={'data': 1})\n"
  )
  env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
  command = [sys.executable, "-m", "hulu_jax", "train", f"--config={experiment}"]
  subprocess.run([*command, f"--workdir={tmp_path / 'run'}"], cwd=root, env=env, check=True)
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  assert len(lines) == STEPS
  for line in map(json.loads, lines):
    # float32: only the order of sums over devices differs.
    assert line["loss"] == pytest.approx(straight[0][line["step"]]["loss"], rel=1e-5)
  run = json.loads((tmp_path / "run" / "run.json").read_text())
  assert run["parameters"] == 333_920
  assert run["starts"][0]["kernels"]["decoder_attention"] == "xla"
  assert run["config"]["model"] == "tiny" and run["starts"][0]["versions"]["jax"] == jax.__version__


def test_frozen_parts_stay_and_have_no_optimizer_state(tmp_path):
  cfg = config(mesh={"data": 8}, steps=3, trainable="(projector|vision)/.*")
  _, state = run(cfg, tmp_path)
  fresh = jax.jit(build.build(cfg, platform="cpu").init)(jax.random.key(cfg.seed))
  assert state.trainable["decoder"]["embed"] is None
  np.testing.assert_array_equal(state.frozen["decoder"]["embed"], fresh.frozen["decoder"]["embed"])
  moments = jax.tree.leaves(state.opt)
  assert sum(m.size for m in moments) < 3 * sum(x.size for x in jax.tree.leaves(state.trainable))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"model": "hulu-8b"}, "no preset 'hulu-8b'; there are: tiny, hulu-4b"),
    ({"trainable": "encoder/.*"}, "matches no parameter"),
    ({"mesh": {"data": 3}}, "needs 3 devices, found 8"),
    ({"mesh": {"dta": 8}}, "unknown mesh axes ['dta']"),
    (
      {"mesh": {"data": 4, "tensor": 2}, "rows": 6},
      "rows = 6; this mesh needs a multiple of 4",
    ),
    (
      {"mesh": {"tensor": 8}},
      "decoder/layers/k: kv_heads = 2 does not divide over mesh",
    ),
    ({"accumulate": 2}, "needs a multiple of 8, times accumulate = 2"),
  ],
)
def test_impossible_experiments_say_which_key(changes, message, tmp_path):
  cfg = config(mesh={"data": 8})
  with cfg.unlocked():
    if "mesh" in changes:
      cfg.mesh = ConfigDict(changes["mesh"])
      cfg.rows = changes.get("rows", 8)
    else:
      cfg.update(changes)
  with pytest.raises(ValueError) as error:
    loop.train(cfg, tmp_path / "run", lambda _: None)
  assert message in str(error.value)
  assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_shape_is_refused(tmp_path, monkeypatch):
  cfg = config(mesh={"data": 8}, steps=3)
  run(cfg, tmp_path)
  wider = dataclasses.replace(presets.TINY.decoder, mlp=192)
  monkeypatch.setitem(presets.PRESETS, "tiny", dataclasses.replace(presets.TINY, decoder=wider))
  with pytest.raises(ValueError, match=r"another architecture: decoder/layers/down is \(3, 176"):
    run(cfg, tmp_path)


def test_data_that_end_early_are_an_error_after_a_checkpoint(tmp_path):
  """One epoch of 40 texts is fewer steps than asked for; asked for as many, the run is whole."""
  cfg = config(mesh={"data": 8}, steps=50)
  cfg.data.mixture = (cfg.data.mixture[0],)
  with cfg.data.mixture[0].unlocked():
    cfg.data.mixture[0].update(size=40, epochs=1)
  seen = {}
  with pytest.raises(ValueError, match="ended after [0-9]+ steps of stage 'all', whose steps = 50"):
    loop.train(cfg, tmp_path, lambda r: seen.__setitem__(r.step, r.scalars))
  done = max(seen)
  assert sorted(seen) == list(range(1, done + 1)) and done < 50
  cfg.steps = done
  assert int(loop.train(cfg, tmp_path, lambda _: None).step) == done
