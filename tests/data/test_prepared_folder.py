"""A folder of prepared shards: whole, the same bytes however made, never taken for another."""

import dataclasses
import json
import shutil
import threading

import numpy as np
import pytest

from hulu_jax.data import manifest as manifest_lib
from hulu_jax.data import shards
from hulu_jax.data.compression import Compression
from hulu_jax.data.datasets import prepared
from hulu_jax.data.prepare import Input
from tests.data import records_made
from tests.data.records_made import run

SHARDS = records_made.SHARDS


@pytest.fixture(scope="module")
def made(builder, tmp_path_factory):
  """The input, a builder for it, and the folder it was prepared into."""
  return records_made.prepared(builder, tmp_path_factory, Compression(mode="fixed", grey=12.0))


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_bad_records_are_counted_and_listed(made):
  _, _, output = made
  manifests = manifest_lib.read_all(output)
  found = {}
  for manifest in manifests:
    path = manifest.path(output, manifest_lib.BAD)
    for line in map(json.loads, path.read_text().splitlines()):
      assert line["dataset"] == "jsonl" and manifest.first <= line["record"] < manifest.last
      found[line["record"]] = line["kind"]
    assert sum(manifest.bad.values()) == manifest.last - manifest.first - manifest.records
  assert found == records_made.BAD


def test_a_second_run_verifies_and_writes_nothing(made):
  source, builder, output = made
  before = {p: p.stat().st_mtime_ns for p in output.iterdir()}
  manifest, again = run(source, builder, output, (1, SHARDS))
  assert not again and manifest.shard == 1
  assert before == {p: p.stat().st_mtime_ns for p in output.iterdir()}


def test_threads_and_repetition_do_not_change_a_byte(made, tmp_path):
  source, builder, output = made
  for shard in range(SHARDS):
    run(source, builder, tmp_path, (shard, SHARDS), threads=1 + shard)
  assert contents(tmp_path) == contents(output)


def test_the_number_of_shards_does_not_change_the_dataset(made, tmp_path):
  source, builder, output = made
  for shard in range(len(source.open()) + 2):  # more shards than records: some are empty
    run(source, builder, tmp_path, (shard, len(source.open()) + 2))
  one, many = (prepared.Source(path=str(p)) for p in (output, tmp_path))
  assert len(one) == len(many)
  assert all(shards.encode(one[i]) == shards.encode(many[i]) for i in range(len(one)))


def test_other_inputs_are_refused_by_name_unless_forced(made, tmp_path):
  source, builder, output = made
  shutil.copytree(output, tmp_path, dirs_exist_ok=True)
  policy = dataclasses.replace(builder.policy, max_tokens=40)
  other = dataclasses.replace(builder, policy=policy)
  with pytest.raises(ValueError, match=r"policy.max_tokens was 200, is 40.*--force"):
    run(source, other, tmp_path, (0, SHARDS))
  with pytest.raises(ValueError, match="shards was 3, is 4"):
    run(source, builder, tmp_path, (3, 4))
  file = tmp_path / "train.jsonl"
  file.write_text((builder.root / "train.jsonl").read_text() + '{"id": "new"}\n')
  with pytest.raises(ValueError, match=r"input.files.train.jsonl was.*input.records was 13, is 14"):
    run(Input("jsonl", {"path": str(file)}), builder, tmp_path, (0, SHARDS))
  _, again = run(source, other, tmp_path, (0, SHARDS), force=True)
  assert again
  with pytest.raises(
    ValueError, match="shards of different sets.*policy.max_tokens was 40, is 200"
  ):
    prepared.Source(path=str(tmp_path))


def test_missing_shards_are_listed(made, tmp_path):
  _, _, output = made
  with pytest.raises(FileNotFoundError, match="no prepared shards"):
    prepared.Source(path=str(tmp_path))
  shutil.copy(output / "shard-00001-of-00003.json", tmp_path)
  with pytest.raises(ValueError, match="2 of 3 shards are missing: 0, 2; .*--shard=0/3"):
    prepared.Source(path=str(tmp_path))


def test_a_damaged_shard_is_noticed(made, tmp_path):
  source, builder, output = made
  shutil.copytree(output, tmp_path, dirs_exist_ok=True)
  frames = tmp_path / "shard-00001-of-00003.array_record"
  data = bytearray(frames.read_bytes())
  data[200:600] = bytes(400)
  frames.write_bytes(data)
  with pytest.raises(ValueError, match="shard-00001-of-00003.array_record is damaged"):
    run(source, builder, tmp_path, (1, SHARDS))
  stored = prepared.Source(path=str(tmp_path))  # opening does not read it all
  with pytest.raises(ValueError, match="shard-00001.*damaged"):
    [stored[i] for i in range(len(stored))]
  frames.write_bytes(data[:-1])
  with pytest.raises(ValueError, match="shard-00001.*is of .* bytes; its manifest says"):
    prepared.Source(path=str(tmp_path))
  run(source, builder, tmp_path, (1, SHARDS), force=True)
  assert contents(tmp_path) == contents(output)


def test_many_threads_read_many_shards(made, monkeypatch, tmp_path):
  source, builder, _ = made
  for shard in range(5):
    run(source, builder, tmp_path, (shard, 5))
  monkeypatch.setattr(shards, "_OPEN", 2)
  stored = prepared.Source(path=str(tmp_path))
  want = [shards.encode(stored[i]) for i in range(len(stored))]
  wrong = []

  def read(seed):
    for i in np.random.default_rng(seed).permutation(np.repeat(np.arange(len(want)), 20)):
      if shards.encode(stored[i]) != want[i]:
        wrong.append(i)

  threads = [threading.Thread(target=read, args=[seed]) for seed in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong
  with pytest.raises(IndexError):
    stored[len(stored)]
