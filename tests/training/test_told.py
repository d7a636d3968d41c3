"""What a run tells of itself: speed, trackers, run.json, a profile."""

import json
from pathlib import Path
import re
import subprocess

import jax
from ml_collections import ConfigDict
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hulu_jax.core import sharding
from hulu_jax.training import loop
from hulu_jax.training import run_file
from hulu_jax.training import speed
from hulu_jax.training import trackers
from hulu_jax.training.trackers import Run
from hulu_jax.training.trackers import tensorboard
from tests.training.test_loop import config

TIMES = ("step_seconds", "tokens_per_second", "step_seconds/p95", "step_seconds/deviation")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """(workdir, reports) of three steps, stopped after the first two and gone on with."""
  workdir, seen = tmp_path_factory.mktemp("run"), []
  cfg = config(mesh={"data": 8}, steps=3, peak_flops=1e9)
  cfg.checkpoint.every = 1
  cfg.profile = ConfigDict({"first": 2, "steps": 1})

  def stop(told):
    seen.append(told)
    if told.step == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    loop.train(cfg, workdir, stop)
  loop.train(cfg, workdir, seen.append)
  return workdir, seen


def test_files_say_what_reports_say(run):
  workdir, seen = run
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  assert lines == [{"step": r.step, **r.scalars, **r.speed} for r in seen]
  events = EventAccumulator(str(workdir / "tensorboard"))
  events.Reload()
  for told in seen:
    found = {e.step: e.value for e in events.Scalars("loss")}
    assert found[told.step] == pytest.approx(told.scalars["loss"], rel=1e-6)
  assert "loss_by_modality/image" in events.Tags()["scalars"]


def undocumented(names):
  """Those of a run's metrics that the table of docs/metrics.md does not have."""
  page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
  shown = re.findall(r"`([^`]+)`", page.split("## All metrics")[1])
  patterns = [re.sub("DATASET|KIND|MODULE|REASON", "[^/]+", name) for name in shown]
  return [name for name in names if not any(re.fullmatch(p, name) for p in patterns)]


def test_every_metric_is_documented(run):
  _, seen = run
  names = {name for told in seen for name in {**told.scalars, **told.speed}}
  assert len(names) > 40 and undocumented(names) == []


def test_only_steps_after_another_are_timed(run):
  """The first of a process compiles: it says nothing of the rest."""
  _, seen = run
  by_step = {told.step: told.speed for told in seen[:2]}
  assert by_step[1] == {} and set(by_step[2]) == {*TIMES, "utilisation"}


def test_run_json_lists_every_start(run):
  workdir, _ = run
  said = json.loads((workdir / "run.json").read_text())
  assert said["config"]["model"] == "tiny" and said["preset"] == "radiology"
  assert said["parameters"] == 333_920 and said["steps"] == 3 and len(said["id"]) == 16
  first, second = said["starts"]
  assert first["time"] <= second["time"] and first["data"] == second["data"] != {}
  assert second["mesh"] == dict(sharding.make_mesh({"data": 8}).shape)
  assert second["devices"]["kind"] == jax.devices()[0].device_kind
  assert second["versions"]["jax"] == jax.__version__
  assert said["seconds"] > 0 and said["peak_memory_mb"] > 0
  assert not list(workdir.glob("*.tmp"))


def test_the_window_was_profiled(run):
  workdir, _ = run
  assert list((workdir / "profile").rglob("*.xplane.pb"))


def test_speed_by_hand():
  clock = iter([0.0, 1.0, 3.0, 100.0, 101.0])
  told = speed.Speed(peak=50.0, now=lambda: next(clock))
  for tokens in (7, 10, 20):  # the first has no step before it
    told.ended(tokens, flops=30.0)
  told.paused()
  told.ended(5, 30.0)  # after a pause: not timed
  told.ended(30, 60.0)
  found = told.metrics()
  assert found["step_seconds"] == 1.0  # of 1, 2 and 1
  assert found["step_seconds/p95"] == pytest.approx(1.9)
  assert found["step_seconds/deviation"] == pytest.approx((2 / 9) ** 0.5)
  assert found["tokens_per_second"] == (10 + 20 + 30) / 4
  assert found["utilisation"] == (30 + 30 + 60) / 4 / 50
  assert told.metrics() == {}


def test_the_peak_is_stated_or_the_chips_or_unknown():
  mesh = sharding.make_mesh({"data": 8})
  assert speed.peak(3e12, mesh) == 8 * 3e12
  assert speed.peak(None, mesh) is None


def test_a_tracker_that_is_not_there_is_refused(tmp_path):
  cfg = config(mesh={"data": 8}, trackers=("tensorbord",))
  with pytest.raises(ValueError, match="no 'tensorbord' in hulu_jax.training.trackers; there"):
    loop.train(cfg, tmp_path / "run", print)
  assert not (tmp_path / "run").exists()
  with pytest.raises(ValueError, match="trackers = 'tensorboard'; expected a tuple of names"):
    trackers.check("tensorboard")


def test_a_tracker_without_its_package_says_which_extra(monkeypatch):
  monkeypatch.setattr(tensorboard, "PACKAGE", "no_such_package")
  with pytest.raises(ValueError, match="no_such_package is not installed: pip install 'hulu_jax"):
    trackers.check(("tensorboard",))


def test_a_tracker_that_fails_is_given_up_and_warned_of_once(tmp_path, monkeypatch, caplog):
  calls = []

  class Full:
    failures = (OSError,)

    def write(self, step, scalars):
      calls.append(step)
      raise OSError("no space left on device")

    def close(self):
      calls.append("closed")

  monkeypatch.setattr(tensorboard, "start", lambda run: Full())
  found = trackers.Trackers(("tensorboard",), Run(tmp_path, "id", {}))
  warned = []
  monkeypatch.setattr(trackers.logging, "warning", lambda *said: warned.append(said))
  for step in (1, 2, 3):
    found.write(step, {"loss": 1.0})
  found.close()
  assert calls == [1] and len(warned) == 1 and "tensorboard" in warned[0]


def test_the_state_of_a_checkout(tmp_path):
  def git(*words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

  assert run_file.git_state(tmp_path) is None
  git("init")
  (tmp_path / "__init__.py").write_text("")
  assert run_file.git_state(tmp_path) is None  # in a checkout, but not of it
  git("add", ".")
  git("commit", "-m", "first")
  found = run_file.git_state(tmp_path)
  assert len(found["commit"]) == 40 and not found["dirty"]
  (tmp_path / "__init__.py").write_text("changed")
  assert run_file.git_state(tmp_path)["dirty"]
