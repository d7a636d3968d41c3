"""What happens to a record that is too long for every step shape: its media shrink, never its text.

The rule, in this order; each step only if the one before was not enough.

1. Volumes and clips lose frames, evenly, first and last kept: the longest first, until it fits, but
   none goes below `FEWEST`.  Each frame keeps the size it had.
2. With `FEWEST` frames each, all media shrink alike: the policy's `max_tokens` is lowered as little
   as it takes, at most to its `min_tokens` for each frame.  Then volumes and clips get back as many
   frames as fit at that size.

The search tries whole numbers by halves, so it is quick and always ends the same way.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
from typing import TypeVar

from hulu_jax.data import vision
from hulu_jax.data.schema import Example
from hulu_jax.data.vision import Fitted
from hulu_jax.data.vision import Policy
from hulu_jax.media import sampling
from hulu_jax.media.types import Media

FEWEST = 8  # frames of a volume or clip
WHAT = ("frames", "resolution")  # what a record can lose

_AnyMedia = TypeVar("_AnyMedia", bound=Media)
Fits = Callable[[Sequence[Fitted]], bool]


@dataclasses.dataclass(frozen=True)
class Cut:
  """How one record is cut.

  policy: that it is shown by.  fits: whether some step shape takes the record with these media.
  loose: per medium, whether it may lose frames; a medium among what is learnt may not.
  """

  policy: Policy
  fits: Fits
  loose: Sequence[bool]

  def __call__(
    self, media: Sequence[Media], again: Callable[[], Sequence[Media]]
  ) -> tuple[Fitted, ...] | None:
    """The media as they fit, or None if the rule does not get them to.

    again: the media at the size of their files, where `media` are `Fitted`; asked for only if the
    resolution must go down.

    Raises:
      ValueError: as `vision.sizes`.
    """
    whole = vision.fit(media, self.policy)
    most = max((len(m.frames) for m, ok in zip(whole, self.loose, strict=True) if ok), default=0)
    count = _largest(FEWEST, most - 1, lambda n: self.fits(self._fewer(whole, n)))
    if count is not None:
      return self._fewer(whole, count)
    return self._smaller(again(), max(most, FEWEST))

  def _fewer(self, media: Sequence[Fitted], most: int) -> tuple[Fitted, ...]:
    return tuple(
      dataclasses.replace(fewer(m, most), counted=_counted(m)) if ok and len(m.frames) > most else m
      for m, ok in zip(media, self.loose, strict=True)
    )

  def _smaller(self, media: Sequence[Media], most: int) -> tuple[Fitted, ...] | None:
    if any(isinstance(m, Fitted) for m in media):  # prepared: the rule was tried on their files
      return None
    least = max(self.policy.min_tokens, 1) * sum(_counted(m) for m in media)
    top = self.policy.max_tokens - 1
    # Below some number a side would shrink to nothing.
    least = _smallest(least, top, lambda n: self._has_sizes(media, n))
    tokens = _largest(least, top, lambda n: self.fits(self._shown(media, n, FEWEST)))
    if tokens is None:
      return None
    count = _largest(FEWEST, most, lambda n: self.fits(self._shown(media, tokens, n)))
    return self._shown(media, tokens, count or FEWEST)

  def _has_sizes(self, media: Sequence[Media], tokens: int) -> bool:
    try:
      vision.sizes(media, self._lowered(tokens))
    except ValueError:
      return False
    return True

  def _lowered(self, tokens: int) -> Policy:
    return dataclasses.replace(self.policy, max_tokens=tokens)

  def _shown(self, media: Sequence[Media], tokens: int, most: int) -> tuple[Fitted, ...]:
    """Sizes are those that `tokens` leave to all frames, so that fewer frames are not larger."""
    sizes = vision.sizes(media, self._lowered(tokens))
    return tuple(
      dataclasses.replace(
        vision.fitted(fewer(m, most) if ok else m, size), counted=_counted(m), max_tokens=tokens
      )
      for m, ok, size in zip(media, self.loose, sizes, strict=True)
    )


def fewer(medium: _AnyMedia, most: int) -> _AnyMedia:
  """A volume or clip with `most` of its frames, evenly; the first and last, if `most` > 1."""
  count = len(medium.frames)
  taken = sampling.by_count(count, most)
  if len(taken) == count:
    return medium
  places = range(count) if medium.slices is None else medium.slices
  spacing, times = medium.spacing_mm, medium.timestamps
  wider = (count - 1) / max(len(taken) - 1, 1)
  return dataclasses.replace(
    medium,
    frames=medium.frames[taken],
    slices=tuple(int(places[k]) for k in taken),
    timestamps=None if times is None else tuple(times[k] for k in taken),
    spacing_mm=None if spacing is None else (spacing[0] * wider, *spacing[1:]),
    notes=(*medium.notes, f"{len(taken)} of {count} frames kept: more fit no step shape"),
  )


def said(media: Iterable[Media]) -> tuple[str, ...]:
  """What these media have lost, of `WHAT`."""
  known = [m for m in media if isinstance(m, Fitted)]
  frames = any(m.counted is not None and m.counted > len(m.frames) for m in known)
  smaller = any(m.max_tokens is not None for m in known)
  return tuple(what for what, lost in zip(WHAT, (frames, smaller), strict=True) if lost)


def counts(examples: Sequence[Example]) -> dict[str, int]:
  """How many of these records were cut, in all and by what they lost."""
  split = {f"cut/{what}": sum(what in e.cut for e in examples) for what in WHAT}
  return {"cut": sum(bool(e.cut) for e in examples), **split}


def _counted(medium: Media) -> int:
  known = medium.counted if isinstance(medium, Fitted) else None
  return len(medium.frames) if known is None else known


def _largest(low: int, high: int, ok: Callable[[int], bool]) -> int | None:
  """The largest number from low to high that is `ok`, if all below it are; None if `low` is not."""
  if low > high or not ok(low):
    return None
  while low < high:
    middle = (low + high + 1) // 2
    low, high = (middle, high) if ok(middle) else (low, middle - 1)
  return low


def _smallest(low: int, high: int, ok: Callable[[int], bool]) -> int:
  """The smallest number from low to high that is `ok`, if all above it are; else past `high`."""
  while low <= high:
    middle = (low + high) // 2
    low, high = (low, middle - 1) if ok(middle) else (middle + 1, high)
  return low
