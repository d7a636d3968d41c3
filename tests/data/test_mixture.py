"""The order of a mixture: Grain's while nothing ends, then whole epochs, shares and kinds."""

from collections import Counter
import json

import grain
import numpy as np
import pytest

from hulu_jax.data import interleave
from hulu_jax.data import mixture as mixture_lib
from hulu_jax.data import stored_lengths
from hulu_jax.data.lengths import Medium
from hulu_jax.data.schema import Ref
from hulu_jax.data.stored_lengths import Measured
from hulu_jax.data.stored_lengths import Stored

ENTRY = {"name": "jsonl", "label": "a", "weight": 1.0, "shuffle": True}
# The media of one record each; the fifth holds two kinds, the last could not be read.
HELD = [(), ("image",), ("volume",), ("video",), ("image", "volume"), ("image", "image"), (), None]
OF_KIND = {"text": [0, 6], "image": [1, 5], "volume": [2, 4], "video": [3]}


class Sized:
  """A dataset without records, with or without lengths."""

  def __init__(self, size, lengths=None):
    self.size, self.lengths, self.files = size, lengths, ()

  def __len__(self):
    return self.size


def measured(number, kinds):
  if kinds is None:
    return stored_lengths.unreadable(number, {"off": None})
  media = tuple(Medium(1, 4, 1, 1) for _ in kinds)
  return Measured(number, 9, 2, {"off": 4 * len(kinds)}, media, kinds)


@pytest.fixture
def of_kinds(tmp_path):
  """A dataset with lengths that were on disk, of the records of HELD."""
  arrays = stored_lengths.collect([measured(n, k) for n, k in enumerate(HELD)], ["off"])
  stored_lengths.save(tmp_path / "lengths.npz", arrays)
  arrays = stored_lengths.load(tmp_path / "lengths.npz")
  return Sized(len(HELD), Stored(arrays=arrays, made={}, where="here"))


def entries(*weights, **fields):
  return [{**ENTRY, "label": str(n), "weight": w, **fields} for n, w in enumerate(weights)]


def order(sizes, mixture, seed=3):
  return mixture_lib.order([Sized(size) for size in sizes], mixture, seed)


def grains(sizes, mixture, seed):
  """As it was before datasets could end: by Grain alone."""
  parts = []
  for number, (size, entry) in enumerate(zip(sizes, mixture, strict=True)):
    part = grain.MapDataset.range(size)
    if entry["shuffle"]:
      part = part.seed(seed + number).shuffle()
    parts.append(part.repeat().map(lambda index, number=number: Ref(number, int(index))))
  return grain.MapDataset.mix(parts, [entry["weight"] for entry in mixture])


@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.3), (0.48, 0.32, 0.1, 0.1), (5, 1e-3, 1 / 3)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_what_never_ends_comes_in_the_order_of_grain(weights, shuffle):
  sizes = [1100, 130, 2000, 600][: len(weights)]
  mixture = entries(*weights, shuffle=shuffle)
  got, want = order(sizes, mixture), grains(sizes, mixture, 3)
  positions = [*range(2500), *range(10**9, 10**9 + 10**5, 1000)]
  assert [got[p] for p in positions] == [want[p] for p in positions]


def test_an_end_far_away_changes_nothing_before():
  endless = order([200, 300], entries(2.0, 1.0))
  ending = order([200, 300], entries(2.0, 1.0, epochs=50))
  assert [ending[p] for p in range(900)] == [endless[p] for p in range(900)]
  assert len(ending) == 50 * 500


@pytest.mark.parametrize("weights", [(3, 1), (0.7, 0.2, 0.1), (1, 30, 4, 4), (0.34, 0.33, 0.33)])
def test_shares_are_the_weights_within_one_percent(weights):
  mixed = order([2000] * len(weights), entries(*weights))
  counts = Counter(mixed[p].source for p in range(10_000))
  for source, weight in enumerate(weights):
    assert counts[source] / 10_000 == pytest.approx(weight / sum(weights), rel=0.01)


def test_every_epoch_is_a_permutation_of_its_own():
  size, epochs = 50, 4
  mixed = order([size, 7], entries(1.0, 2.0, epochs=epochs))
  records = [[ref.record for ref in mixed if ref.source == source] for source in (0, 1)]
  for source, records_in in ((0, size), (1, 7)):
    passes = np.reshape(records[source], (epochs, records_in))
    np.testing.assert_array_equal(np.sort(passes, axis=1), [range(records_in)] * epochs)
  assert len({tuple(p) for p in np.reshape(records[0], (epochs, size))}) == epochs
  other = order([size, 7], entries(1.0, 2.0, epochs=epochs), seed=4)
  assert [r.record for r in other if r.source == 0][:size] != records[0][:size]


def test_without_shuffle_records_keep_their_order():
  mixed = order([4], entries(1.0, shuffle=False, epochs=2))
  assert [ref.record for ref in mixed] == [0, 1, 2, 3] * 2


def test_who_is_used_up_leaves_its_share_to_the_others():
  mixture = [dict(e, epochs=n) for e, n in zip(entries(2, 1, 1), (1, 2, None), strict=True)]
  mixed = order([100, 100, 10], [dict(e, shuffle=False) for e in mixture])
  assert not mixture_lib.ends(mixture)
  sources = np.array([mixed[p].source for p in range(20_000)])
  first_left = np.flatnonzero(sources == 0).max() + 1
  second_left = np.flatnonzero(sources == 1).max() + 1
  # The first is half of the mixture for 200 positions, then the others are a half each.
  assert abs(first_left - 200) <= 3 and abs(second_left - 500) <= 5
  between = sources[first_left:second_left]
  assert np.mean(between == 2) == pytest.approx(0.5, abs=0.01)
  assert set(sources[second_left:]) == {2}
  assert [np.count_nonzero(sources == n) for n in (0, 1)] == [100, 200]


def test_shards_are_strides_of_the_whole():
  mixed = order([11, 5], entries(1.0, 1.0, epochs=2))
  for shards in (1, 2, 3, 8):
    parts = [list(mixed.shard(k, shards)) for k in range(shards)]
    assert parts == [list(mixed)[k::shards] for k in range(shards)]
  assert order([11], entries(1.0)).shard(1, 4)[2] == order([11], entries(1.0))[9]


def test_any_position_is_known_without_those_before():
  make = lambda: order([11, 50, 3], entries(1.0, 0.1, 7.0, epochs=3))  # noqa: E731
  every = list(make())
  assert len(every) == len(make()) == 3 * 64
  backwards = make()
  assert [backwards[p] for p in reversed(range(192))] == every[::-1]
  with pytest.raises(IndexError):
    make()[192]


def test_turns_end_when_all_parts_are_used_up_and_not_before():
  """Against a plain simulation: who is furthest behind its share is at most a turn away."""
  turns = interleave.Turns([1.0, 2.5, 0.2], [13, None, 1])
  seen = [turns[p] for p in range(500)]
  for part, total in ((0, 13), (1, 500 - 14), (2, 1)):
    assert [n for who, n in seen if who == part] == list(range(total))
  assert len(interleave.Turns([9.0, 1.0], [1, 2])) == 3


@pytest.mark.parametrize("kind", OF_KIND)
def test_a_kind_never_leaks(of_kinds, kind):
  mixed = mixture_lib.order([of_kinds], entries(1.0, kinds=(kind,)), 0)
  assert {mixed[p].record for p in range(50)} == set(OF_KIND[kind])
  ended = mixture_lib.order([of_kinds], entries(1.0, kinds=(kind,), epochs=1), 0)
  assert sorted(ref.record for ref in ended) == OF_KIND[kind]


def test_one_dataset_twice_has_a_weight_per_modality(of_kinds):
  mixture = entries(3.0, 1.0, shuffle=False)
  mixture[0]["kinds"], mixture[1]["kinds"] = ("text", "image"), ["volume", "video"]
  mixed = mixture_lib.order([of_kinds] * 2, mixture, 0)
  refs = [mixed[p] for p in range(4000)]
  assert {r.record for r in refs if r.source == 0} == {0, 1, 5, 6}
  assert {r.record for r in refs if r.source == 1} == {2, 3, 4}
  assert np.mean([r.source == 0 for r in refs]) == pytest.approx(0.75, abs=0.0025)
  chosen = mixture_lib.selected([of_kinds] * 2, mixture)
  assert mixture_lib.records([of_kinds] * 2, chosen) == [4, 3]


def test_a_card_with_one_kind_speaks_for_all_its_records():
  mixture = entries(1.0, name="medquad", kinds=("image", "text"), epochs=1)
  assert sorted(r.record for r in order([5], mixture)) == [0, 1, 2, 3, 4]
  mixture[0]["kinds"] = ("volume",)
  with pytest.raises(ValueError, match=r"\('0'\): no records of kinds \['volume'\].* 5 of text"):
    order([5], mixture)


def test_kinds_that_are_not_known_or_not_there_are_told(of_kinds):
  with pytest.raises(ValueError, match=r"data.mixture\[0\] .*`hulu prepare`, or leave `kinds` out"):
    order([5], entries(1.0, kinds=("image",)))
  few = stored_lengths.collect([measured(0, ()), measured(1, ("image",))], ["off"])
  few = Sized(2, Stored(arrays=few, made={}, where="here"))
  with pytest.raises(ValueError, match=r"kinds \['video'\]; there are 1 of text, 1 of image$"):
    mixture_lib.order([few], entries(1.0, kinds=("video",)), 0)


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    ({"weight": 0}, r"data.mixture\[1\] \('b'\): weight = 0; expected a number above 0"),
    ({"weight": -0.5}, r"data.mixture\[1\] \('b'\): weight = -0.5"),
    ({"weight": float("nan")}, "weight = nan"),
    ({"weight": float("inf")}, "weight = inf"),
    ({"weight": "1"}, "weight = '1'"),
    ({"weight": True}, "weight = True"),
    ({"shuffle": "yes"}, "shuffle = 'yes'"),
    ({"epochs": 0}, r"\('b'\): epochs = 0; expected 1 or more, or None"),
    ({"epochs": 1.5}, "epochs = 1.5"),
    ({"epochs": True}, "epochs = True"),
    ({"kinds": "image"}, "kinds = 'image'; expected some of text, image, volume, video, in a"),
    ({"kinds": ()}, r"kinds = \(\); expected some"),
    ({"kinds": ("images",)}, "unknown kind 'images'; did you mean 'image'"),
  ],
)
def test_what_cannot_be_meant_names_the_entry(fields, said):
  mixture = [{**ENTRY, "path": "-"}, {**ENTRY, "path": "-", "label": "b", **fields}]
  for use in (mixture_lib.sources, lambda m: order([3, 3], m)):
    with pytest.raises(ValueError, match=said):
      use(mixture)


def test_weights_that_are_all_zero_and_no_datasets_are_errors():
  with pytest.raises(ValueError, match=r"data.mixture\[0\] \('0'\): weight = 0"):
    order([3, 3], entries(0, 0))
  with pytest.raises(ValueError, match="data.mixture is empty"):
    mixture_lib.sources([])
  with pytest.raises(ValueError, match=r"data.mixture\[1\] \('1'\): no records"):
    order([3, 0], entries(1, 1))


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    ({"pth": "x"}, r"data.mixture\[0\] \('a'\): unknown key 'pth'; did you mean 'path'\?"),
    ({"path": "x", "wieght": 2}, "unknown key 'wieght'; did you mean 'weight'"),
    ({"path": "x", "epoch": 2}, "did you mean 'epochs'"),
    ({"path": "x", "zzz": 2}, "unknown key 'zzz'; its fields are path, lengths, beside name"),
    ({}, r"data.mixture\[0\] \('a'\) has no path; its fields are path, lengths"),
  ],
)
def test_keys_that_a_dataset_does_not_take_are_told_with_those_it_does(fields, said):
  with pytest.raises(ValueError, match=said):
    mixture_lib.sources([{**ENTRY, **fields}])


def test_an_entry_without_a_weight_is_told(tmp_path):
  with pytest.raises(ValueError, match=r"data.mixture\[0\] has no weight, shuffle"):
    mixture_lib.sources([{"name": "jsonl", "label": "a", "path": "x"}])


def test_the_new_keys_are_not_the_datasets_fields(tmp_path):
  (tmp_path / "a.jsonl").write_text(json.dumps({"id": "1", "messages": []}) + "\n")
  entry = {**ENTRY, "path": str(tmp_path / "a.jsonl"), "kinds": None, "epochs": 2}
  (source,) = mixture_lib.sources([entry])
  assert len(source) == 1
  assert len(mixture_lib.order([source], [entry], 0)) == 2
