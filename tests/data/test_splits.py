"""Splits by patient: the same everywhere, in the wanted shares, and nobody in two."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st
import pytest

from hulu_jax.data import splits


def test_assignment_is_the_same_on_every_machine():
  expected = {}
  for n in range(200):
    place = int(hashlib.sha256(f"0/patient-{n}".encode()).hexdigest()[:16], 16) / 16**16
    expected[n] = "train" if place < 0.8 else "validation" if place < 0.9 else "test"
  assert {n: splits.assign(f"patient-{n}") for n in range(200)} == expected
  # Written down once: a change here moves patients of runs that are under way.
  first = "".join(splits.assign(f"patient-{n}")[0] for n in range(20))
  assert first == "tttttttttttttttttvtt"


def test_shares_are_near_the_fractions_and_move_with_the_seed():
  fractions = {"train": 0.5, "validation": 0.2, "test": 0.3}
  got = [splits.assign(f"p{n}", fractions, 7) for n in range(4000)]
  for split, share in fractions.items():
    assert abs(got.count(split) / 4000 - share) < 0.03
  assert got != [splits.assign(f"p{n}", fractions, 8) for n in range(4000)]


def test_fractions_must_add_up():
  with pytest.raises(ValueError, match="expected none below 0, and 1 in all"):
    splits.assign("p", {"train": 0.5, "test": 0.4})


def test_a_patient_of_two_published_splits_stays_in_the_stricter():
  keys = ["a", "a", "b", "c", "c", "d"]
  given_by = ["train", "test", "train", "validation", "train", "test"]
  assert splits.choose(keys, given_by, "train") == ([2], 2)
  assert splits.choose(keys, given_by, "validation") == ([3], 0)
  assert splits.choose(keys, given_by, "test") == ([1, 5], 0)
  assert splits.choose(keys, given_by, "all") == ([0, 1, 2, 3, 4, 5], 0)


@given(
  st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(splits.SPLITS)), min_size=1, max_size=40
  )
)
def test_no_patient_is_ever_in_two_splits(rows):
  keys, published = [key for key, _ in rows], [split for _, split in rows]
  for how in (published, None):
    seen = {}
    for split in splits.SPLITS:
      try:
        chosen, _ = splits.choose(keys, how, split)
      except ValueError:
        continue
      for i in chosen:
        assert seen.setdefault(keys[i], split) == split
    assert set(seen) == set(keys), "nobody is lost altogether"


def test_says_which_splits_there_are():
  with pytest.raises(ValueError, match="no row of split 'validation' among 2; there are train"):
    splits.choose(["a", "b"], ["train", "train"], "validation")
  with pytest.raises(ValueError, match="every patient of split 'train' is also in a stricter"):
    splits.choose(["a", "a"], ["train", "test"], "train")
  with pytest.raises(ValueError, match="split is 'dev'; expected one of train, validation, test"):
    splits.choose(["a"], ["train"], "dev")
  with pytest.raises(ValueError, match="published split 'dev'"):
    splits.choose(["a"], ["dev"], "train")
