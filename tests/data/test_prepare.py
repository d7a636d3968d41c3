"""Prepared records: equal examples bit by bit, the same lengths, and errors that name the field."""

import contextlib
import dataclasses
import itertools

import jax
import numpy as np
import pytest

from hulu_jax.data import lengths as lengths_lib
from hulu_jax.data import packing
from hulu_jax.data import pipeline
from hulu_jax.data import prepared_record
from hulu_jax.data import shards
from hulu_jax.data import stored_lengths
from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data.compression import Compression
from hulu_jax.data.datasets import jsonl
from hulu_jax.data.datasets import prepared
from hulu_jax.data.prepare import Input
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media
from tests.data import records_made
from tests.data.records_made import run

MODES = [
  Compression(mode="off"),
  Compression(mode="hulumed"),
  Compression(mode="videollama3"),
  Compression(mode="fixed", grey=12.0, hu=9.0, against="last_kept"),
]


@pytest.fixture(scope="module")
def made(builder, tmp_path_factory):
  """The input, a builder for it, and the folder it was prepared into."""
  return records_made.prepared(builder, tmp_path_factory, MODES[-1])


def with_mode(builder, compression):
  return dataclasses.replace(
    builder, policy=dataclasses.replace(builder.policy, compression=compression)
  )


@pytest.mark.parametrize("compression", MODES, ids=lambda c: c.mode)
def test_examples_are_the_same_bit_by_bit(made, compression):
  source, builder, output = made
  builder = with_mode(builder, compression)
  plain, stored = source.open(), prepared.Source(path=str(output))
  good = [n for n in range(len(plain)) if n not in records_made.BAD]
  assert stored.numbers.tolist() == good
  dropped = 0
  for index, number in enumerate(good):
    got, want = builder(stored[index]), builder(plain[number])
    assert isinstance(want, Example) and got.id == want.id
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.weights, want.weights)
    np.testing.assert_array_equal(got.visual_positions, want.visual_positions)
    for a, b in zip(got.visuals, want.visuals, strict=True):
      assert (a.kind, a.grid, a.merge) == (b.kind, b.grid, b.merge)
      np.testing.assert_array_equal(a.patches, b.patches)
      np.testing.assert_array_equal(a.keep, b.keep)
      dropped += int((~b.keep).sum())
  assert (dropped > 0) == (compression.mode != "off")


@pytest.mark.parametrize("compression", MODES, ids=lambda c: c.mode)
def test_stored_lengths_are_those_of_the_examples(made, compression):
  source, builder, output = made
  builder = with_mode(builder, compression)
  plain, stored = source.open(), prepared.Source(path=str(output))
  lengths = stored.lengths.lengths(builder.policy, builder.tokenizer)
  assert len(lengths) == len(stored)
  for index, number in enumerate(stored.numbers):
    assert lengths[index] == lengths_lib.of(builder(plain[number]))


def test_prepared_lengths_plan_the_rows_of_every_shard(made):
  """Two data shards, two step shapes: only stored lengths allow it; rows as from plain data."""
  source, builder, output = made
  plain, stored = source.open(), prepared.Source(path=str(output))
  lengths = stored_lengths.of_all([stored], builder.policy, builder.tokenizer)
  groups = (Group(4, 200, 3, 1), Group(4, 200, 1, 1), Group(4, 200, 1, 2), Group(4, 200, 3, 2))
  shapes = [StepShape(4, 120, 30, 10, ()), StepShape(4, 500, 60, 400, groups)]
  good = _Chosen(plain, stored.numbers)
  mixture = [{"name": "-", "label": "a", "weight": 1.0, "shuffle": True}]
  options = pipeline.Options(lookahead=4, patience=40, threads=2, prefetch=1, max_bad=0.0, seed=3)

  def batches(dataset, shard):
    data = pipeline.Data(mixture=mixture, datasets=[dataset], builders=[builder], lengths=lengths)
    with contextlib.closing(pipeline.train_iterator(data, shapes, shard, options)) as iterator:
      return list(itertools.islice(iterator, 6))

  whole = batches(good, (0, 1))
  parts = [batches(stored, (k, 2)) for k in range(2)]
  assert {packed.shape for packed in whole} == {0, 1}
  for want, *halves in zip(whole, *parts, strict=True):
    joined = packing.concatenate([half.batch for half in halves])
    jax.tree.map(np.testing.assert_array_equal, want.batch, joined)


class _Chosen:
  """Some records of a dataset."""

  def __init__(self, dataset, numbers):
    self._dataset, self._numbers, self.files = dataset, numbers, dataset.files

  def __len__(self):
    return len(self._numbers)

  def __getitem__(self, index):
    return self._dataset[self._numbers[index]]


def test_lengths_alone_keep_the_place_of_bad_records(made, tmp_path):
  source, builder, _ = made
  for shard in range(2):
    run(source, builder, tmp_path / "lengths", (shard, 2), frames=False)
  assert not list((tmp_path / "lengths").glob("*.array_record"))
  dataset = jsonl.Source(**source.fields, lengths=str(tmp_path / "lengths"))
  for compression in MODES:
    own = with_mode(builder, compression)
    (lengths,) = stored_lengths.of_all([dataset], own.policy, own.tokenizer)
    assert len(lengths) == len(dataset)
    for number in range(len(dataset)):
      found = own(dataset[number])
      want = lengths_lib.Length(0, 0, 0, ())
      if number not in records_made.BAD:
        want = lengths_lib.of(found)
      assert lengths[number] == want
  assert stored_lengths.of_all([dataset, source.open()], own.policy, own.tokenizer) is None


def test_lengths_of_another_file_are_refused(made, tmp_path):
  source, builder, _ = made
  run(source, builder, tmp_path / "lengths", frames=False)
  other = tmp_path / "train.jsonl"
  text = (builder.root / "train.jsonl").read_text()
  other.write_text(text.replace("Answer shortly", "Answer longer"))
  with pytest.raises(ValueError, match=r"lengths of other records \(files.train.jsonl was"):
    jsonl.Source(path=str(other), lengths=str(tmp_path / "lengths"))


def test_prepared_records_can_be_measured_again_for_another_threshold(made, tmp_path):
  source, builder, output = made
  policy = dataclasses.replace(builder.policy, compression=Compression(mode="fixed", grey=3.0))
  stored = prepared.Source(path=str(output))
  with pytest.raises(ValueError, match="policy.compression.grey was 12.0, is 3.0"):
    stored.lengths.lengths(policy, builder.tokenizer)
  again = Input("prepared", {"path": str(output)})
  other = dataclasses.replace(builder, policy=policy)
  run(again, other, tmp_path / "lengths", frames=False)
  stored = prepared.Source(path=str(output), lengths=str(tmp_path / "lengths"))
  lengths = stored.lengths.lengths(policy, builder.tokenizer)
  plain = source.open()
  for index, number in enumerate(prepared.Source(path=str(output)).numbers):
    assert lengths[index] == lengths_lib.of(other(plain[number]))


@pytest.mark.parametrize(
  ("field", "value"),
  [("max_tokens", 64), ("preset", "hulumed"), ("merge", {"image": 2, "volume": 2, "video": 2})],
)
def test_another_policy_is_named(made, field, value):
  _, builder, output = made
  policy = dataclasses.replace(builder.policy, **{field: value})
  with pytest.raises(ValueError, match=rf"another experiment \(policy\.{field}.* was .*, is "):
    prepared.Source(path=str(output)).lengths.lengths(policy, builder.tokenizer)


def test_another_tokenizer_is_named(made):
  _, builder, output = made
  other = tokenizer_lib.train(["other words entirely"] * 4, 300)
  with pytest.raises(ValueError, match=r"\(tokenizer was .*, is "):
    prepared.Source(path=str(output)).lengths.lengths(builder.policy, other)


def test_frames_of_another_size_are_a_bad_record_not_resized_again(made):
  _, builder, output = made
  policy = dataclasses.replace(builder.policy, max_tokens=12)
  stored = prepared.Source(path=str(output))
  found = dataclasses.replace(builder, policy=policy)(stored[1])
  assert isinstance(found, BadRecord) and "prepare them with it" in found.reason


def test_a_tokenizer_has_one_digest_saved_or_not(made, tmp_path, shared_data):
  path = next(shared_data.glob("tokenizer_*/public/tokenizer.json.gz"))
  for found in (made[1].tokenizer, tokenizer_lib.load(path)):
    folder = tmp_path / type(found).__name__
    folder.mkdir()
    found.save(folder)
    assert stored_lengths.digest(found) == stored_lengths.digest(tokenizer_lib.load(folder))


def test_what_is_kept_of_a_record(made):
  _, _, output = made
  stored = prepared.Source(path=str(output))
  by_id = {stored[i]["id"]: stored[i] for i in range(len(stored))}
  assert by_id["chest"]["group"] == "patient-1" and by_id["chest"]["answer_type"] == "closed"
  chest = by_id["chest"]["messages"][1]["content"][0]
  assert chest["medium"].modality == "CR" and chest["medium"].timestamps == (2,)
  ct = by_id["ct"]["messages"][1]["content"][0]
  assert ct["label"] == "now" and ct["medium"].window == (40, 80)
  assert ct["medium"].spacing_mm == pytest.approx((2.5, 0.7, 0.7))
  assert ct["medium"].affine.shape == (4, 4)
  text = b"".join(shards.encode(record) for record in by_id.values())
  text += b"".join(p.read_bytes() for p in output.iterdir() if p.suffix != ".array_record")
  assert b"gone.png" not in text and str(made[1].root).encode() not in text


def test_what_differs_from_run_to_run_is_not_kept(builder):
  """The hash of a path is under a key that each process draws."""
  provenance = {"format": "png", "file": "0123456789abcdef"}
  medium = Media(kind="image", frames=np.zeros((1, 28, 28, 1), np.uint8), provenance=provenance)
  content = [{"type": "image", "medium": medium}, {"type": "text", "text": "?"}]
  record = {"id": "a", "messages": [{"role": "user", "content": content}]}
  found = prepared_record.prepare(record, 0, builder, {}, store=True)
  item = shards.decode(found.data)["messages"][0]["content"][0]
  assert item["medium"].provenance == {"format": "png"}
