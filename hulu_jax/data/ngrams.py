"""Text as hashes of runs of words, alike for texts that differ in case, punctuation or spacing."""

from collections.abc import Sequence
import functools
import hashlib
import unicodedata

import numpy as np

# Scripts written without spaces, of which every character counts as a word: Thai, Lao, Tibetan,
# Burmese; Khmer; Chinese and Japanese (their compatibility and later blocks too).
_NO_SPACES = (
  (0x0E00, 0x109F),
  (0x1780, 0x17FF),
  (0x2E80, 0x9FFF),
  (0xF900, 0xFAFF),
  (0x20000, 0x3FFFF),
)
# Odd constants: the golden ratio's bits, and those of splitmix64 (Steele et al., 2014).
_BASE, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def words(text: str) -> list[str]:
  """Words without case and punctuation (NFKC, casefold), in order.

  Signs of mathematics (+ < = >) stay, as words of their own: "HER2+" is not "HER2-".
  """
  folded = unicodedata.normalize("NFKC", text.casefold())
  return "".join(map(_shown, folded)).split()


@functools.lru_cache(maxsize=1 << 16)
def _shown(character: str) -> str:
  """A character as part of a word, as a word of its own, or as a space."""
  category = unicodedata.category(character)
  apart = category == "Sm" or any(a <= ord(character) <= b for a, b in _NO_SPACES)
  if category[0] in "PZC" or (category[0] == "S" and not apart):
    return " "
  return f" {character} " if apart else character


def whole(found: Sequence[str]) -> int:
  """64 bits that stand for all the words in their order."""
  return _digest(" ".join(found))


def hashes(found: Sequence[str], n: int) -> np.ndarray:
  """uint64 [runs]: every run of `n` words once, sorted; empty for fewer than `n` words."""
  if len(found) < n:
    return np.zeros(0, np.uint64)
  each = np.array([_word(w) for w in found], np.uint64)
  runs = len(each) - n + 1
  total = np.zeros(runs, np.uint64)
  for k in range(n):  # a polynomial modulo 2**64: arithmetic of uint64 wraps
    total = total * np.uint64(_BASE) + each[k : k + runs]
  return np.unique(mixed(total))


@functools.lru_cache(maxsize=1 << 18)
def _word(word: str) -> int:
  return _digest(word)


def _digest(text: str) -> int:
  data = text.encode("utf-8", "surrogatepass")
  return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def mixed(x: np.ndarray) -> np.ndarray:
  """splitmix64's last steps: the lowest hashes are then a fair sample."""
  x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2)
  return x ^ (x >> np.uint64(31))


def overlap(a: np.ndarray, b: np.ndarray, limit: int) -> float:
  """Runs that two texts share over the runs of either (Jaccard), counted up to the hash `limit`.

  a, b: uint64, of `hashes`, whole up to `limit`.  Exact where they are whole; from the lowest k
  hashes of texts it is estimated with a standard error of at most 0.5 / sqrt(k) (bottom-k sketches;
  Cohen and Kaplan, 2007).
  """
  a, b = a[a <= np.uint64(limit)], b[b <= np.uint64(limit)]
  shared = len(np.intersect1d(a, b, assume_unique=True))
  either = len(a) + len(b) - shared
  return shared / either if either else 0.0
