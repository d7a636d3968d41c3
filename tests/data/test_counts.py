"""Counts of a batch: of which dataset and of which modality a metric is."""

import dataclasses

import numpy as np
import pytest

from hulu_jax.data import counts
from hulu_jax.data import packing
from hulu_jax.data.schema import MODALITIES
from tests.data import test_stats

# Of the records of test_stats, their datasets: two of the first, three of the second.
SOURCES = (0, 0, 1, 1, 1)
LABELS = ("first", "second")


@pytest.fixture(scope="module")
def examples(builder):
  return [
    dataclasses.replace(builder(r), source=s)
    for r, s in zip(test_stats.records(), SOURCES, strict=True)
  ]


def test_supervised_tokens_and_kept_tokens_by_dataset_and_modality(examples):
  found = counts.metrics(counts.held(examples, LABELS))
  answers = [np.count_nonzero(e.weights) for e in examples]
  assert found["supervised_by_dataset/first"] == sum(answers[:2])
  assert found["supervised_by_dataset/second"] == sum(answers[2:])
  own = dict(zip(MODALITIES, (answers[0], answers[1], sum(answers[2:4]), answers[4]), strict=True))
  assert {kind: found[f"supervised/{kind}"] for kind in MODALITIES} == own
  # A picture keeps its 12 tokens; two volumes keep 8 of 20 each, as test_stats.py says, a clip all.
  assert found["kept_by_dataset/first"] == 1.0
  assert found["kept_by_dataset/second"] == (16 + 16) / (40 + 16)
  assert found["tokens_by_dataset/first"] == sum(len(e.tokens) for e in examples[:2])


def test_the_batch_says_the_modality_of_every_supervised_position(examples):
  packer = packing.Packer(test_stats.SHAPE)
  for number, example in enumerate(examples):
    assert packer.add_to(number % 2, example)
  batch = packer.batch()
  for r in range(2):
    own = [e for n, e in enumerate(examples) if n % 2 == r]
    want = [e.modality for e in own for _ in range(np.count_nonzero(e.weights[1:]))]
    used = batch.loss_weights[r] > 0
    assert batch.loss_modality[r][used].tolist() == want
    assert not batch.loss_modality[r][~used].any()
