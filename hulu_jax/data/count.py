"""How many steps a mixture that ends gives: what its plan makes of the stored lengths."""

from collections.abc import Sequence
import sys
from typing import Protocol

from hulu_jax.data.lengths import Length
from hulu_jax.data.lengths import Lengths
from hulu_jax.data.plan import Planner
from hulu_jax.data.schema import Ref
from hulu_jax.data.schema import StepShape


class Order(Protocol):
  """Which record comes when: `mixture.Order`, without what it imports."""

  def __len__(self) -> int: ...

  def __getitem__(self, position: int) -> Ref: ...


def steps(
  order: Order,
  lengths: Sequence[Lengths],
  shapes: Sequence[StepShape],
  lookahead: int,
  patience: int,
) -> int:
  """Steps until the last record, as `pipeline.train_iterator` makes them; some 30 to 40 s for a
  million records.

  lengths: by dataset; shapes: with the rows of all shards.

  Raises:
    ValueError: an order that never ends.
  """
  if len(order) == sys.maxsize:
    raise ValueError("a mixture that never ends has no number of steps: give each entry `epochs`")

  def length(position: int) -> Length | None:
    ref = order[position]
    return lengths[ref.source][ref.record]

  def refuse(position: int, reason: str) -> None:
    """The run will count it: here only steps matter."""

  planner = Planner(length, shapes, lookahead, patience, refuse, len(order))
  found = 0
  while next(planner, None) is not None:
    found += 1
  return found
