"""The table of names is a bijection for every layout and size."""

import collections
import dataclasses
import math

import numpy as np
import pytest

from hulu_jax.core import params
from hulu_jax.core import tree
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.weights import names

PARTS = {"vision": 436, "projector": 4}
TOTAL = {"hulu-4b": 838, "hulu-7b": 779, "hulu-14b": 883, "hulu-32b": 1211}


def untied(config):
  return dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, tied=False))


@pytest.mark.parametrize("layout", names.LAYOUTS)
@pytest.mark.parametrize("preset", TOTAL)
def test_tensor_counts(preset, layout):
  """The counts of the published checkpoints, from the specs alone."""
  table = names.entries(presets.get(preset), layout)
  found = [entry.name for entries in table.values() for entry in entries]
  assert len(found) == len(set(found)) == TOTAL[preset]
  parts = collections.Counter(p.split("/")[0] for p, entries in table.items() for _ in entries)
  assert {part: parts[part] for part in PARTS} == PARTS


def test_an_own_head_is_one_tensor_more():
  table = names.entries(untied(presets.get("hulu-4b")), "hulumed")
  assert sum(map(len, table.values())) == 839


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_shapes_agree_with_the_specs(preset):
  config = presets.get(preset)
  table = names.entries(config, "hulumed")
  values = 0

  def check(path, spec):
    nonlocal values
    stacked = spec.axes[0] == "layer"
    assert len(table[path]) == (spec.shape[0] if stacked else 1)
    for entry in table[path]:
      assert entry.ours == spec.shape[stacked:]
      values += math.prod(entry.shape)

  specs = hulu.specs(config)
  tree.map_named(check, specs)
  assert table.keys() == set(tree.names(specs))
  assert values == params.count(specs)


def test_every_rule_serves_some_model():
  used = {
    path
    for config in (*presets.PRESETS.values(), untied(presets.get("hulu-4b")))
    for path in names.entries(config, "hulumed")
  }
  assert used == {f"{part}/{own}" for part, rules in names.RULES.items() for own in rules}


@pytest.mark.parametrize("layout", names.LAYOUTS)
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_layouts_are_told_apart_by_their_names(preset, layout):
  table = names.entries(presets.get(preset), layout)
  stored = [entry.name for entries in table.values() for entry in entries]
  assert names.detect(stored) == layout


def test_unknown_layout():
  with pytest.raises(
    ValueError, match="no known layout.*transformer.h.*expected one of video_llama"
  ):
    names.detect(["transformer.h.0.weight"])


def test_read_takes_no_more_than_the_slice_covers():
  """Half of the heads is half of torch's rows; a slice of head_dim, inside them, is cut later."""
  entry = names.entries(presets.TINY, "hulumed")["decoder/layers/q"][0]
  whole = np.arange(math.prod(entry.shape)).reshape(entry.shape)
  read = []

  def get(index):
    read.append(whole[index].size)
    return whole[index]

  everything = (slice(None),) * 3
  q = entry.read(everything, get)
  for index, share in [
    (everything, 1),
    ((slice(None), slice(2, 4), slice(None)), 2),
    ((slice(16, 32), slice(0, 1), slice(None)), 16),
    ((slice(16, 32), slice(0, 4), slice(3, 5)), 4),
  ]:
    np.testing.assert_array_equal(entry.read(index, get), q[index])
    assert read[-1] == whole.size // share


@pytest.mark.parametrize("path", sorted(names.entries(presets.TINY, "hulumed")))
def test_any_slice_equals_the_slice_of_the_whole(path):
  random = np.random.default_rng(0)
  entry = names.entries(presets.TINY, "hulumed")[path][0]
  whole = random.normal(size=entry.shape)
  ours = entry.read((slice(None),) * len(entry.ours), whole.__getitem__)
  assert ours.shape == entry.ours
  np.testing.assert_array_equal(entry.to_torch(ours), whole)
  for _ in range(5):
    index = tuple(slice(*sorted(random.integers(0, n + 1, 2))) for n in entry.ours)
    np.testing.assert_array_equal(entry.read(index, whole.__getitem__), ours[index])
