"""What is remembered of a record to find it again: hashes of its text and of its media, no more."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from hulu_jax.data import chat
from hulu_jax.data import examples
from hulu_jax.data import ngrams
from hulu_jax.data import picture_hash
from hulu_jax.data.picture_hash import Look
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media

# Lowest n-gram hashes kept of a record: enough for an overlap of 0.8 +- 0.05.
SKETCH = 64
# Parts of the range of hashes that are sorted one after the other.
_PARTS = 16
_WIDTH = (1 << 64) // _PARTS


class Marks(NamedTuple):
  """text: of all that is said but by the system; 0 for a record without text.

  asked: hashes of what the user says, each turn and all turns together, the latter last; grams:
  uint64, see `ngrams.hashes`; exact, looks: one per medium.
  """

  id: str
  text: int
  asked: tuple[int, ...]
  grams: np.ndarray
  exact: tuple[int, ...]
  looks: tuple[Look, ...]


def of(
  record: Mapping[str, Any] | BadRecord, read: Callable[[Mapping[str, Any]], Media], n: int
) -> Marks | BadRecord:
  """The marks of a record, or why it has none.  read: content item -> medium; n: words of a run."""
  try:
    name, messages = examples.conversation(record)
    items = [(m.get("role"), item) for m in messages for item in chat.content_items(m)]
    media = [read(item) for _, item in items if item["type"] in chat.MEDIA_TYPES]
  except BadRecord as bad:
    return bad
  except (ValueError, AttributeError) as error:
    return BadRecord("format", str(error))
  # A system's turn is a template: every record of a set has the same.
  said = [(r, item["text"]) for r, item in items if item["type"] == "text" and r != "system"]
  found = [w for _, text in said for w in ngrams.words(text)]
  turns = [ngrams.words(text) for role, text in said if role == "user"]
  together = [w for turn in turns for w in turn]
  return Marks(
    name,
    ngrams.whole(found) if found else 0,
    tuple(ngrams.whole(turn) for turn in [*turns, together] if turn),
    ngrams.hashes(found, n),
    tuple(map(picture_hash.digest, media)),
    tuple(map(picture_hash.look, media)),
  )


class Store:
  """Marks of many records as flat arrays of 8 bytes an entry; `bytes` of them in all.

  A record takes 8 bytes each for its text, its id and two offsets, 8 for each of at most SKETCH
  n-grams, and 16 for a medium and 16 for each of its 1 or 8 frames.
  """

  def __init__(self, keep_text: bool = True):
    """keep_text: False where texts are compared as they come, and only media are looked up."""
    self._keep_text = keep_text
    self._text, self._grams, self._exact = array("Q"), array("Q"), array("Q")
    self._low, self._high = array("Q"), array("Q")
    self._first_gram, self._first_medium = array("q", [0]), array("q", [0])
    self._first_frame = array("q", [0])

  def add(self, marks: Marks | BadRecord) -> None:
    """The next record; one that could not be read takes a place and matches nothing."""
    if isinstance(marks, Marks):
      if self._keep_text:
        self._text.append(marks.text)
        self._grams.extend(marks.grams[:SKETCH].tolist())
      self._exact.extend(marks.exact)
      for look in marks.looks:
        self._low.extend(look.low.tolist())
        self._high.extend(look.high.tolist())
        self._first_frame.append(len(self._low))
    elif self._keep_text:
      self._text.append(0)
    self._first_gram.append(len(self._grams))
    self._first_medium.append(len(self._exact))

  def __len__(self) -> int:
    return len(self._first_medium) - 1

  @property
  def bytes(self) -> int:
    """Of everything stored."""
    return sum(8 * len(a) for a in vars(self).values() if isinstance(a, array))

  @property
  def text(self) -> np.ndarray:
    """uint64 [records]"""
    return _view(self._text)

  @property
  def exact(self) -> np.ndarray:
    """uint64 [media]"""
    return _view(self._exact)

  @property
  def first_medium(self) -> np.ndarray:
    """int64 [records + 1], where the media of each record begin."""
    return np.frombuffer(self._first_medium, np.int64)

  def grams(self, record: int) -> np.ndarray:
    """uint64, the record's lowest n-gram hashes, sorted."""
    return _view(self._grams)[self._first_gram[record] : self._first_gram[record + 1]]

  def gram_parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """n-gram hashes in rising order with the record of each, a part at a time: sorting all at once
    takes several times what is stored."""
    values, first = _view(self._grams), np.frombuffer(self._first_gram, np.int64)
    for part in range(_PARTS):
      low, high = np.uint64(part * _WIDTH), np.uint64((part + 1) * _WIDTH - 1)
      index = np.flatnonzero((values >= low) & (values <= high))
      index = index[np.argsort(values[index], kind="stable")]
      yield values[index], np.searchsorted(first, index, "right") - 1

  def frames(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low and high hashes of all frames, and int64 [media + 1], where those of a medium begin."""
    return _view(self._low), _view(self._high), np.frombuffer(self._first_frame, np.int64)


def _view(values: array) -> np.ndarray:
  return np.frombuffer(values, np.uint64) if len(values) else np.zeros(0, np.uint64)


def stored(found: Iterable[Marks | BadRecord]) -> Store:
  """A store of these."""
  store = Store()
  for marks in found:
    store.add(marks)
  return store
