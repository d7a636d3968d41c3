"""Which record comes when: datasets shuffled by epoch and mixed by weight, known by position."""

from collections.abc import Mapping, Sequence
from typing import Any

import grain

from hulu_jax.core import plugins
from hulu_jax.data.schema import Ref

# What an entry of a mixture says beside its dataset's own fields: which file of data/datasets/, how
# often, in random order or not, and what its metrics are called.
_MIXING = ("name", "weight", "shuffle", "label")


def sources(mixture: Sequence[Mapping[str, Any]]) -> list[Any]:
  """The mixture's datasets, each made from the fields of its entry."""
  found = []
  for entry in mixture:
    fields = {k: v for k, v in entry.items() if k not in _MIXING}
    found.append(plugins.load("hulu_jax.data.datasets", entry["name"]).Source(**fields))
  return found


def order(
  sizes: Sequence[int], mixture: Sequence[Mapping[str, Any]], seed: int
) -> grain.MapDataset:
  """Position -> Ref, for ever; every dataset in a new order each epoch, unless not shuffled.

  sizes: records of each dataset.
  """
  parts = []
  for number, (size, entry) in enumerate(zip(sizes, mixture, strict=True)):
    part = grain.MapDataset.range(size)
    if entry["shuffle"]:
      part = part.seed(seed + number).shuffle()
    parts.append(part.repeat().map(_Tag(number)))
  return grain.MapDataset.mix(parts, [entry["weight"] for entry in mixture])


class _Tag:
  """Says which dataset an index belongs to."""

  def __init__(self, source: int):
    self._source = source

  def __call__(self, index: int) -> Ref:
    return Ref(self._source, int(index))
