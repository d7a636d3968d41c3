"""What a user sees whose experiment lacks a key, or has one that nothing reads."""

import pytest

from experiments import finetune_vqa
from experiments import learning
from experiments import quickstart
from hulu_jax.cli import main
from hulu_jax.training import keys
from tests.training.test_loop import config


@pytest.mark.parametrize(
  "get", [quickstart.get_config, finetune_vqa.get_config, learning.get_config]
)
def test_our_experiments_state_every_key(get):
  keys.check(get())


@pytest.mark.parametrize(
  ("group", "key", "message"),
  [
    (None, "stages", "does not state stages"),
    ("compute", "kernels", "does not state compute.kernels"),
    ("optimizer", "warmup", "does not state optimizer.warmup"),
    ("data", "timeout", "does not state data.timeout"),
  ],
)
def test_a_missing_key_is_named(group, key, message):
  c = config()
  with c.unlocked():
    del (c if group is None else c[group])[key]
  with pytest.raises(ValueError, match=message):
    keys.check(c)


def test_everything_wrong_is_listed_with_what_was_meant():
  c = config()
  with c.unlocked():
    c.optimizer.warmpup = 3
    del c.z_loss, c.accumulate
  with pytest.raises(ValueError) as error:
    keys.check(c)
  assert "does not state accumulate, z_loss; " in str(error.value)
  assert "no use for optimizer.warmpup (did you mean 'warmup'?)" in str(error.value)


@pytest.mark.parametrize("command", ["train", "data stats", "data shapes"])
def test_a_command_says_it_in_one_line(command, tmp_path, capsys, root, monkeypatch):
  monkeypatch.chdir(root)
  experiment = tmp_path / "mine.py"
  experiment.write_text(
    "from experiments import quickstart\n\n"
    "def get_config():\n  c = quickstart.get_config()\n  del c.compute.kernels\n  return c\n"
  )
  words = [*command.split(), f"--config={experiment}"]
  assert main.main(words + ([f"--workdir={tmp_path}"] if command == "train" else [])) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "the experiment does not state compute.kernels" in line
