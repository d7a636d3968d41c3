"""One run in two processes: the rows, losses and checkpoints of the same run in one."""

import json
import shutil

import pytest

from tests.training.small_run import STEPS
from tests.training.small_run import Run
from tests.training.small_run import by_step
from tests.training.small_run import records

DATA = "--config.mesh.data=2"


@pytest.fixture(scope="module")
def one(small_data, tmp_path_factory):
  """The run in one process of two devices."""
  return Run("planned", small_data, tmp_path_factory.mktemp("one"), DATA, devices=2).succeed()


@pytest.fixture(scope="module")
def two(small_data, tmp_path_factory):
  """The same run in two processes of one device each."""
  return Run("planned", small_data, tmp_path_factory.mktemp("two"), DATA, processes=2).succeed()


def stopped(run, workdir):
  """A copy of a run's folder as it was after step 3."""
  shutil.copytree(run.workdir, workdir)
  shutil.rmtree(workdir / "checkpoints" / str(STEPS))
  for file in workdir.glob("*.jsonl"):
    file.unlink()
  return workdir


def joined(workdir):
  """Step -> (shape, rows of both processes)."""
  first, second = (by_step(records(workdir, process)) for process in range(2))
  assert first.keys() == second.keys()
  assert all(first[step][0] == second[step][0] for step in first)
  return {step: (first[step][0], first[step][1] + second[step][1]) for step in first}


def assert_losses(got, want):
  """The same sums over the same devices; how they travel between processes may differ."""
  for step, loss in got.losses().items():
    assert loss == pytest.approx(want.losses()[step], rel=1e-6)


def test_two_processes_train_on_the_rows_of_one(one, two):
  want = by_step(records(one.workdir))
  assert sorted(want) == list(range(1, STEPS + 1))
  assert {shape for shape, _ in want.values()} == {0, 1}
  assert joined(two.workdir) == want
  assert sorted(two.losses()) == list(range(1, STEPS + 1))
  assert_losses(two, one)


def test_what_the_host_counts_is_that_of_both(one, two):
  """Tokens, padding, kept and skipped of a step are sums over the rows of both processes."""
  got = two.lines()
  for step, line in one.lines().items():
    counted = ("tokens", "supervised", "padding", "kept", "cut", "skipped")
    names = [name for name in line if name.startswith(counted) and name != "tokens_per_second"]
    assert len(names) > 15
    assert {name: got[step][name] for name in names} == {name: line[name] for name in names}


@pytest.mark.slow  # 60 seconds
@pytest.mark.parametrize("mesh", [DATA, "--config.mesh.tensor=2", "--config.mesh.context=2"])
def test_both_evaluate_as_one(mesh, small_data, tmp_path):
  one = Run("asked", small_data, tmp_path / "one", mesh, devices=2).succeed().lines()
  two = Run("asked", small_data, tmp_path / "two", mesh, processes=2).succeed().lines()
  for step in (3, STEPS):
    names = [name for name in one[step] if name.startswith("eval/")]
    assert {"eval/loss", "eval/exact", "eval/loss_by_modality/volume"} <= set(names)
    assert one[step]["eval/records"] == 15
    for name in names:
      # float32: only the order of sums between processes differs.
      assert two[step][name] == pytest.approx(one[step][name], rel=1e-5)


def test_what_a_run_writes_once_is_written_once(one, two):
  names = {path.name for path in two.workdir.iterdir()}
  assert names == {path.name for path in one.workdir.iterdir()} | {"records-1.jsonl"}
  assert len((two.workdir / "metrics.jsonl").read_text().splitlines()) == STEPS
  states = [
    json.loads((two.workdir / f"checkpoints/{STEPS}/data/process-{p}.json").read_text())
    for p in range(2)
  ]
  assert [state.pop("shard") for state in states] == [[0, 2], [1, 2]]
  assert states[0] == states[1]  # made alike from the lengths, without a word between the two


def test_one_process_goes_on_from_the_checkpoint_of_two(one, two, small_data, tmp_path):
  workdir = stopped(two, tmp_path / "run")
  resumed = Run("planned", small_data, workdir, DATA, devices=2).succeed()
  want = by_step(records(one.workdir))
  assert by_step(records(workdir)) == {step: want[step] for step in (4, 5, 6)}
  assert_losses(resumed, one)


@pytest.mark.slow  # 20 seconds
def test_two_processes_go_on_from_the_checkpoint_of_one(one, small_data, tmp_path):
  workdir = stopped(one, tmp_path / "run")
  resumed = Run("planned", small_data, workdir, DATA, processes=2).succeed()
  want = by_step(records(one.workdir))
  assert joined(workdir) == {step: want[step] for step in (4, 5, 6)}
  assert_losses(resumed, one)


# Neighbours differ in `tensor`, then in `context`: both stretch over the two processes here.
SPREAD = {
  "rows": {"data": 2, "fsdp": 2, "tensor": 2},
  "heads": {"tensor": 8},
  "tokens": {"context": 4, "tensor": 2},
}


def flags(mesh):
  return ["--config.model=eight-heads", *(f"--config.mesh.{k}={n}" for k, n in mesh.items())]


@pytest.fixture(scope="module")
def eight(small_data, tmp_path_factory):
  """The run in one process of eight devices."""
  workdir = tmp_path_factory.mktemp("eight")
  return Run("planned", small_data, workdir, *flags(SPREAD["rows"]), devices=8).succeed()


@pytest.mark.slow  # a minute each
@pytest.mark.parametrize("over", SPREAD)
def test_two_processes_of_four_devices_agree_with_one_of_eight(over, eight, small_data, tmp_path):
  spread = flags(SPREAD[over])
  run = Run("planned", small_data, tmp_path, *spread, processes=2, devices=4).succeed()
  want = by_step(records(eight.workdir))
  if over == "rows":
    assert joined(tmp_path) == want
  else:  # both hold a part of every row, so both load it
    assert by_step(records(tmp_path)) == by_step(records(tmp_path, 1)) == want
  assert sorted(run.losses()) == list(range(1, STEPS + 1))
  for step, loss in run.losses().items():
    # float32: rows, heads and tokens are summed in other places.
    assert loss == pytest.approx(eight.losses()[step], rel=1e-5)


@pytest.mark.slow  # 25 seconds
def test_without_lengths_the_number_of_shards_must_stay(small_data, tmp_path):
  two = Run("plain", small_data, tmp_path / "two", DATA, processes=2).succeed()
  seen = [
    {name for _, rows in by_step(records(two.workdir, p)).values() for row in rows for name in row}
    for p in range(2)
  ]
  assert seen[0] and seen[1] and not seen[0] & seen[1]
  workdir = stopped(two, tmp_path / "one")
  ((code, errors),) = Run("plain", small_data, workdir, DATA, devices=2).finish()
  assert code == 2
  assert "the run was on 2 data shards, this is on 1" in errors.splitlines()[-1]
  again = Run("plain", small_data, stopped(two, tmp_path / "again"), DATA, processes=2).succeed()
  for process in range(2):
    want = by_step(records(two.workdir, process))
    got = by_step(records(again.workdir, process))
    assert got == {step: want[step] for step in (4, 5, 6)}


def test_processes_that_were_started_differently_refuse(small_data, tmp_path):
  """Each would plan other steps, and both would wait for ever."""
  apart = Run("planned", small_data, tmp_path, DATA, "--config.seed={process}", processes=2)
  for code, errors in apart.finish():
    assert code == 2
    assert "not the same on every process: the experiment (processes [1])" in errors
  assert not (tmp_path / "metrics.jsonl").read_text()
