"""The plan: nothing lost or doubled, nothing over its row, full rows, the same from any state."""

import itertools
import json
import sys

import numpy as np
import pytest

from hulu_jax.data import lengths
from hulu_jax.data.lengths import Length
from hulu_jax.data.lengths import Medium
from hulu_jax.data.plan import Planner
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from tests.data.lengths_made import mixed

LIGHT = StepShape(4, 400, 100, 400, (Group(1, 90, 1, 1), Group(2, 60, 3, 1)))
GREY = StepShape(4, 400, 100, 400, (Group(3, 240, 1, 2),))
COLOUR = StepShape(4, 400, 100, 400, (Group(3, 240, 3, 2),))
SHAPES = (LIGHT, GREY, COLOUR)


@pytest.fixture(scope="module")
def records():
  return mixed(3000)


def planner(records, refused=None, shapes=SHAPES, lookahead=40, patience=2000, end=sys.maxsize):
  said = [] if refused is None else refused
  return Planner(
    lambda p: records[p % len(records)],
    shapes,
    lookahead,
    patience,
    lambda position, reason: said.append((position, reason)),
    end,
  )


def take(plan, count):
  return list(itertools.islice(iter(lambda: next(plan, None), None), count))


def test_nothing_is_lost_doubled_or_made_up(records):
  refused = []
  plan = planner(records, refused)
  steps = take(plan, 60)
  used = [p for step in steps for row in step.rows for p in row]
  assert len(used) == len(set(used))
  state = plan.get_state()
  waiting = [p for positions in state["waiting"] for p in positions]
  gone = [p for p, _ in refused]
  assert sorted(used + waiting + gone) == list(range(state["read"]))
  assert {step.shape for step in steps} == {0, 1, 2}


@pytest.mark.parametrize("end", [0, 1, 15, 16, 17, 500])
def test_at_the_end_all_that_waits_comes_out_and_then_nothing(records, end):
  refused = []
  plan = planner(records, refused, end=end)
  steps = take(plan, sys.maxsize)
  used = [p for step in steps for row in step.rows for p in row]
  assert sorted(used + [p for p, _ in refused]) == list(range(end))
  assert plan.get_state() == {"read": end, "waiting": [[], [], []]}
  assert next(plan, None) is None
  # Until rows run dry the plan is the one without an end; every step holds something.
  assert all(any(step.rows) for step in steps)
  endless = take(planner(records), len(steps))
  same = sum(a == b for a, b in zip(steps, endless, strict=True))
  assert steps[:same] == endless[:same] and (end < 500 or same > 5)


@pytest.mark.parametrize("back", [1, 2, 4])
def test_the_last_steps_are_planned_again_from_a_state(records, back):
  plan, states, steps = planner(records, end=300), [], []
  while True:
    states.append(json.loads(json.dumps(plan.get_state())))
    if (step := next(plan, None)) is None:
      break
    steps.append(step)
  again = planner(records, end=300)
  again.set_state(states[-1 - back])
  assert take(again, sys.maxsize) == steps[-back:]


def test_no_row_holds_more_than_its_shape(records):
  """Budgets added up by hand, and slots filled by hand in the order of the row."""
  for step in take(planner(records), 40):
    shape = SHAPES[step.shape]
    for row in step.rows:
      held = [records[p % len(records)] for p in row]
      assert sum(r.tokens for r in held) <= shape.tokens
      assert sum(r.supervised for r in held) <= shape.supervised
      assert sum(r.visual for r in held) <= shape.visual
      for merge in (1, 2):
        media = [m for r in held for m in r.media if m.merge == merge]
        room = sum(g.slots * g.size for g in shape.groups if g.merge == merge)
        assert sum(m.frames * m.patches for m in media) <= room


def test_rows_are_full(records):
  """Of 100 steps: what was used over what every rank pays; here tokens are what is scarce."""
  used, paid = np.zeros(2), np.zeros(2)
  for step in take(planner(records), 100):
    shape = SHAPES[step.shape]
    paid += shape.rows * np.array(
      [shape.tokens, sum(g.slots * g.size for g in shape.groups)], float
    )
    for p in itertools.chain(*step.rows):
      record = records[p % len(records)]
      used += [record.tokens, sum(m.frames * m.patches for m in record.media)]
  tokens, patches = used / paid
  assert tokens > 0.95 and patches > 0.5, (tokens, patches)


@pytest.mark.parametrize("stop", [0, 1, 17])
def test_a_plan_goes_on_from_its_state(records, stop):
  want = take(planner(records), 30)
  first = planner(records)
  take(first, stop)
  second = planner(records)
  take(second, 3)
  second.set_state(json.loads(json.dumps(first.get_state())))
  assert take(second, 30 - stop) == want[stop:]


def test_nothing_waits_for_ever():
  """One volume among thousands of texts: its home never fills, its patience ends."""
  records = [Length(50, 5, 0, ())] * 5000
  records[3] = Length(60, 5, 20, (Medium(4, 20, 1, 2),))
  plan = planner(records, patience=300)
  positions = [p for step in take(plan, 15) for row in step.rows for p in row]
  assert 3 in positions
  assert positions.index(3) < 400


def test_every_row_begins_with_the_oldest_of_its_home(records):
  plan = planner(records)
  for _ in range(20):
    before = plan.get_state()["waiting"]
    step = next(plan)
    firsts = [row[0] for row in step.rows if row]
    oldest = before[step.shape][:1]
    assert not oldest or firsts[0] == oldest[0]


def test_what_fits_no_shape_is_refused_with_its_reason(records):
  refused = []
  big = Length(401, 5, 0, ())
  wide = Length(100, 5, 1, (Medium(1, 300, 3, 1),))
  plan = planner([big, *records[:200], wide], refused)
  take(plan, 8)
  reasons = dict(refused)
  assert reasons[0] == "401 tokens, the shape holds 400"
  assert "media of (frames, patches, channels, merge) [(1, 300, 3, 1)]" in reasons[201]


def test_grey_pictures_may_lie_in_colour_slots():
  grey = Length(100, 5, 80, (Medium(1, 80, 1, 1),))
  step = next(planner([grey] * 100, shapes=(LIGHT._replace(tokens=300),)))
  # One in the grey slot of 90 patches; none in the colour slots of 60.
  assert [len(row) for row in step.rows] == [1] * 4
  small = Length(100, 5, 50, (Medium(1, 50, 1, 1),))
  step = next(planner([small] * 100, shapes=(LIGHT._replace(tokens=300),)))
  assert [len(row) for row in step.rows] == [3] * 4


def test_numbers_that_cannot_be_meant_are_told(records):
  with pytest.raises(ValueError, match="lookahead 0"):
    planner(records, lookahead=0)
  with pytest.raises(ValueError, match="rising"):
    planner(records, lookahead=10, patience=5)
  with pytest.raises(ValueError, match=r"shapes of \[4, 8\] rows"):
    planner(records, shapes=(LIGHT, GREY._replace(rows=8)))


def test_lengths_survive_the_disk_and_being_joined(records, tmp_path):
  one, two = lengths.collect(records[:100]), lengths.collect(records[100:250])
  lengths.concatenate([one, two]).save(tmp_path / "lengths.npz")
  stored = lengths.load(tmp_path / "lengths.npz")
  assert len(stored) == 250
  assert [stored[i] for i in range(250)] == records[:250]
