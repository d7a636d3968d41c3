"""Which record comes when: datasets shuffled by epoch and mixed by weight, known by position."""

from collections.abc import Mapping, Sequence
import difflib
import functools
import inspect
import math
from typing import Any

import grain
import numpy as np

from hulu_jax.core import plugins
from hulu_jax.data import kinds as kinds_lib
from hulu_jax.data.interleave import Turns
from hulu_jax.data.schema import Ref

# What an entry of a mixture says beside its dataset's own fields: which file of data/datasets/, how
# often, in random order or not, and what its metrics are called.
_NEEDED = ("name", "weight", "shuffle", "label")
# Which records of it, None for all; how often each of them, None for ever; and what one of its
# losses counts beside those of others, None for 1 (see `training.weighting`).
_OPTIONAL = ("kinds", "epochs", "loss_weight")
# Positions whose records are known for a while, between their planning and their building.
_REMEMBERED = 4096


def sources(mixture: Sequence[Mapping[str, Any]]) -> list[Any]:
  """The mixture's datasets, each made from the fields of its entry.

  Raises:
    ValueError: an entry that lacks a key, has one that its dataset does not know, or a value that
      cannot be meant.
  """
  for number, entry in enumerate(mixture):
    if missing := [key for key in _NEEDED if key not in entry]:
      raise ValueError(f"data.mixture[{number}] has no {', '.join(missing)}; found {[*entry]}")
  check(mixture)
  found = []
  for number, entry in enumerate(mixture):
    make = plugins.load(kinds_lib.DATASETS, entry["name"]).Source
    fields = {k: v for k, v in entry.items() if k not in _NEEDED + _OPTIONAL}
    _check_fields(make, fields, _title(number, entry))
    found.append(make(**fields))
  return found


def check(mixture: Sequence[Mapping[str, Any]]) -> None:
  """Raises ValueError for a weight, kinds or epochs that cannot be meant; names the entry."""
  if not mixture:
    raise ValueError("data.mixture is empty; expected at least one dataset")
  for number, entry in enumerate(mixture):
    said, weight, epochs = _title(number, entry), entry["weight"], entry.get("epochs")
    if not _is_number(weight) or not 0 < weight < math.inf:
      raise ValueError(
        f"{said}: weight = {weight!r}; expected a number above 0 (to leave a dataset out, take its "
        "entry away)"
      )
    if not isinstance(entry["shuffle"], bool):
      raise ValueError(f"{said}: shuffle = {entry['shuffle']!r}; expected True or False")
    if epochs is not None and not (isinstance(epochs, int) and _is_number(epochs) and epochs > 0):
      raise ValueError(f"{said}: epochs = {epochs!r}; expected 1 or more, or None for ever")
    counts = entry.get("loss_weight")
    if counts is not None and not (_is_number(counts) and 0 < counts < math.inf):
      raise ValueError(f"{said}: loss_weight = {counts!r}; expected a number above 0 (None: 1)")
    if entry.get("kinds") is not None:
      kinds_lib.check(entry["kinds"], said)


def ends(mixture: Sequence[Mapping[str, Any]]) -> bool:
  """Whether the mixture has a last record: every dataset has its `epochs`."""
  return all(entry.get("epochs") is not None for entry in mixture)


class Order:
  """Position -> Ref, a pure function; len() is `sys.maxsize` where the mixture never ends."""

  def __init__(
    self,
    turns: Turns,
    parts: Sequence[grain.MapDataset],
    chosen: Sequence[np.ndarray | None],
    positions: range,
  ):
    """parts: of each dataset, turn -> index among its chosen records; chosen: the numbers of those
    in the dataset, None for all; positions: the turns that are taken."""
    self._turns, self._parts, self._chosen, self._positions = turns, parts, chosen, positions
    # Grain's shuffle takes 0.5 ms for a record of a small dataset, and each is asked for twice.
    self._found = functools.lru_cache(_REMEMBERED)(self._find)

  def __len__(self) -> int:
    return len(self._positions)

  def __getitem__(self, position: int) -> Ref:
    return self._found(position)

  def _find(self, position: int) -> Ref:
    source, turn = self._turns[self._positions[position]]
    index, chosen = int(self._parts[source][turn]), self._chosen[source]
    return Ref(source, index if chosen is None else int(chosen[index]))

  def shard(self, number: int, shards: int) -> "Order":
    """Every `shards`-th position, from `number` on."""
    return Order(self._turns, self._parts, self._chosen, self._positions[number::shards])


def order(datasets: Sequence[Any], mixture: Sequence[Mapping[str, Any]], seed: int) -> Order:
  """The mixture's records; every dataset in a new order each epoch, unless not shuffled.

  Raises:
    ValueError: as `check` and `selected`.
  """
  check(mixture)
  chosen = selected(datasets, mixture)
  sizes = records(datasets, chosen)
  parts, totals = [], []
  for number, (size, entry) in enumerate(zip(sizes, mixture, strict=True)):
    part = grain.MapDataset.range(size)
    if entry["shuffle"]:
      part = part.seed(seed + number).shuffle()
    parts.append(part.repeat())
    epochs = entry.get("epochs")
    totals.append(None if epochs is None else epochs * size)
  turns = Turns([entry["weight"] for entry in mixture], totals)
  return Order(turns, parts, chosen, range(len(turns)))


def records(datasets: Sequence[Any], chosen: Sequence[np.ndarray | None]) -> list[int]:
  """How many records of each dataset take part."""
  return [len(d) if c is None else len(c) for d, c in zip(datasets, chosen, strict=True)]


def selected(
  datasets: Sequence[Any], mixture: Sequence[Mapping[str, Any]]
) -> list[np.ndarray | None]:
  """Of each dataset the numbers of the records that take part, int64 and rising; None for all.

  Raises:
    ValueError: kinds that are not known, or of which there is no record; a dataset without any.
  """
  found = []
  for number, (dataset, entry) in enumerate(zip(datasets, mixture, strict=True)):
    said, kinds = _title(number, entry), entry.get("kinds")
    if not len(dataset):
      raise ValueError(f"{said}: no records")
    found.append(None if kinds is None else kinds_lib.choose(dataset, entry["name"], kinds, said))
  return found


def _check_fields(make: Any, fields: Mapping[str, Any], said: str) -> None:
  takes = inspect.signature(make).parameters
  own = f"its fields are {', '.join(takes)}" if takes else "it has no fields of its own"
  for key in fields:
    if key not in takes:
      close = difflib.get_close_matches(key, [*takes, *_NEEDED, *_OPTIONAL], n=1)
      hint = f"did you mean {close[0]!r}? " if close else ""
      raise ValueError(
        f"{said}: unknown key {key!r}; {hint}{own}, beside {', '.join(_NEEDED + _OPTIONAL)}"
      )
  lacking = [k for k, p in takes.items() if p.default is p.empty and k not in fields]
  if lacking:
    raise ValueError(f"{said} has no {', '.join(lacking)}; {own}")


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _title(number: int, entry: Mapping[str, Any]) -> str:
  return f"data.mixture[{number}] ({entry['label']!r})"
