"""A run of any length stays as large as it was after its first batches."""

import dataclasses
import gc
import itertools
from pathlib import Path

import pytest

from hulu_jax.data import lengths
from hulu_jax.data import pipeline
from hulu_jax.media.errors import BadRecord
from tests.data.test_pipeline import SHAPE
from tests.data.test_pipeline import SHUFFLED
from tests.data.test_pipeline import Numbered

# Bytes for good; a leak of one picture (2,352 bytes) a record would be 47 MB over 20,000.
MOST = 6 << 20
# Sizes that share no factor, so that epochs end at different times.
SIZES = (310, 97, 41)


class Spoilt(Numbered):
  """Some of its records are bad from the start, others broke after they were measured."""

  def __getitem__(self, index):
    if int(index) % 13 == 5:
      return BadRecord("missing", "no such file or folder")
    return super().__getitem__(index)


def resident():
  """Bytes of this process in memory."""
  gc.collect()
  line = next(
    s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmRSS")
  )
  return int(line.split()[1]) * 1024


def made(builder, tmp_path, *, planned):
  datasets = [Numbered(0, SIZES[0], bad=11), Spoilt(1000, SIZES[1]), Numbered(2000, SIZES[2])]
  builders = [dataclasses.replace(builder, source=n) for n in range(len(datasets))]
  mixture = [{**SHUFFLED, "label": f"set-{n}", "weight": w} for n, w in enumerate((0.6, 0.3, 0.1))]
  measured = None
  if planned:
    text = Numbered(1, 2)  # stands in for a record that was whole when it was measured
    measured = [
      lengths.collect(
        lengths.of(b(d[i]) if not isinstance(b(d[i]), BadRecord) else b(text[0]))
        for i in range(len(d))
      )
      for d, b in zip(datasets, builders, strict=True)
    ]
  data = pipeline.Data(mixture=mixture, datasets=datasets, builders=builders, lengths=measured)
  options = pipeline.Options(
    lookahead=16,
    patience=200,
    threads=2,
    prefetch=2,
    max_bad=1.0,
    seed=3,
    listing=tmp_path / "bad.jsonl",
  )
  return pipeline.train_iterator(data, [SHAPE], (0, 1), options)


def grown(iterator, warm, count):
  """Bytes that `count` records add after `warm` others; the state is taken now and then."""
  seen, before, skipped = 0, None, 0.0
  for number in itertools.count():
    packed = next(iterator)
    seen += sum(map(len, packed.ids))
    if number % 50 == 0:
      iterator.get_state()
    if before is None and seen >= warm:
      before = resident()
    if seen >= warm + count:
      skipped = packed.info["skipped"]
      break
  assert skipped > count / 20, "there were bad records on the way"
  return resident() - before


@pytest.mark.parametrize("planned", [False, True])
def test_a_thousand_samples_leave_memory_as_it_was(builder, tmp_path, planned):
  iterator = made(builder, tmp_path, planned=planned)
  assert grown(iterator, warm=500, count=1000) < MOST
  iterator.close()


@pytest.mark.slow
@pytest.mark.parametrize("planned", [False, True])
def test_twenty_thousand_samples_leave_memory_as_it_was(builder, tmp_path, planned):
  """Over 45 epochs of the largest set; `-s` shows by how much it grew."""
  iterator = made(builder, tmp_path, planned=planned)
  found = grown(iterator, warm=2000, count=20_000)
  print(f"planned {planned}: {found / 2**20:.1f} MiB more after 20,000 records")
  assert found < MOST
  iterator.close()
