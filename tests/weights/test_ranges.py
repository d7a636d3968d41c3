"""A folder goes straight into arrays on a mesh: nobody reads what its devices do not hold."""

import jax
import numpy as np
import pytest

from hulu_jax.core import sharding
from hulu_jax.models import hulu
from hulu_jax.weights import files
from hulu_jax.weights import load
from tests.weights import written

# Every sharded axis divides by two.
SIZE = written.Size(layers=2)


@pytest.fixture
def counted(monkeypatch):
  """The ranges read of files: (start, bytes), beside the headers."""
  found = []
  real = files._read_at

  def read_at(descriptor, out, start):
    got = real(descriptor, out, start)
    found.append((descriptor, start, got))
    return got

  monkeypatch.setattr(files, "_read_at", read_at)
  return found


def test_all_devices_together_read_every_byte_once(tmp_path, mesh_2x2x2, counted):
  arrays = written.folder(tmp_path / "a", SIZE, "hulu-med", "BF16", shards=3)
  config = load.read_config(tmp_path / "a")
  assert not counted  # shapes cost headers only
  load.load_params(tmp_path / "a", config, mesh_2x2x2)
  assert sum(n for _, _, n in counted) == sum(a.nbytes for a in arrays.values())
  places = {(d, s + i) for d, s, n in counted for i in range(0, n, 2)}
  assert len(places) == sum(a.size for a in arrays.values())


def test_one_host_of_four_reads_its_own(tmp_path, mesh_2x2x2, counted, monkeypatch):
  """Two of eight devices belong to this host: it reads what they hold, and no more."""
  arrays = written.folder(tmp_path / "a", SIZE, "transformers", "BF16")
  config = load.read_config(tmp_path / "a")
  mine = set(mesh_2x2x2.devices[0, 1])  # data 0, fsdp 1, both of tensor
  expected = 0

  def make_array_from_callback(shape, place, read):
    nonlocal expected
    wanted = {d: i for d, i in place.devices_indices_map(shape).items() if d in mine}
    parts = {tuple(p.indices(n) for p, n in zip(i, shape, strict=True)) for i in wanted.values()}
    expected += sum(2 * np.prod([len(range(*p)) for p in part], dtype=int) for part in parts)
    for index in wanted.values():
      read(index)
    return shape

  monkeypatch.setattr(jax, "make_array_from_callback", make_array_from_callback)
  load.load_params(tmp_path / "a", config, mesh_2x2x2)
  whole = sum(a.nbytes for a in arrays.values())
  assert sum(n for _, _, n in counted) == expected
  # Matrices are split in two over fsdp; norms and biases are whole.
  assert 0.5 * whole < expected < 0.6 * whole


def test_what_is_read_is_what_is_there(tmp_path, mesh_2x2x2):
  written.folder(tmp_path / "a", SIZE, "hulu-med-local")
  config = load.read_config(tmp_path / "a")
  whole = load.load_params(tmp_path / "a", config)
  parts = load.load_params(tmp_path / "a", config, mesh_2x2x2)
  where = sharding.shardings(hulu.specs(config), mesh_2x2x2)
  jax.tree.map(np.testing.assert_array_equal, parts, whole)
  assert jax.tree.map(lambda leaf: leaf.sharding, parts) == where


@pytest.mark.parametrize("seed", range(3))
def test_any_part_of_any_tensor(tmp_path, seed):
  random = np.random.default_rng(seed)
  arrays = {
    f"t{n}": random.normal(size=random.integers(1, 6, n)).astype(written.TYPES["BF16"])
    for n in range(5)
  }
  written.save(tmp_path / "x.safetensors", arrays)
  with files.opened(tmp_path / "x.safetensors") as stored:
    for name, array in arrays.items():
      for _ in range(20):
        index = tuple(slice(*sorted(random.integers(0, n + 1, 2))) for n in array.shape)
        np.testing.assert_array_equal(stored.read(name, index), array[index])
      runs = [block.copy() for block in stored.blocks(name, 1)]
      np.testing.assert_array_equal(np.concatenate(runs), array.reshape(-1))
