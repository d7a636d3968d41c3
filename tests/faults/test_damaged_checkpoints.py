"""Damage to any file of a checkpoint is found, and the run goes on from the newest whole one."""

import logging
import random
import shutil

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

from hulu_jax.cli import main
from hulu_jax.core import sharding
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.training import loop
from hulu_jax.weights import checkpoint
from hulu_jax.weights import manifest
from tests.training import test_loop

STEPS = 4


def config(**changes) -> ConfigDict:
  """Text only, a checkpoint every step."""
  c = test_loop.config(mesh={"data": 8}, steps=STEPS)
  with c.unlocked():
    c.data.mixture = c.data.mixture[:1]
    c.shapes = {"text": {"tokens": 160, "supervised": 40, "visual": 8, "groups": ()}}
    c.compute.vision_remat = c.compute.decoder_remat = "none"
    c.checkpoint.update({"every": 1, "keep": 4, **changes})
  return c


def train(workdir, **changes):
  """Every step's loss, and the state at the end."""
  seen = {}
  state = loop.train(
    config(**changes), workdir, lambda r: seen.__setitem__(r.step, r.scalars["loss"])
  )
  return seen, jax.device_get(state)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """A run of four steps: folder, losses, last state."""
  folder = tmp_path_factory.mktemp("straight") / "run"
  return folder, *train(folder)


@pytest.fixture
def copy(straight, tmp_path):
  return shutil.copytree(straight[0], tmp_path / "copy")


def flip(path, chance):
  content = bytearray(path.read_bytes())
  content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
  path.write_bytes(content)


def largest(step):
  """The name of its largest file."""
  return max(manifest.names(step), key=lambda name: (step / name).stat().st_size)


def test_every_saved_step_proves_itself(straight):
  steps = checkpoint.folder(straight[0])
  assert manifest.numbers(steps) == [1, 2, 3, 4]
  for step in (1, 2, 3, 4):
    assert manifest.problems(steps / str(step)) == []


def test_a_flipped_bit_anywhere_is_found(copy):
  """Orbax restores all of these without a word where they are in the numbers."""
  step, chance = checkpoint.folder(copy) / "4", random.Random(0)
  for name in [*manifest.names(step), manifest.NAME]:
    path = step / name
    whole = path.read_bytes()
    for _ in range(3):
      flip(path, chance)
      assert manifest.newest(checkpoint.folder(copy)).step == 3, name
      path.write_bytes(whole)
  assert manifest.newest(checkpoint.folder(copy)).step == 4


def test_a_resume_goes_back_to_the_newest_whole_step(copy, straight, caplog):
  _, losses, end = straight
  steps = checkpoint.folder(copy)
  flipped, emptied = (largest(steps / step) for step in ("4", "3"))
  flip(steps / "4" / flipped, random.Random(1))
  (steps / "3" / emptied).write_bytes(b"")
  with caplog.at_level(logging.WARNING):
    again, state = train(copy)
  assert f"step 4 is damaged: {flipped} has sha256" in caplog.text
  assert f"step 3 is damaged: {emptied} has 0 bytes" in caplog.text
  # What is damaged is kept for whoever wants to look, and steps 3 and 4 ran once more.
  assert {path.name for path in (copy / "damaged").iterdir()} == {"3", "4"}
  assert again == {step: losses[step] for step in (3, 4)}
  jax.tree.map(np.testing.assert_array_equal, state, end)
  assert manifest.problems(steps / "4") == []


def test_strict_refuses(copy):
  flip(checkpoint.folder(copy) / "4" / "data" / "process-0.json", random.Random(2))
  with pytest.raises(ValueError, match=r"step 4 is damaged: data/process-0.json .*from step 3"):
    train(copy, strict=True)
  assert not (copy / "damaged").exists()


def test_a_reader_goes_back_too(copy, caplog):
  steps = checkpoint.folder(copy)
  params = checkpoint.load_params(copy, hulu.specs(presets.TINY), sharding.one_device_mesh())
  for name in manifest.names(steps / "4"):
    if (steps / "4" / name).stat().st_size > 10_000:
      flip(steps / "4" / name, random.Random(3))
  with caplog.at_level(logging.WARNING):
    before = checkpoint.load_params(copy, hulu.specs(presets.TINY), sharding.one_device_mesh())
  assert "step 4 is damaged" in caplog.text
  assert not np.array_equal(params["decoder"]["norm"], before["decoder"]["norm"])


def test_nothing_whole_is_an_error_for_a_reader(copy):
  for step in (1, 2, 3, 4):
    (checkpoint.folder(copy) / str(step) / "data" / "process-0.json").unlink()
  with pytest.raises(ValueError, match="no whole checkpoint .*process-0.json is missing"):
    checkpoint.newest(copy)


def test_the_command_lists_verifies_and_compares(copy, straight, capsys):
  assert main.main(["checkpoint", "list", str(copy)]) == 0
  assert capsys.readouterr().out.count("yes") == STEPS
  assert main.main(["checkpoint", "diff", str(copy), str(straight[0])]) == 0
  assert "parameters are equal" in capsys.readouterr().out
  assert main.main(["checkpoint", "verify", str(copy)]) == 0
  flip(checkpoint.folder(copy) / "2" / "data" / "process-0.json", random.Random(2))
  assert main.main(["checkpoint", "verify", str(copy)]) == 1
  out = capsys.readouterr().out
  assert "step 1: whole" in out and "step 2: data/process-0.json has sha256" in out
  shutil.rmtree(checkpoint.folder(copy) / "4")
  assert main.main(["checkpoint", "diff", str(copy), str(straight[0])]) == 1
  assert "decoder/norm" in capsys.readouterr().out
  assert main.main(["checkpoint", "verify", str(copy), "--step=9"]) == 2
  assert "no step 9" in capsys.readouterr().err


def test_keep_every_keeps_what_it_divides(tmp_path):
  train(tmp_path / "run", keep=1, keep_every=2)
  assert manifest.numbers(checkpoint.folder(tmp_path / "run")) == [2, 4]
