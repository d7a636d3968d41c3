"""The iterator of batches: resumes bitwise, counts what is bad, loses and doubles nothing."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from hulu_jax.data import mixture as mixture_lib
from hulu_jax.data import pipeline
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.media.errors import BadRecord

SHAPE = StepShape(2, 80, 24, 24, (Group(2, 16, 1, 1),))
PLAIN = {"name": "-", "label": "a", "weight": 1.0, "shuffle": False}
SHUFFLED = {**PLAIN, "shuffle": True}


class Numbered:
  """Records whose question is their number; every `bad`-th is broken, every third has a picture."""

  def __init__(self, first, size, bad=0):
    self._first, self._size, self._bad, self.files = first, size, bad, ()

  def __len__(self):
    return self._size

  def __getitem__(self, index):
    number = self._first + int(index)
    content = [{"type": "text", "text": f"case {number} ; " + "and " * (7 * number % 11)}]
    if number % 3 == 0:
      pixels = np.random.default_rng(number).integers(0, 256, (1, 42, 56, 1), dtype=np.uint8)
      content.insert(0, {"type": "image", "frames": pixels})
    if self._bad and number % self._bad == 0:
      content = [{"type": "image", "path": "gone.png"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "no"}]
    return {"id": str(number), "messages": messages}


def iterate(builder, datasets, mixture, *, shard=(0, 1), shape=SHAPE, **fields):
  fewest = {"lookahead": 3, "patience": 100, "threads": 2, "prefetch": 2, "max_bad": 0.0, "seed": 5}
  builders = [dataclasses.replace(builder, source=n) for n in range(len(datasets))]
  data = pipeline.Data(mixture=mixture, datasets=datasets, builders=builders, lengths=None)
  shape = shape._replace(rows=shape.rows * shard[1])
  return pipeline.train_iterator(data, [shape], shard, pipeline.Options(**fewest | fields))


def numbers(batch, tokenizer):
  """The case numbers in a batch, row by row."""
  found = []
  for tokens, segments in zip(batch.tokens, batch.segments, strict=True):
    for segment in range(1, segments.max() + 1):
      text = tokenizer.decode(tokens[segments == segment])
      found.append(int(text.split("case ")[1].split(" ;")[0]))
  return found


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def assert_equal(got, want):
  for a, b in zip(got, want, strict=True):
    assert a.info == b.info
    jax.tree.map(np.testing.assert_array_equal, a.batch, b.batch)


@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_resume_is_bitwise(builder, stop):
  """Examples wait for a fitting row when the state is taken; bad records have been counted."""
  datasets = [Numbered(0, 23, bad=7), Numbered(100, 9)]
  mixture = [{**SHUFFLED, "weight": 0.7}, {**SHUFFLED, "weight": 0.3}]
  straight = iterate(builder, datasets, mixture, max_bad=1.0)
  want = take(straight, 12)
  first = iterate(builder, datasets, mixture, max_bad=1.0)
  assert_equal(take(first, stop), want[:stop])
  state = first.get_state()
  assert_equal(take(first, 2), want[stop : stop + 2])  # looking at the state changes nothing
  second = iterate(builder, datasets, mixture, max_bad=1.0)
  take(second, 1)
  second.set_state(state)
  assert_equal(take(second, 12 - stop), want[stop:])
  assert want[-1].info["skipped"] > 1


def test_an_epoch_is_read_once_and_whole(builder, tokenizer):
  """With a window of waiting examples, what comes out is what went in, almost in order."""
  size = 40
  iterator = iterate(builder, [Numbered(0, size)], [PLAIN])
  seen = []
  while len(seen) < 2 * size:
    seen += numbers(next(iterator).batch, tokenizer)
  # Three examples may wait, so what is out is a prefix of the order but for those three.
  for epochs in range(1, 3):
    counts = np.bincount(seen[: epochs * size], minlength=size)
    assert abs(counts - epochs).max() <= 1
    assert (counts != epochs).sum() <= 2 * 3
  long = [n for packed in take(iterator, 40) for n in numbers(packed.batch, tokenizer)]
  spread = np.bincount(seen + long, minlength=size)
  assert spread.max() - spread.min() <= 2


def test_a_shuffled_epoch_is_a_permutation_that_follows_the_seed(builder, tokenizer):
  def first_epoch(seed):
    iterator = iterate(builder, [Numbered(0, 30)], [SHUFFLED], seed=seed)
    seen = []
    while len(seen) < 36:
      seen += numbers(next(iterator).batch, tokenizer)
    return seen

  one = first_epoch(1)
  assert one == first_epoch(1) != first_epoch(2)
  assert one[:20] != sorted(one[:20])
  # 36 are out, at most 3 wait: whatever the packing, all 30 of the first epoch were read.
  assert len(set(one)) >= 27


def test_shards_share_the_records_without_overlap(builder, tokenizer):
  parts = []
  for shard in range(2):
    iterator = iterate(builder, [Numbered(0, 40)], [PLAIN], shard=(shard, 2))
    parts.append({n for packed in take(iterator, 3) for n in numbers(packed.batch, tokenizer)})
  assert parts[0] and all(n % 2 == 0 for n in parts[0])
  assert parts[1] and all(n % 2 == 1 for n in parts[1])


def test_the_mixture_follows_its_weights_and_numbers_its_sources(builder):
  mixture = [{**PLAIN, "weight": 0.75}, {**PLAIN, "weight": 0.25}]
  iterator = iterate(builder, [Numbered(0, 50), Numbered(100, 50)], mixture)
  counts = np.zeros(2, int)
  for packed in take(iterator, 30):
    batch = packed.batch
    counts += np.bincount(batch.source[(batch.positions == 0) & (batch.segments > 0)], minlength=2)
  assert counts[0] / counts.sum() == pytest.approx(0.75, abs=0.05)


def test_bad_records_are_counted_and_skipped(builder, tokenizer):
  iterator = iterate(builder, [Numbered(1, 60, bad=10)], [PLAIN], max_bad=0.006)
  seen = []
  while len(seen) < 45:
    packed = next(iterator)
    seen += numbers(packed.batch, tokenizer)
  assert not [n for n in seen if n % 10 == 0]
  assert packed.info["skipped"] in (4.0, 5.0, 6.0)


def test_too_many_bad_records_stop_the_run_and_say_why(builder):
  """One in five is bad where one in a hundred of the first thousand may be."""
  iterator = iterate(builder, [Numbered(1, 60, bad=5)], [PLAIN], max_bad=0.002)
  with pytest.raises(
    BadRecord, match=r"no such file.*3 x a/missing, more than data.max_bad = 0.002"
  ):
    take(iterator, 30)


def test_an_example_that_no_row_can_hold_is_a_bad_record(builder):
  narrow = SHAPE._replace(tokens=20)
  with pytest.raises(BadRecord, match="too_long: .* tokens, the shape holds 20"):
    take(iterate(builder, [Numbered(0, 30)], [PLAIN], shape=narrow), 30)


def test_info_says_how_full_a_batch_is(builder):
  iterator = iterate(builder, [Numbered(0, 30)], [PLAIN])
  for packed in take(iterator, 4):
    batch, info = packed.batch, packed.info
    assert info["padding/tokens"] == np.count_nonzero(batch.segments == 0) / batch.segments.size
    assert info["padding/patches"] == np.count_nonzero(batch.patch_segment[0] == 0) / (2 * 2 * 16)
    assert info["kept"] in (0.0, 1.0)  # pictures are never compressed
    assert info["skipped"] == 0.0


def test_a_dataset_is_named_by_its_file():
  fields = {"kind": "text", "split": "train", "seed": 0, "size": 10, "pool": 0, "fade": 0.0}
  (source,) = mixture_lib.sources([{**PLAIN, "name": "synthetic_disc", **fields}])
  assert len(source) == 10
  with pytest.raises(ValueError, match="no 'synthetic_disk' in hulu_jax.data.datasets; there are"):
    mixture_lib.sources([{**PLAIN, "name": "synthetic_disk", **fields}])
