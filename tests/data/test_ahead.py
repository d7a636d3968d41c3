"""Threads that build ahead: bounded, ended by closing, and loud when a plugin has a bug."""

import dataclasses
import threading
import time

import pytest

from hulu_jax.data.ahead import Ahead
from tests.data.test_pipeline import PLAIN
from tests.data.test_pipeline import Numbered
from tests.data.test_pipeline import iterate
from tests.data.test_pipeline import take


class Broken(Numbered):
  """A plugin with a bug: one record raises what is no BadRecord."""

  def __getitem__(self, index):
    if int(index) == 17:
      raise KeyError("patient_name")
    return super().__getitem__(index)


class Healing(Numbered):
  """A dataset whose disk comes back."""

  ill = True

  def __getitem__(self, index):
    if self.ill and int(index) == 17:
      raise OSError("unreachable")
    return super().__getitem__(index)


def threads():
  return {t for t in threading.enumerate() if t.name.startswith("examples")}


@pytest.fixture
def no_thread_stays():
  before = threads()
  yield
  until = time.monotonic() + 10
  while threads() - before and time.monotonic() < until:
    time.sleep(0.01)
  assert not threads() - before


def test_what_was_started_is_built_once_in_any_order_of_taking():
  built = []
  ahead = Ahead(lambda n: built.append(n) or n * n, threads=3)
  ahead.start(range(6))
  ahead.start(range(3, 8))
  assert [ahead.take(n) for n in (5, 0, 7, 11)] == [25, 0, 49, 121]
  assert len(ahead) == 5
  for n in (1, 2, 3, 4, 6):
    ahead.take(n)
  assert len(ahead) == 0 and sorted(built) == [0, 1, 2, 3, 4, 5, 6, 7, 11]
  ahead.close()


def test_never_more_at_once_than_threads():
  running, most = [], []
  lock = threading.Lock()

  def build(n):
    with lock:
      running.append(n)
      most.append(len(running))
    time.sleep(0.002)
    with lock:
      running.remove(n)

  ahead = Ahead(build, threads=2)
  ahead.start(range(20))
  for n in range(20):
    ahead.take(n)
  assert max(most) <= 2
  ahead.close()


def test_drop_forgets_and_close_ends_the_threads(no_thread_stays):
  gate = threading.Event()
  built = []

  def build(n):
    gate.wait(10)
    built.append(n)

  ahead = Ahead(build, threads=2)
  ahead.start(range(50))
  ahead.drop()
  assert len(ahead) == 0
  gate.set()
  ahead.close()
  assert len(built) <= 2, "what had not begun is not built"
  with pytest.raises(RuntimeError):
    ahead.start([1])


def test_what_build_raises_is_raised_where_it_is_taken():
  ahead = Ahead(lambda n: 1 // n, threads=1)
  ahead.start([0, 1])
  assert ahead.take(1) == 1
  with pytest.raises(ZeroDivisionError):
    ahead.take(0)
  ahead.close()


@pytest.mark.parametrize("count", [1, 4])
def test_a_bug_in_a_plugin_stops_the_run_and_names_the_record(builder, count, no_thread_stays):
  """Neither a hang nor a skip, however many bad records are allowed; and no second wind."""
  mixture = [{**PLAIN, "label": "good"}, {**PLAIN, "label": "ours"}]
  iterator = iterate(
    builder, [Numbered(0, 40), Broken(100, 40)], mixture, threads=count, max_bad=1.0
  )
  with pytest.raises(RuntimeError, match="dataset ours, record 17: KeyError") as raised:
    take(iterator, 100)
  assert isinstance(raised.value.__cause__, KeyError)
  assert "patient_name" not in str(raised.value), "a bug's message may quote a record"
  with pytest.raises(RuntimeError, match="record 17"):
    next(iterator)
  iterator.close()


def test_after_an_error_nothing_comes_until_a_state_is_set(builder, no_thread_stays):
  """Grain's threads would go on behind the record that failed, and its batch would be lost."""
  whole = iterate(builder, [Numbered(0, 40)], [PLAIN], threads=2)
  want = take(whole, 12)
  whole.close()
  data = Healing(0, 40)
  iterator = iterate(builder, [data], [PLAIN], threads=2)
  got, state = [], iterator.get_state()
  with pytest.raises(RuntimeError, match="record 17"):
    while True:
      got.append(next(iterator))
      state = iterator.get_state()
  with pytest.raises(RuntimeError, match="record 17"):
    next(iterator)
  data.ill = False
  iterator.set_state(state)
  got += take(iterator, 12 - len(got))
  assert [packed.ids for packed in got] == [packed.ids for packed in want]
  iterator.close()


def test_closing_an_iterator_ends_its_threads(builder, no_thread_stays):
  iterator = iterate(builder, [Numbered(0, 40)], [PLAIN], threads=3)
  take(iterator, 3)
  assert threads()
  iterator.close()


def test_builders_are_what_threads_share(builder):
  """The one thing all threads hold is frozen."""
  with pytest.raises(dataclasses.FrozenInstanceError):
    builder.source = 1
