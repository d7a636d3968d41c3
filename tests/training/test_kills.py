"""A run that is killed at any moment, and started again, is the run that was never stopped."""

import itertools
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

STEPS, EVERY = 40, 2
SHORT = (f"--config.steps={STEPS}", f"--config.checkpoint.every={EVERY}")


def run(kind, folder, workdir, threads):
  return Run(kind, folder, workdir, *SHORT, f"--config.data.threads={threads}")


def run_two(kind, folder, workdir, threads):
  """In two processes of one device each."""
  more = (f"--config.data.threads={threads}", "--config.mesh.data=2")
  return Run(kind, folder, workdir, *SHORT, *more, processes=2)


@pytest.fixture(scope="module")
def straight(small_data, tmp_path_factory):
  """(start, kind) -> folder of a run that nothing stopped, with two threads."""
  done = {}

  def once(start, kind):
    if (start, kind) not in done:
      workdir = tmp_path_factory.mktemp(f"straight_{kind}")
      done[start, kind] = start(kind, small_data, workdir, 2).succeed().workdir
    return done[start, kind]

  return once


def kill_at_random(started, chance, fewest):
  """SIGKILL `fewest` to ten steps on and a moment later, or while it starts; whether it ran."""
  steps = chance.randint(fewest, 10)
  listing = started.workdir / "records.jsonl"
  before = len(records(started.workdir)) if listing.exists() else 0
  deadline = time.monotonic() + 120
  while steps and started.processes[0].poll() is None and time.monotonic() < deadline:
    if listing.exists() and listing.read_text().count("\n") >= before + steps:
      break
    time.sleep(0.002)
  time.sleep(chance.uniform(0, 0.2 if steps else 3))
  running = started.processes[0].poll() is None
  for process in started.processes:
    process.send_signal(signal.SIGKILL)
  for process in started.processes:
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


def assert_little_was_lost(workdir):
  """A save waits for the one before it, so what a kill undoes is less than two of them hold."""
  steps = [line["step"] for line in records(workdir)]
  assert steps.count(1) == 1
  lost = [last + 1 - now for last, now in itertools.pairwise(steps)]
  assert all(0 <= n <= 2 * EVERY for n in lost), steps


@pytest.mark.parametrize(
  ("start", "kind", "threads", "kills"),
  [
    (run, "planned", 3, 3),
    pytest.param(run, "planned", 1, 8, marks=pytest.mark.slow),
    pytest.param(run, "plain", 1, 5, marks=pytest.mark.slow),
    pytest.param(run, "plain", 3, 8, marks=pytest.mark.slow),
    pytest.param(run_two, "planned", 2, 4, marks=pytest.mark.slow),
  ],
)
def test_kills_at_random_moments_change_nothing(
  small_data, straight, tmp_path, start, kind, threads, kills
):
  want = straight(start, kind)
  chance = random.Random(f"{kind} {threads}")
  # Before the first kill something was saved; later ones may also come while it starts.
  died = [
    kill_at_random(start(kind, small_data, tmp_path, threads), chance, 0 if number else 5)
    for number in range(kills)
  ]
  assert died[0]  # others may have found it at its end
  start(kind, small_data, tmp_path, threads).succeed()
  assert_little_was_lost(tmp_path)
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
