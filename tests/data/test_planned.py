"""Batches by a plan that every shard makes alike: same rows for any shards, exact resume."""

from collections import Counter
import dataclasses
import json

import numpy as np
import pytest

from hulu_jax.data import lengths
from hulu_jax.data import packing
from hulu_jax.data import pipeline
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.media.errors import BadRecord
from tests.data.test_pipeline import PLAIN
from tests.data.test_pipeline import SHUFFLED
from tests.data.test_pipeline import Numbered
from tests.data.test_pipeline import assert_equal
from tests.data.test_pipeline import numbers
from tests.data.test_pipeline import take

# Texts fit the first shape, pictures need the second.
SHAPES = (
  StepShape(4, 60, 24, 24, ()),
  StepShape(4, 80, 24, 24, (Group(2, 16, 1, 1),)),
)
MIXTURE = [{**SHUFFLED, "weight": 0.7}, {**SHUFFLED, "weight": 0.3, "label": "b"}]


class Breaking(Numbered):
  """A record that was readable when its length was taken and is no more."""

  broken: int | None = None

  def __getitem__(self, index):
    if int(index) == self.broken:
      return BadRecord("missing", "no such file or folder")
    return super().__getitem__(index)


@pytest.fixture(scope="module")
def data(builder):
  datasets = [Breaking(0, 23), Breaking(100, 12)]
  builders = [dataclasses.replace(builder, source=n) for n in range(2)]
  measured = [
    lengths.collect(lengths.of(b(d[i])) for i in range(len(d)))
    for d, b in zip(datasets, builders, strict=True)
  ]
  return pipeline.Data(mixture=MIXTURE, datasets=datasets, builders=builders, lengths=measured)


def iterate(data, shard=(0, 1), **fields):
  options = {"lookahead": 6, "patience": 60, "threads": 2, "prefetch": 2, "max_bad": 0.0, "seed": 5}
  return pipeline.train_iterator(data, SHAPES, shard, pipeline.Options(**options | fields))


def test_shards_have_the_rows_of_the_whole(data):
  whole = take(iterate(data), 10)
  parts = [take(iterate(data, (k, 2)), 10) for k in range(2)]
  assert {packed.shape for packed in whole} == {0, 1}
  for all_rows, first, second in zip(whole, *parts, strict=True):
    assert all_rows.shape == first.shape == second.shape
    joined = packing.concatenate([first.batch, second.batch])
    for a, b in zip(all_rows.batch, joined, strict=True):
      np.testing.assert_equal(a, b)


@pytest.mark.parametrize("stop", [0, 3, 7])
@pytest.mark.parametrize("threads", [1, 3])
def test_resume_is_exact_on_any_number_of_shards_and_threads(data, stop, threads):
  want = take(iterate(data), 12)
  first = iterate(data, (1, 4), threads=1)
  take(first, stop)
  state = json.loads(json.dumps(first.get_state()))
  second = iterate(data, threads=threads, prefetch=1)
  take(second, 2)
  second.set_state(state)
  assert_equal(take(second, 12 - stop), want[stop:])


def test_an_epoch_is_whole(data, tokenizer):
  """Every record of the first dataset comes out once before any comes thrice."""
  alone = dataclasses.replace(
    data, mixture=[PLAIN], datasets=data.datasets[:1], lengths=data.lengths[:1]
  )
  iterator = iterate(alone)
  seen = []
  while len(seen) < 3 * 23:
    seen += numbers(next(iterator).batch, tokenizer)
  counts = np.bincount(seen, minlength=23)
  assert counts.min() >= 1 and counts.max() - counts.min() <= 2


def test_a_record_that_broke_since_leaves_a_hole_and_is_counted(data, tokenizer, tmp_path):
  listing = tmp_path / "bad.jsonl"
  want = take(iterate(data), 8)
  broken = Breaking(0, 23)
  broken.broken = 4
  changed = dataclasses.replace(data, datasets=[broken, data.datasets[1]])
  got = take(iterate(changed, max_bad=0.01, listing=listing), 8)
  for a, b in zip(got, want, strict=True):
    assert numbers(a.batch, tokenizer) == [n for n in numbers(b.batch, tokenizer) if n != 4]
  assert got[-1].info["skipped/a/missing"] == got[-1].info["skipped"] >= 1
  (line, *_) = [json.loads(text) for text in listing.read_text().splitlines()]
  assert (line["dataset"], line["record"], line["kind"]) == ("a", 4, "missing")


@pytest.mark.parametrize("shards", [2, 4])
def test_counts_of_shards_add_up_to_those_of_one(data, shards):
  """Also of what the plan refuses, which every shard knows of."""
  whole = take(iterate(data), 6)
  parts = [take(iterate(data, (n, shards)), 6) for n in range(shards)]
  for step, one in enumerate(whole):
    total = sum((Counter(part[step].counts) for part in parts), Counter())
    assert {name: total[name] for name in one.counts} == one.counts
    assert all(part[step].counts.keys() == one.counts.keys() for part in parts)


def test_several_shapes_on_several_shards_need_lengths(data):
  unmeasured = dataclasses.replace(data, lengths=None)
  with pytest.raises(ValueError, match="2 step shapes on 2 data shards need a plan"):
    iterate(unmeasured, (0, 2))


def test_a_changed_dataset_stops_the_resume_and_is_named(data):
  state = iterate(data).get_state()
  longer = dataclasses.replace(data, datasets=[Breaking(0, 24), data.datasets[1]])
  with pytest.raises(ValueError, match="changed: 0:a"):
    iterate(longer).set_state(state)
