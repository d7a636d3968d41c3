"""A run that is killed at any moment, and started again, is the run that was never stopped."""

import json
import random
import shutil
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.training.small_run import Run
from tests.training.small_run import by_step
from tests.training.small_run import records

STEPS, EVERY = 24, 2
SHORT = (f"--config.steps={STEPS}", f"--config.checkpoint.every={EVERY}")


def run(kind, folder, workdir, threads):
  return Run(kind, folder, workdir, *SHORT, f"--config.data.threads={threads}")


@pytest.fixture(scope="module")
def straight(small_data, tmp_path_factory):
  """(kind) -> folder of a run that nothing stopped, with two threads."""
  done = {}

  def once(kind):
    if kind not in done:
      done[kind] = run(kind, small_data, tmp_path_factory.mktemp(kind), 2).succeed().workdir
    return done[kind]

  return once


def kill_at_random(started, chance):
  """SIGKILL while it starts, or a moment after some steps; whether it was still running."""
  (process,) = started.processes
  listing = started.workdir / "records.jsonl"
  before = len(records(started.workdir)) if listing.exists() else 0
  until = before + chance.choice((0, 1, 2, 3, 4, 5))
  deadline = time.monotonic() + 120
  while process.poll() is None and time.monotonic() < deadline:
    if until == before or (listing.exists() and listing.read_text().count("\n") >= until):
      time.sleep(chance.uniform(0, 2 if until == before else 0.2))
      break
    time.sleep(0.002)
  running = process.poll() is None
  process.send_signal(signal.SIGKILL)
  process.communicate()
  return running


def saved(workdir, step):
  """All arrays of a checkpoint, and its data state."""
  folder = workdir / "checkpoints" / str(step)
  path = (folder / "state").resolve()
  with ocp.PyTreeCheckpointer() as reader:
    leaves = reader.metadata(path).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
    state = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
  return state, json.loads((folder / "data" / "process-0.json").read_text())


def assert_same_end(workdir, other):
  (state, data), (want, want_data) = saved(workdir, STEPS), saved(other, STEPS)
  assert len(jax.tree.leaves(want)) > 50 and want["step"] == STEPS
  jax.tree.map(np.testing.assert_array_equal, state, want)
  assert data == want_data


@pytest.mark.parametrize(
  ("kind", "threads", "kills"),
  [
    ("planned", 3, 4),
    pytest.param("planned", 1, 8, marks=pytest.mark.slow),
    pytest.param("plain", 1, 4, marks=pytest.mark.slow),
    pytest.param("plain", 3, 8, marks=pytest.mark.slow),
  ],
)
def test_kills_at_random_moments_change_nothing(
  small_data, straight, tmp_path, kind, threads, kills
):
  want = straight(kind)
  chance = random.Random(f"{kind} {threads}")
  died = 0
  for _ in range(kills):
    died += kill_at_random(run(kind, small_data, tmp_path, threads), chance)
  assert died >= kills // 2  # a run may have been through before its turn came
  run(kind, small_data, tmp_path, threads).succeed()
  # Every step, and those that a kill undid both times, had the very same records.
  assert by_step(records(tmp_path)) == by_step(records(want))
  assert_same_end(tmp_path, want)


def test_changed_data_stop_the_resume_and_are_named(small_data, tmp_path):
  folder = tmp_path / "data"
  shutil.copytree(small_data, folder)
  Run("plain", folder, tmp_path / "run", "--config.steps=3").succeed()
  text = (folder / "train.jsonl").read_text()
  (folder / "train.jsonl").write_text(text.replace("the left one", "the right one", 1))
  ((code, errors),) = Run("plain", folder, tmp_path / "run").finish()
  assert code == 2
  assert "the data are not those this run was started on (changed: 0:mine:train.jsonl)" in errors
  (folder / "train.jsonl").write_text(text)
  Run("plain", folder, tmp_path / "run").succeed()
