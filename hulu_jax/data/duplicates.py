"""Which records repeat an earlier one: text by runs of words, media by how they look.

A template ("Describe this image.") repeats in every record, so a record with media is a duplicate
where media AND text agree, one without where its text does.  The first of a group stays; a record
goes only if one that stays is like it, so likeness is not handed on from record to record.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from hulu_jax.data import looks as looks_lib
from hulu_jax.data import marks
from hulu_jax.data import ngrams
from hulu_jax.data.marks import Store

BY = ("both", "picture", "text")
# Pairs of records with one look that are compared one by one; of more, only equal texts are found.
_PAIRS = 10_000
_LAST = (1 << 64) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """by: what must agree, one of BY; bits: that may differ of a picture's 64; overlap: of n-grams, a
  fraction; common: records that may share an n-gram before it is taken for a template."""

  by: str
  bits: int
  overlap: float
  common: int

  def __post_init__(self) -> None:
    if self.by not in BY:
      raise ValueError(f"by = {self.by!r}; expected one of {', '.join(BY)}")
    if not 0 <= self.bits <= 16:
      raise ValueError(f"hamming = {self.bits}; expected 0 to 16 of 64 bits")
    if not 0 < self.overlap <= 1:
      raise ValueError(f"overlap = {self.overlap}; expected a fraction above 0, at most 1")
    if self.common < 2:
      raise ValueError(f"common = {self.common}; expected 2 records or more")


class Pair(NamedTuple):
  """kept, dropped: numbers of records.  text: fraction of n-grams shared, 1 for equal words, None
  if not compared.  bits: low bits that differ in the most different medium, None if not compared.
  exact: the media are equal in every pixel."""

  kept: int
  dropped: int
  text: float | None
  bits: float | None
  exact: bool


def find(store: Store, rule: Rule) -> list[Pair]:
  """One pair for every record that repeats an earlier one, in order of the records that go."""
  search = _Search(store, rule)
  first, group = search.groups()
  keeper: dict[int, Pair] = {}
  edges: dict[int, list[Pair]] = {}
  for pair in search.near(first):
    edges.setdefault(pair.dropped, []).append(pair)
  for record in sorted(edges):
    ways = [p for p in sorted(edges[record], key=_order) if p.kept not in keeper]
    if ways:
      keeper[record] = ways[0]
  for record in np.flatnonzero(group >= 0).tolist():
    head = int(first[group[record]])
    if record != head:
      keeper[record] = search.member(record, head, keeper.get(head))
  return [keeper[record] for record in sorted(keeper)]


def _order(pair: Pair) -> int:
  return pair.kept


class _Search:
  """What `find` looks up."""

  def __init__(self, store: Store, rule: Rule):
    self._store, self._rule = store, rule
    self._text, self._exact, self._first = store.text, store.exact, store.first_medium
    self._look, self._keys, self._near = _looks(store, rule)
    self._templates = self._grams = np.zeros(0, np.uint64)
    self._holders = np.zeros(0, np.int64)

  def groups(self) -> tuple[np.ndarray, np.ndarray]:
    """First record of each group of like records, and the group of each record, -1 for none."""
    media = np.diff(self._first)
    key = np.zeros(len(media), np.uint64)
    if self._rule.by != "text":
      owner = np.repeat(np.arange(len(media)), media)
      place = np.arange(len(owner)) - self._first[owner]
      np.add.at(key, owner, ngrams.mixed(ngrams.mixed(self._keys) + place.astype(np.uint64)))
      key += ngrams.mixed(media.astype(np.uint64))
    if self._rule.by != "picture":
      key += self._text
    has_text = self._text != 0
    able = {"both": has_text | (media > 0), "picture": media > 0, "text": has_text}[self._rule.by]
    records = np.flatnonzero(able)
    _, first, inverse = np.unique(key[records], return_index=True, return_inverse=True)
    group = np.full(len(media), -1, np.int64)
    group[records] = inverse
    return records[first], group

  def near(self, heads: np.ndarray) -> Iterator[Pair]:
    """Pairs of heads of groups that are like one another, kept < dropped."""
    heads = np.sort(heads)
    media = np.diff(self._first)[heads] > 0
    if self._rule.by != "picture":
      self._index(heads)
    if self._rule.by == "text":
      yield from self._by_text(heads)
      return
    if self._rule.by == "both":
      yield from self._by_text(heads[~media])
    yield from self._by_media(heads[media])

  def member(self, record: int, head: int, gone: Pair | None) -> Pair:
    """Why a record goes whose group's head is `head`, itself gone or not."""
    compared = self._rule.by != "text" and self._first[record] < self._first[record + 1]
    text = None if self._rule.by == "picture" else 1.0
    if gone is not None:
      return gone._replace(dropped=record, exact=compared and self._same_pixels(gone.kept, record))
    exact = compared and self._same_pixels(head, record)
    return Pair(head, record, text, 0.0 if compared else None, exact)

  def _index(self, heads: np.ndarray) -> None:
    """n-grams that several heads hold, sorted, with the record of each; and the templates."""
    is_head = np.zeros(len(self._text), bool)
    is_head[heads] = True
    templates, grams, holders = [], [], []
    for values, records in self._store.gram_parts():
      own = is_head[records]
      values, records = values[own], records[own]
      new = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
      counts = np.diff(np.append(new, len(values)))
      templates.append(values[new[counts > self._rule.common]])
      useful = np.repeat((counts > 1) & (counts <= self._rule.common), counts)
      grams.append(values[useful])
      holders.append(records[useful])
    self._templates, self._grams = np.concatenate(templates), np.concatenate(grams)
    self._holders = np.concatenate(holders)

  def _by_text(self, heads: np.ndarray) -> Iterator[Pair]:
    """Through every n-gram that few records hold."""
    use = np.isin(self._holders, heads)
    values, records = self._grams[use], self._holders[use]
    found = [np.zeros(0, np.int64)]
    for apart in range(1, self._rule.common):
      same = np.flatnonzero(values[apart:] == values[:-apart])
      if not len(same):
        break
      found.append(np.unique(records[same] * len(self._text) + records[same + apart]))
    for packed in np.unique(np.concatenate(found)).tolist():
      kept, dropped = divmod(packed, len(self._text))
      share = self._overlap(kept, dropped)
      if share >= self._rule.overlap:
        yield Pair(kept, dropped, share, None, False)

  def _by_media(self, heads: np.ndarray) -> Iterator[Pair]:
    """Through the look of each record's first medium."""
    look = self._look[self._first[heads]]
    members: dict[int, list[int]] = {}
    for own, head in zip(look.tolist(), heads.tolist(), strict=True):
      members.setdefault(own, []).append(head)
    same = ((own, own) for own in members)
    for a, b in itertools.chain(same, self._near):
      if a in members and b in members:
        yield from self._like(members[a], members[b])

  def _like(self, left: list[int], right: list[int]) -> Iterator[Pair]:
    if len(left) * len(right) <= _PAIRS:
      candidates: Iterable[tuple[int, int]] = itertools.product(left, right)
    else:
      candidates = self._with_one_text(left, right)
    for a, b in candidates:
      if left is not right or a < b:
        pair = self._compared(min(a, b), max(a, b))
        if pair is not None:
          yield pair

  def _with_one_text(self, left: list[int], right: list[int]) -> Iterator[tuple[int, int]]:
    """The first of either side for every text: the others are members of its group."""
    by_text: dict[int, int] = {}
    for record in reversed(left):
      by_text[int(self._text[record])] = record
    for record in right:
      if int(self._text[record]) in by_text:
        yield by_text[int(self._text[record])], record

  def _compared(self, kept: int, dropped: int) -> Pair | None:
    bits = self._media_bits(kept, dropped)
    if bits is None:
      return None
    exact = self._same_pixels(kept, dropped)
    if self._rule.by == "picture":
      return Pair(kept, dropped, None, bits, exact)
    equal = self._text[kept] == self._text[dropped]
    share = 1.0 if equal else self._overlap(kept, dropped)
    return Pair(kept, dropped, share, bits, exact) if share >= self._rule.overlap else None

  def _media_bits(self, a: int, b: int) -> float | None:
    """Bits that differ in the most different medium, None if the media are not alike."""
    here, there = range(*self._first[a : a + 2]), range(*self._first[b : b + 2])
    if len(here) != len(there):
      return None
    worst = 0.0
    for i, j in zip(here, there, strict=True):
      if self._keys[i] == self._keys[j]:
        continue
      left, right = sorted((int(self._look[i]), int(self._look[j])))
      bits = self._near.get((left, right))
      if bits is None:
        return None
      worst = max(worst, bits)
    return worst

  def _same_pixels(self, a: int, b: int) -> bool:
    first, exact = self._first, self._exact
    return np.array_equal(exact[first[a] : first[a + 1]], exact[first[b] : first[b + 1]])

  def _overlap(self, a: int, b: int) -> float:
    found = [self._store.grams(record) for record in (a, b)]
    cut = [int(grams[-1]) for grams in found if len(grams) == marks.SKETCH]
    left, right = (grams[~np.isin(grams, self._templates)] for grams in found)
    return ngrams.overlap(left, right, min(cut, default=_LAST))


def _looks(
  store: Store, rule: Rule
) -> tuple[np.ndarray, np.ndarray, Mapping[tuple[int, int], float]]:
  """Per medium the number of its look and a key, equal where media are alike without a bit's
  difference; and bits apart by (left, right) look of near ones.

  A medium without content looks like every other: its key is its digest.
  """
  low, high, first = store.frames()
  look = np.zeros(len(first) - 1, np.int64)
  near: dict[tuple[int, int], float] = {}
  start = 0
  for table in looks_lib.tables(low, high, first).values():
    look[table.media] = start + table.look
    if rule.by != "text":
      found = looks_lib.pairs(table, rule.bits)
      ends = (found.left + start).tolist(), (found.right + start).tolist()
      near.update(zip(zip(*ends, strict=True), found.bits.tolist(), strict=True))
    start += len(table.hashes.low)
  seen = np.zeros(len(look), bool)
  owner = np.repeat(np.arange(len(look)), np.diff(first))
  np.logical_or.at(seen, owner, low != 0)
  return look, np.where(seen, look.astype(np.uint64), store.exact), near
