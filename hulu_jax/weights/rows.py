"""Values on their way: cast, and kept from carrying NaN out of vocabulary rows that nobody uses.

The original code multiplies the row of the image token by 0, which a NaN survives.
"""

from collections.abc import Iterator
import dataclasses
import os

import numpy as np

from hulu_jax.weights.sources import Item
from hulu_jax.weights.sources import Source

_TABLES = ("decoder/embed", "decoder/head")


@dataclasses.dataclass(frozen=True)
class Rows:
  """used: ids the tokenizer has, the others' rows may be anything; None where it is not known.

  image: the id whose embedding is always replaced.  notes: what was done, a line each.
  """

  used: int | None
  image: int | None
  notes: list[str]

  def untouched(self, place: tuple[int, int, int], source: Source, item: Item) -> bool:
    """Whether a tensor, stored at (open file, first byte, bytes), passes through as it is."""
    if source.dtype(item.path, item.layer) != item.dtype:
      return False
    return item.path not in _TABLES or _clean_file(*place, item.dtype)

  def blocks(self, source: Source, item: Item) -> Iterator[np.ndarray]:
    """The tensor's values in `item.dtype`.

    Raises:
      ValueError: NaN or infinity in a row of the vocabulary that is used.
    """
    table = item.path in _TABLES
    width = item.entry.shape[-1] if table else 1
    first, cleared = 0, 0
    for block in source.blocks(item.path, item.layer, width):
      if table and not _clean(block):
        bad = np.flatnonzero(~np.isfinite(block).reshape(-1, width).all(axis=1))
        block = self._without(block, bad, first, width, item)
        cleared += len(bad)
      first += len(block) // width
      yield block if block.dtype == item.dtype else _cast(block, item)
    if cleared:
      self.notes.append(
        f"{item.entry.name}: NaN or infinity in {cleared} rows of unused ids, written as zeros"
      )

  def _without(
    self, block: np.ndarray, bad: np.ndarray, first: int, width: int, item: Item
  ) -> np.ndarray:
    ids = bad + first
    spare = ids == self.image if item.path == _TABLES[0] else np.zeros(len(ids), bool)
    if self.used is not None:
      spare |= ids >= self.used
    if not spare.all():
      known = "no tokenizer says which ids are used" if self.used is None else "they are used"
      listed = ", ".join(map(str, ids[~spare][:12]))
      raise ValueError(
        f"{item.entry.name}: NaN or infinity in the rows of the ids {listed}, and {known}"
      )
    block = block.copy().reshape(-1, width)
    block[bad] = 0
    return block.reshape(-1)


def _clean_file(descriptor: int, start: int, size: int, dtype: np.dtype) -> bool:
  buffer = np.zeros(1 << 20, np.uint8)
  end = start + size
  while start < end:
    got = os.preadv(descriptor, [buffer[: end - start].data], start)
    whole = got - got % dtype.itemsize
    if not whole or not _clean(buffer[:whole].view(dtype)):
      return False
    start += whole
  return True


def _clean(block: np.ndarray) -> bool:
  """Whether all are finite, told by the largest bit patterns of both signs: two quick passes.

  A float's exponent stands above its fraction, so NaN and infinity have the largest patterns.
  """
  bits = {2: (np.int16, np.uint16), 4: (np.int32, np.uint32), 8: (np.int64, np.uint64)}
  largest = np.array([np.inf, -np.inf], block.dtype)
  return not len(block) or all(
    block.view(kind).max() < limit.view(kind)
    for kind, limit in zip(bits[block.dtype.itemsize], largest, strict=True)
  )


def _cast(block: np.ndarray, item: Item) -> np.ndarray:
  with np.errstate(over="ignore"):
    out = block.astype(item.dtype)
  if item.dtype == np.float16 and np.isinf(out).any() and not np.isinf(block).any():
    raise ValueError(f"{item.entry.name} holds numbers too large for float16; choose bfloat16")
  return out
