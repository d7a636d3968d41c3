"""Saved data states on another number of shards: the plan is one, bad records are shared out."""

import pytest

from hulu_jax.data import states


def saved(*bad):
  return [
    {"shard": [k, len(bad)], "plan": {"read": 9}, "refused": {"a/too_long": 2}, "bad": counts}
    for k, counts in enumerate(bad)
  ]


def test_as_many_shards_get_their_own():
  before = saved({"a/missing": 3}, {"a/format": 1})
  assert [states.pick(before[::-1], (k, 2)) for k in range(2)] == before


@pytest.mark.parametrize("shards", [1, 3, 4])
def test_on_another_number_the_sum_stays(shards):
  before = saved({"a/missing": 3, "a/format": 1}, {"a/missing": 2})
  got = [states.pick(before, (k, shards)) for k in range(shards)]
  assert all(g["plan"] == {"read": 9} and g["refused"] == {"a/too_long": 2} for g in got)
  missing = [g["bad"].get("a/missing", 0) for g in got]
  assert sum(missing) == 5 and max(missing) - min(missing) <= 1
  assert sum(g["bad"].get("a/format", 0) for g in got) == 1


def test_processes_that_read_one_shard_are_counted_once():
  before = saved({"a/missing": 3}, {})
  assert states.pick([*before, before[0]], (0, 1))["bad"] == {"a/missing": 3}


@pytest.mark.parametrize("left", [[], saved({}, {})[:1], saved({}, {}, {})[1:]])
def test_a_missing_state_is_an_error(left):
  with pytest.raises(ValueError, match=r"lacks the data state of shards \["):
    states.pick(left, (0, 1))
