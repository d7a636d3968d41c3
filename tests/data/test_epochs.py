"""The end of a mixture whose datasets all have epochs: every record once an epoch, exact resume."""

from collections import Counter
import contextlib
import dataclasses
import json

import numpy as np
import pytest

from hulu_jax.data import lengths
from hulu_jax.data import packing
from hulu_jax.data import pipeline
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from tests.data.test_pipeline import SHUFFLED
from tests.data.test_pipeline import Numbered
from tests.data.test_pipeline import assert_equal
from tests.data.test_pipeline import numbers

SHAPES = (
  StepShape(4, 60, 24, 24, ()),
  StepShape(4, 80, 24, 24, (Group(2, 16, 1, 1),)),
)
# Case numbers of the first begin at 0, of the second at 100.
SIZES, EPOCHS = (23, 7), (2, 3)
MIXTURE = [
  {**SHUFFLED, "weight": 0.7, "epochs": EPOCHS[0]},
  {**SHUFFLED, "weight": 0.3, "label": "b", "epochs": EPOCHS[1]},
]
WANT = Counter(list(range(23)) * 2 + list(range(100, 107)) * 3)


@pytest.fixture(scope="module", params=["planned", "read"])
def data(request, builder):
  datasets = [Numbered(0, SIZES[0]), Numbered(100, SIZES[1])]
  builders = [dataclasses.replace(builder, source=n) for n in range(2)]
  measured = [
    lengths.collect(lengths.of(b(d[i])) for i in range(len(d)))
    for d, b in zip(datasets, builders, strict=True)
  ]
  known = measured if request.param == "planned" else None
  return pipeline.Data(mixture=MIXTURE, datasets=datasets, builders=builders, lengths=known)


def iterate(data, shard=(0, 1), shapes=SHAPES, **fields):
  options = {"lookahead": 6, "patience": 60, "threads": 2, "prefetch": 2, "max_bad": 0.0, "seed": 5}
  return pipeline.train_iterator(data, shapes, shard, pipeline.Options(**options | fields))


def whole(iterator):
  with contextlib.closing(iterator):
    return list(iterator)


def test_every_record_comes_out_once_an_epoch(data, tokenizer):
  for threads, prefetch in ((1, 1), (3, 4)):
    got = whole(iterate(data, threads=threads, prefetch=prefetch))
    assert Counter(n for packed in got for n in numbers(packed.batch, tokenizer)) == WANT
  assert [p.batch.tokens.shape for p in got] == [(4, SHAPES[p.shape].tokens) for p in got]
  assert sum(p.info["padding/tokens"] == 1 for p in got) == 0


def test_after_the_end_there_is_nothing_again(data):
  iterator = iterate(data)
  count = sum(1 for _ in iterator)
  for _ in range(3):
    assert next(iterator, None) is None
  state = json.loads(json.dumps(iterator.get_state()))
  iterator.close()
  again = iterate(data)
  again.set_state(state)
  assert count > 4 and whole(again) == []


@pytest.mark.parametrize("back", [1, 2, 5])
def test_resume_in_the_last_epoch_is_exact(data, back):
  want = whole(iterate(data))
  first = iterate(data, threads=1)
  for _ in range(len(want) - back):
    next(first)
  state = json.loads(json.dumps(first.get_state()))
  first.close()
  second = iterate(data, threads=3, prefetch=1)
  next(second)
  second.set_state(state)
  assert_equal(whole(second), want[-back:])


def test_shards_end_at_the_same_step_with_the_rows_of_the_whole(data):
  if data.lengths is None:
    with pytest.raises(ValueError, match="a mixture that ends, on 2 data shards, needs a plan"):
      iterate(data, (0, 2), SHAPES[1:])
    return
  every = whole(iterate(data))
  parts = [whole(iterate(data, (k, 2))) for k in range(2)]
  for all_rows, *halves in zip(every, *parts, strict=True):
    joined = packing.concatenate([half.batch for half in halves])
    for a, b in zip(all_rows.batch, joined, strict=True):
      np.testing.assert_equal(a, b)


def test_bad_records_at_the_very_end_are_counted_and_listed(data, tmp_path, tokenizer):
  """Records of more than 32 tokens fit no shape; those read last make no step any more."""
  short = tuple(s._replace(tokens=32) for s in SHAPES[1:])
  listing = tmp_path / "bad.jsonl"
  got = whole(iterate(data, shapes=short, max_bad=1.0, listing=listing))
  came = Counter(n for packed in got for n in numbers(packed.batch, tokenizer))
  listed = [json.loads(line) for line in listing.read_text().splitlines()]
  refused = Counter({"a": 0, "b": 100}[e["dataset"]] + e["record"] for e in listed)
  assert refused and came and came + refused == WANT
