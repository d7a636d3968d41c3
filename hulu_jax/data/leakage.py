"""Which training records hold what a benchmark asks: its text, or its pictures, volumes or clips.

One medium that looks alike is a hit, and so is one run of words of the question and its answer:
both leak.  Short texts are compared whole, and only where neither side has media: "Is there a
fracture?" is asked about every radiograph.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
import dataclasses
from typing import NamedTuple

import numpy as np

from hulu_jax.data import looks as looks_lib
from hulu_jax.data.marks import Marks
from hulu_jax.data.marks import Store
from hulu_jax.media.errors import BadRecord

# Records of a benchmark that may always share an n-gram: questions about one text.
_FEW = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """bits: that may differ of a picture's 64; overlap: of a benchmark record's n-grams that make a
  hit, 0 for a single one; common: fraction of the benchmark's records that may share an n-gram
  before it is taken for a template and left out."""

  bits: int
  overlap: float
  common: float

  def __post_init__(self) -> None:
    if not 0 <= self.bits <= 16:
      raise ValueError(f"hamming = {self.bits}; expected 0 to 16 of 64 bits")
    for name in ("overlap", "common"):
      if not 0 <= vars(self)[name] <= 1:
        raise ValueError(f"{name} = {vars(self)[name]}; expected a fraction from 0 to 1")


class Hit(NamedTuple):
  """record: of the training set; other: of the benchmark.

  text: fraction of the benchmark record's n-grams that the record holds, 1 for equal texts or
  questions, None if the text is no hit.  bits: low bits that differ, None if no medium is a hit;
  exact: the medium is equal in every pixel.
  """

  record: int
  other: int
  text: float | None = None
  bits: float | None = None
  exact: bool = False


class Benchmark:
  """What training must not hold."""

  def __init__(self, found: Iterable[Marks | BadRecord], rule: Rule):
    self._rule = rule
    self._store = Store(keep_text=False)
    self._texts: dict[int, int] = {}
    grams, owners, total = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for number, marks in enumerate(found):
      self._store.add(marks)
      if isinstance(marks, BadRecord):
        continue
      total += 1
      grams.append(marks.grams)
      owners.append(np.full(len(marks.grams), number))
      if not marks.exact:
        for text in _texts(marks)[-2:]:
          self._texts.setdefault(text, number)
    self._index(np.concatenate(grams), np.concatenate(owners), total)

  def _index(self, grams: np.ndarray, owners: np.ndarray, total: int) -> None:
    order = np.argsort(grams, kind="stable")
    grams, owners = grams[order], owners[order]
    _, inverse, counts = np.unique(grams, return_inverse=True, return_counts=True)
    rare = counts[inverse] <= max(_FEW, self._rule.common * total)
    self._grams, self._owners = grams[rare], owners[rare]
    self._sizes = np.bincount(self._owners, minlength=len(self._store))
    self.templates = int((counts > max(_FEW, self._rule.common * total)).sum())

  def __len__(self) -> int:
    return len(self._store)

  def text(self, record: int, marks: Marks | BadRecord) -> Hit | None:
    """The benchmark record whose text this one holds most of; None if of none enough."""
    if isinstance(marks, BadRecord):
      return None
    if not marks.exact:
      for text in _texts(marks):
        if text in self._texts:
          return Hit(record, self._texts[text], text=1.0)
    low = np.searchsorted(self._grams, marks.grams, "left")
    high = np.searchsorted(self._grams, marks.grams, "right")
    owners: Counter[int] = Counter()
    for a, b in zip(low[high > low].tolist(), high[high > low].tolist(), strict=True):
      owners.update(self._owners[a:b].tolist())
    shares = {o: n / int(self._sizes[o]) for o, n in owners.items()}
    best = max(shares, key=lambda o: (shares[o], -o), default=None)
    if best is None or shares[best] < self._rule.overlap:
      return None
    return Hit(record, best, text=shares[best])

  def media(self, training: Store) -> Iterator[Hit]:
    """The nearest benchmark medium of every training record that has a near one."""
    left, right = (looks_lib.tables(*store.frames()) for store in (self._store, training))
    best: dict[int, Hit] = {}
    owners = [_owners(store) for store in (self._store, training)]
    for i, j, bits, exact in _near_media(left, right, self._rule.bits, self._store, training):
      hit = Hit(int(owners[1][j]), int(owners[0][i]), bits=bits, exact=exact)
      known = best.get(hit.record)
      if known is None or _rank(hit) < _rank(known):
        best[hit.record] = hit
    yield from (best[record] for record in sorted(best))


def _near_media(
  left: dict[int, looks_lib.Table],
  right: dict[int, looks_lib.Table],
  bits: int,
  benchmark: Store,
  training: Store,
) -> Iterator[tuple[int, int, float, bool]]:
  """(medium of the benchmark, medium of training, bits, equal pixels): near looks, equal digests.

  A look that several media of the benchmark share is answered by the first of them.
  """
  known = {int(d): i for i, d in reversed(list(enumerate(benchmark.exact.tolist())))}
  for j, digest in enumerate(training.exact.tolist()):
    if digest in known:
      yield known[digest], j, 0.0, True
  for frames in left.keys() & right.keys():
    near = looks_lib.across(left[frames], right[frames], bits)
    first = dict(
      reversed(list(zip(left[frames].look.tolist(), left[frames].media.tolist(), strict=True)))
    )
    order = np.argsort(right[frames].look, kind="stable")
    looks = right[frames].look[order]
    for a, b, apart in zip(*(x.tolist() for x in near), strict=True):
      own = order[np.searchsorted(looks, b, "left") : np.searchsorted(looks, b, "right")]
      for j in right[frames].media[own].tolist():
        yield first[a], j, apart, False


def _texts(marks: Marks) -> tuple[int, ...]:
  """Hashes of each turn and of all turns of the user, and of the whole; the last two are these."""
  return (*marks.asked, marks.text) if marks.asked else (marks.text,) * bool(marks.text)


def _owners(store: Store) -> np.ndarray:
  return np.repeat(np.arange(len(store)), np.diff(store.first_medium))


def _rank(hit: Hit) -> tuple[bool, float, int]:
  assert hit.bits is not None
  return not hit.exact, hit.bits, hit.other
