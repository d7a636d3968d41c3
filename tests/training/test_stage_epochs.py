"""A stage of so many epochs: as many steps as its data have, each record as often as it is said."""

from collections import Counter
import json

from ml_collections import ConfigDict
import pytest

from hulu_jax.cli import main
from hulu_jax.training import epochs
from hulu_jax.training import stages
from tests.training import small_run

RECORDS = 60


def config(folder, kind="planned", **changes) -> ConfigDict:
  c = small_run.get_config(f"{kind}@{folder}")
  with c.unlocked():
    c.steps, c.epochs = None, 1
    c.update(changes)
  return c


@pytest.fixture(scope="module")
def finished(small_data, tmp_path_factory):
  """Two epochs by the command line, on one device; the folder."""
  workdir = tmp_path_factory.mktemp("epochs")
  run = small_run.Run("planned", small_data, workdir, "--config.epochs=2")
  run.succeed()
  return workdir


def test_every_record_comes_once_an_epoch(finished, small_data):
  lines = small_run.records(finished)
  came = Counter(name for line in lines for row in line["rows"] for name in row)
  assert came == {f"mine/r{n}": 2 for n in range(RECORDS)}
  counted = epochs.counted(config(small_data, epochs=2), finished)
  assert [line["step"] for line in lines] == list(range(1, counted.steps + 1))
  assert json.loads((finished / "run.json").read_text())["steps"] == counted.steps


def test_the_schedule_is_made_for_the_steps_that_are_counted(small_data, tmp_path):
  c = config(small_data)
  (stage,) = stages.plan(epochs.counted(c, tmp_path))
  assert stage.cfg.steps == stage.last > 1 and stage.cfg.epochs is None
  assert c.steps is None and c.epochs == 1, "the experiment itself is as it was"


def test_an_entrys_own_epochs_say_how_often_in_each(small_data, tmp_path):
  c = config(small_data)
  once = epochs.counted(c, tmp_path).steps
  with c.data.mixture[0].unlocked():
    c.data.mixture[0].epochs = 2
  found = epochs.counted(c, tmp_path)
  assert found.data.mixture[0].epochs == 2 and 1.7 * once < found.steps < 2.1 * once


def test_stages_may_mix_steps_and_epochs(small_data, tmp_path):
  whole = epochs.counted(config(small_data), tmp_path).steps
  c = config(
    small_data,
    steps=7,
    epochs=None,
    stages=({"name": "a", "epochs": 1}, {"name": "b"}, {"name": "c", "steps": 3}),
  )
  found = stages.plan(epochs.counted(c, tmp_path))
  assert [(s.name, s.last) for s in found] == [("a", whole), ("b", whole + 7), ("c", whole + 10)]
  assert found[0].cfg.data.mixture[0].epochs == 1
  assert "epochs" not in found[1].cfg.data.mixture[0]


def test_where_all_is_said_in_steps_nothing_is_touched(small_data, tmp_path):
  c = small_run.get_config(f"planned@{small_data}")
  assert epochs.counted(c, tmp_path) is c


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"epochs": None}, "neither steps nor epochs is set; expected a number in one of them"),
    ({"steps": 0, "epochs": None}, "steps = 0; expected 1 or more"),
    ({"epochs": 0}, "epochs = 0; expected 1 or more"),
    ({"stages": ({"name": "a", "steps": -1},)}, "stage 'a': steps = -1; expected 1 or more"),
    ({"stages": ({"name": "a", "steps": 1, "epochs": 1},)}, "stage 'a' sets steps and epochs"),
  ],
)
def test_what_cannot_be_meant(changes, message, small_data, tmp_path):
  with pytest.raises(ValueError) as error:
    epochs.counted(config(small_data, **changes), tmp_path)
  assert message in str(error.value)


def test_without_lengths_the_command_says_what_to_do(
  small_data, tmp_path, capsys, root, monkeypatch
):
  monkeypatch.chdir(root)
  flags = [f"--config=tests/training/small_run.py:plain@{small_data}", "--config.epochs=1"]
  flags += [f"--workdir={tmp_path / 'run'}"]
  assert main.main(["train", *flags]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "stage 'all': epochs = 1" in line and "mine of data.mixture has none" in line
  assert "hulu prepare --lengths-only" in line and "set steps instead" in line
  assert not (tmp_path / "run").exists()


def test_lengths_are_written_for_an_experiment_in_epochs(small_data):
  """`hulu prepare` comes first, so it must not ask how many steps there are."""
  assert stages.select(config(small_data, kind="plain"), None).epochs == 1
  with pytest.raises(ValueError, match="stage 'all' has epochs = 1, and its steps are not counted"):
    stages.plan(config(small_data))
