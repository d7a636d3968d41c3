"""A killed, failed or refused conversion leaves its destination absent or complete, no litter."""

import errno
import os
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from hulu_jax.cli import convert
from hulu_jax.weights import atomic
from tests.weights import written

ROOT = Path(__file__).parents[2]
# Converts again and again, so that a kill at any moment falls into a conversion.
FOREVER = """
import sys
from hulu_jax.cli import convert
while True:
  assert convert.main(sys.argv[1:]) == 0
  print("round", flush=True)
"""


def run(*arguments) -> int:
  return convert.main([str(a) for a in arguments])


@pytest.fixture
def made(tmp_path):
  written.folder(tmp_path / "a", written.QWEN3, "hulu-med")
  return tmp_path


def killed(root: Path, target: str, seconds: float) -> None:
  """Ends a converting process by force, this long after its first round."""
  command = [sys.executable, "-c", FOREVER, str(root / "a"), str(root / "b"), f"--to={target}"]
  process = subprocess.Popen(
    [*command, "--force", "--shard-size=20KB"],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
  )
  assert process.stdout is not None
  while b"round" not in process.stdout.readline():
    assert process.poll() is None
  time.sleep(seconds)
  process.send_signal(signal.SIGKILL)
  process.wait()


def whole_or_absent(root: Path, target: str) -> bool:
  """Whether `b` is there; if so it must hold everything."""
  if not (root / "b").exists():
    return False
  if target == "hulu_jax":
    shutil.rmtree(root / "c", ignore_errors=True)
    assert run(root / "b", root / "c", "--to=hulu-med") == 0
    assert written.read(root / "c") == written.read(root / "a")
  else:
    assert {n: s for n, (_, s, _) in written.read(root / "b").items()} == written.shapes(
      written.QWEN3, target
    )
  assert (root / "b" / "README.md").is_file()
  return True


def check_kills(root: Path, target: str, kills: int, seed: int) -> None:
  moments = random.Random(seed)
  for _ in range(kills):
    killed(root, target, moments.uniform(0, 0.2))
    whole_or_absent(root, target)
    # The next writer clears what the killed one left.
    assert run(root / "a", root / "b", f"--to={target}", "--force") == 0
    assert whole_or_absent(root, target)
    left = {p.name for p in root.iterdir()} - {"a", "b", "c"}
    assert not [name for name in left if ".partial-" in name], left


def test_killed_at_some_moment(made):
  check_kills(made, "transformers", kills=1, seed=os.getpid())


@pytest.mark.slow
@pytest.mark.parametrize("target", ["hulu_jax", "hulu-med", "transformers"])
def test_killed_at_many_moments(made, target):
  check_kills(made, target, kills=8, seed=int(time.time()))


@pytest.mark.parametrize("target", ["hulu_jax", "transformers"])
def test_a_full_disk_is_one_clear_error(made, target, monkeypatch, capsys):
  """The disk fills while a file is synced: nothing stays."""

  def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "fsync", full)
  assert run(made / "a", made / "b", f"--to={target}") == 2
  error = capsys.readouterr().err
  assert f"the disk of {made} is full: nothing written" in error and error.count("\n") == 1
  assert [p.name for p in made.iterdir()] == ["a"]


def test_too_little_room_is_seen_before_anything_is_written(made, monkeypatch, capsys):
  monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
  assert run(made / "a", made / "b", "--to=transformers") == 2
  assert "bytes are needed in" in capsys.readouterr().err
  assert [p.name for p in made.iterdir()] == ["a"]


def test_an_error_on_the_way_leaves_nothing(tmp_path):
  with pytest.raises(KeyError), atomic.folder(tmp_path / "b", force=False) as new:
    (new / "half").write_text("x")
    raise KeyError
  assert not list(tmp_path.iterdir())


def test_what_is_there_is_replaced_only_by_force(made, capsys):
  assert run(made / "a", made / "b", "--to=hulu-med") == 0
  first = (made / "b" / "model.safetensors").stat().st_ino
  assert run(made / "a", made / "b", "--to=hulu-med") == 2
  assert f"{made / 'b'} exists; --force replaces it" in capsys.readouterr().err
  assert (made / "b" / "model.safetensors").stat().st_ino == first
  assert run(made / "a", made / "b", "--to=transformers", "--force") == 0
  assert (made / "b" / "chat_template.jinja").is_file()
  assert sorted(p.name for p in made.iterdir()) == ["a", "b"]


def test_force_never_removes_what_is_no_checkpoint(made, capsys):
  (made / "mine").mkdir()
  (made / "mine" / "thesis.txt").write_text("x")
  (made / "file").write_text("x")
  for target, message in (
    ("mine", "no checkpoint, so --force leaves it alone"),
    ("file", "is no folder"),
    ("a", "holds what is converted"),
    ("no/where", "no folder"),
  ):
    assert run(made / "a", made / target, "--to=hulu-med", "--force") == 2
    assert message in capsys.readouterr().err
  assert (made / "mine" / "thesis.txt").is_file() and (made / "a" / "config.json").is_file()


def test_a_writer_at_work_is_left_alone(tmp_path):
  with atomic.folder(tmp_path / "b", force=False) as first:
    with atomic.folder(tmp_path / "b", force=False) as second:
      (second / "config.json").write_text("{}")
    assert first.is_dir() and (tmp_path / "b").is_dir()
    with pytest.raises(OSError):
      first.rename(tmp_path / "b")
