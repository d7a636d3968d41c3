"""Which of the states that shards saved another set of shards goes on from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def pick(saved: Sequence[Mapping[str, Any]], shard: tuple[int, int]) -> dict[str, Any]:
  """The state for a shard (number, of how many), from those of all shards of a checkpoint.

  On as many shards as before each gets its own.  On another number a plan is the same for all, and
  the bad records that they met are added up and shared out evenly, since each judges its share.
  States without a plan do not fit another number: the iterator refuses them.

  Raises:
    ValueError: the state of a shard is missing.
  """
  before = {state["shard"][0]: state for state in saved}
  count = max(state["shard"][1] for state in saved) if saved else 1
  if missing := sorted(set(range(count)) - before.keys()):
    raise ValueError(f"the checkpoint lacks the data state of shards {missing} of {count}")
  number, shards = shard
  if shards == count:
    return dict(before[number])
  met: Counter[str] = Counter()
  for state in before.values():
    met.update(state["bad"])
  shares = {what: n // shards + (number < n % shards) for what, n in met.items()}
  return {**before[0], "bad": {what: n for what, n in shares.items() if n}}
