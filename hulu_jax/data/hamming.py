"""Pairs of 64-bit hashes that differ in few bits, found without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index
Hashing", 2012): of d + k blocks of bits, two hashes that differ in d bits agree in some k.
"""

from collections.abc import Iterator
import itertools

import numpy as np

# Comparisons a hash that are worth more blocks, and the most blocks a key may have.
_ENOUGH, _MOST = 64, 4
# Comparisons made at once.
_CHUNK = 1 << 21


def pairs(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
  """Indices (i, j), i < j, of all hashes at most `bits` apart.  values: uint64 [n], all different:
  equal ones would be n * n pairs."""
  return _search(values, None, bits)


def across(left: np.ndarray, right: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
  """Indices (i of left, j of right) of all hashes at most `bits` apart, equal ones too.

  left, right: uint64, each all different.
  """
  return _search(left, right, bits)


def _search(left: np.ndarray, right: np.ndarray | None, bits: int) -> tuple[np.ndarray, np.ndarray]:
  masks = _masks(left, right, bits)
  width = max(len(left) if right is None else len(right), 1)
  found = [np.zeros(0, np.int64)]
  for mask in masks:
    for i, j in _joined(left, right, mask):
      other = left if right is None else right
      near = np.bitwise_count(left[i] ^ other[j]) <= bits
      found.append(np.minimum(i, j)[near] * width + np.maximum(i, j)[near] if right is None
                   else i[near] * width + j[near])  # fmt: skip
  i, j = np.divmod(np.unique(np.concatenate(found)), width)
  return i, j


def _masks(left: np.ndarray, right: np.ndarray | None, bits: int) -> list[np.uint64]:
  """Bits to agree in, of which one mask suits every near pair; longer keys where hashes crowd."""
  total = len(left) + (0 if right is None else len(right))
  for k in range(1, _MOST + 1):
    edges = [64 * b // (bits + k) for b in range(bits + k + 1)]
    blocks = [(1 << high) - (1 << low) for low, high in itertools.pairwise(edges)]
    masks = [np.uint64(sum(chosen)) for chosen in itertools.combinations(blocks, k)]
    compared = sum(int((hi - lo).sum()) for lo, hi in (_ranges(left, right, m)[1:] for m in masks))
    if compared <= _ENOUGH * total:
      break
  return masks


def _ranges(
  left: np.ndarray, right: np.ndarray | None, mask: np.uint64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Order of the right hashes by key, and for each left one where those of its key begin and end.

  Without a right side the left one is meant, in its order, each followed by the rest of its key.
  """
  if right is None:
    keys = left & mask
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    return order, np.arange(1, len(left) + 1), np.searchsorted(sorted_keys, sorted_keys, "right")
  keys = right & mask
  order = np.argsort(keys, kind="stable")
  wanted = left & mask
  low = np.searchsorted(keys[order], wanted, "left")
  return order, low, np.searchsorted(keys[order], wanted, "right")


def _joined(
  left: np.ndarray, right: np.ndarray | None, mask: np.uint64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Indices of hashes with one key, a chunk at a time."""
  order, low, high = _ranges(left, right, mask)
  sizes = high - low
  ends = np.cumsum(sizes)
  start = 0
  while start < len(sizes):
    before = ends[start] - sizes[start]
    stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, "right")))
    each = sizes[start:stop]
    who = np.repeat(np.arange(start, stop), each)
    where = np.arange(len(who)) - np.repeat(np.cumsum(each) - each, each) + low[who]
    yield (order[who] if right is None else who), order[where]
    start = stop
