"""The manifest of a step notices every change of its files; a reader goes back to a whole one."""

import hashlib
import json

import pytest

from hulu_jax.weights import manifest


@pytest.fixture
def steps(tmp_path):
  """Three steps of two files each, all with manifests."""
  for number in (2, 4, 10):
    step = tmp_path / str(number)
    (step / "state" / "d").mkdir(parents=True)
    (step / "state" / "d" / "array").write_bytes(bytes(range(256)) * number)
    (step / "data.json").write_text(f'{{"at": {number}}}')
    manifest.write(step, manifest.digests(step, manifest.names(step)))
  return tmp_path


def test_it_says_what_the_files_were(steps):
  said = json.loads((steps / "4" / "MANIFEST.json").read_text())["files"]
  content = bytes(range(256)) * 4
  assert said["state/d/array"] == {
    "bytes": 1024,
    "sha256": hashlib.sha256(content).hexdigest(),
  }
  assert sorted(said) == ["data.json", "state/d/array"]
  assert manifest.newest(steps) == (10, True, {})


def damage(path, how):
  content = bytearray(path.read_bytes())
  if how == "flipped":
    content[len(content) // 2] ^= 4
  elif how == "truncated":
    content = content[: len(content) // 2]
  elif how == "emptied":
    content = bytearray()
  if how == "deleted":
    path.unlink()
  else:
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied", "deleted"])
@pytest.mark.parametrize("file", ["data.json", "state/d/array", "MANIFEST.json"])
def test_every_damage_to_every_file_sends_back(steps, file, how):
  damage(steps / "10" / file, how)
  found = manifest.newest(steps)
  if (file, how) == ("MANIFEST.json", "deleted"):
    assert found == (10, False, {})  # nothing is damaged, and nothing says so
    return
  assert found.step == 4 and found.hashed and list(found.skipped) == [10]
  assert any(file in line for line in found.skipped[10])


def test_every_bit_of_the_manifest_itself_counts(steps):
  path = steps / "10" / "MANIFEST.json"
  content = path.read_bytes()
  for at in range(len(content)):
    for bit in (0, 3, 6):
      changed = bytearray(content)
      changed[at] ^= 1 << bit
      path.write_bytes(changed)
      wrong = manifest.problems(steps / "10", quick=True)
      # White space between two names may change into other white space; nothing else may.
      same = False
      try:
        same = json.loads(changed) == json.loads(content)
      except ValueError:
        pass
      assert wrong or same, (at, bit)


def test_a_quick_look_sees_sizes_and_names_only(steps):
  damage(steps / "10" / "state/d/array", "flipped")
  assert manifest.problems(steps / "10", quick=True) == []
  (line,) = manifest.problems(steps / "10")
  assert line.startswith("state/d/array has sha256 ")
  (steps / "10" / "more").write_text("")
  assert manifest.problems(steps / "10", quick=True) == ["more was not there"]


def test_nothing_whole(steps):
  for number in (2, 4, 10):
    damage(steps / str(number) / "data.json", "truncated")
  found = manifest.newest(steps)
  assert found.step is None and sorted(found.skipped) == [2, 4, 10]
