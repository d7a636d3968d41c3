"""One row of a batch while it is filled: what still fits, and where each frame goes."""

from collections.abc import Sequence
from typing import NamedTuple

from hulu_jax.data.lengths import Length
from hulu_jax.data.lengths import Medium
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape


class Run(NamedTuple):
  """Consecutive frames of one medium that lie side by side in one slot.

  start: first patch in the slot; number: of the first frame inside the slot, from 1.
  """

  group: int
  slot: int
  start: int
  number: int
  frames: int


Places = tuple[tuple[Run, ...], ...]  # per medium of a record


class Row:
  """Room left in one row.  A record goes in whole or not at all; it is never split over rows.

  patches: left per group.
  """

  def __init__(self, shape: StepShape):
    self._groups = shape.groups
    self.tokens, self.supervised, self.visual = shape.tokens, shape.supervised, shape.visual
    self.patches = [g.slots * g.size for g in shape.groups]
    self._used = [[0] * g.slots for g in shape.groups]
    self._held = [[0] * g.slots for g in shape.groups]  # frames

  def add(self, length: Length) -> Places | None:
    """Takes the record and says where its frames go; None, and nothing changes, without room."""
    counted = (
      length.tokens <= self.tokens
      and length.supervised <= self.supervised
      and length.visual <= self.visual
    )
    if not counted:
      return None
    places: list[tuple[Run, ...]] = []
    for medium in length.media:
      runs, left = self._place(medium)
      places.append(runs)
      if left:
        self._take_back(length.media, places)
        return None
    self.tokens -= length.tokens
    self.supervised -= length.supervised
    self.visual -= length.visual
    return tuple(places)

  def _place(self, medium: Medium) -> tuple[tuple[Run, ...], int]:
    """First fit over the slots of the fitting groups, in order; also how many frames are left."""
    left, runs = medium.frames, []
    for g in fitting(medium, self._groups):
      for slot, start in enumerate(self._used[g]):
        frames = min((self._groups[g].size - start) // medium.patches, left)
        if not frames:
          continue
        runs.append(Run(g, slot, start, self._held[g][slot] + 1, frames))
        self._change(runs[-1], medium.patches, 1)
        left -= frames
        if not left:
          return tuple(runs), 0
    return tuple(runs), left

  def _change(self, run: Run, patches: int, sign: int) -> None:
    self._used[run.group][run.slot] += sign * run.frames * patches
    self._held[run.group][run.slot] += sign * run.frames
    self.patches[run.group] -= sign * run.frames * patches

  def _take_back(self, media: Sequence[Medium], places: Sequence[Sequence[Run]]) -> None:
    for medium, runs in zip(media, places, strict=False):
      for run in runs:
        self._change(run, medium.patches, -1)


def fitting(medium: Medium, groups: Sequence[Group]) -> list[int]:
  """Groups that can hold the medium's frames, the closest first.

  Grey frames may also lie in colour slots (their channel three times: the same embeddings for
  three times the bytes), after all grey ones.
  """
  able = [
    i
    for i, g in enumerate(groups)
    if g.merge == medium.merge and g.channels >= medium.channels and g.size >= medium.patches
  ]
  if len(able) > 1:
    able.sort(key=lambda i: (groups[i].channels, groups[i].size))
  return able


_COUNTED = {
  "tokens": "tokens",
  "supervised": "supervised positions",
  "visual": "visual tokens",
}


def refusal(length: Length, shape: StepShape) -> str | None:
  """Why an empty row of this shape cannot hold the record, or None if it can."""
  for name, words in _COUNTED.items():
    found, most = length._asdict()[name], shape._asdict()[name]
    if found > most:
      return f"{found} {words}, the shape holds {most}"
  if Row(shape).add(length) is None:
    media = [tuple(m) for m in length.media]
    return f"media of (frames, patches, channels, merge) {media} do not fit {shape.groups}"
  return None
