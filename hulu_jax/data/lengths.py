"""How much room records take in a batch: all that packing needs to know, without any pixels."""

from collections.abc import Iterable, Sequence
import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Visual


class Medium(NamedTuple):
  """One picture, volume or clip: `frames` frames of `patches` patches each.

  Of a pruned one, consecutive frames that keep equally many: it is as many of these as it takes.
  """

  frames: int
  patches: int
  channels: int
  merge: int


class Length(NamedTuple):
  """One record.  tokens: after compression; supervised: positions with a loss; visual: kept visual
  tokens; media: in order."""

  tokens: int
  supervised: int
  visual: int
  media: tuple[Medium, ...]


def encoded(visual: Visual) -> tuple[Medium, ...]:
  """What of an entry goes through the encoder, in order: all of it, or only what is kept."""
  frames, patches = visual.patches.shape[:2]
  if not visual.pruned:
    return (Medium(frames, patches, visual.channels, visual.merge),)
  kept = np.count_nonzero(visual.keep, axis=1)
  starts = np.flatnonzero(np.diff(kept, prepend=-1))
  runs = np.diff(starts, append=frames)
  sizes = kept[starts] * visual.merge**2
  return tuple(
    Medium(int(run), int(size), visual.channels, visual.merge)
    for run, size in zip(runs, sizes, strict=True)
  )


def of(example: Example) -> Length:
  """The length of a built example."""
  return Length(
    tokens=len(example.tokens),
    supervised=int(np.count_nonzero(example.weights[1:])),
    visual=len(example.visual_positions),
    media=tuple(m for v in example.visuals for m in encoded(v)),
  )


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Lengths of many records, as arrays: 16.7 million of them take about 600 MB.

  tokens, supervised, visual: int32 [records].
  first: int64 [records + 1], where the media of each record begin in `media`.
  media: int32 [media of all records, 4], the fields of `Medium`.
  """

  tokens: np.ndarray
  supervised: np.ndarray
  visual: np.ndarray
  first: np.ndarray
  media: np.ndarray

  def __len__(self) -> int:
    return len(self.tokens)

  def __getitem__(self, index: int) -> Length:
    media = self.media[self.first[index] : self.first[index + 1]]
    return Length(
      int(self.tokens[index]),
      int(self.supervised[index]),
      int(self.visual[index]),
      tuple(Medium(*row) for row in media.tolist()),
    )

  def save(self, path: Path) -> None:
    """Writes one .npz without pickles."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    with path.open("wb") as file:
      np.savez(file, **fields)


def load(path: Path) -> Lengths:
  """What `save` wrote.  Raises ValueError if it is not that."""
  with np.load(path, allow_pickle=False) as stored:
    names = [f.name for f in dataclasses.fields(Lengths)]
    if sorted(stored.files) != sorted(names):
      raise ValueError(f"{path.name} holds {sorted(stored.files)}; expected {sorted(names)}")
    return Lengths(**{name: stored[name] for name in names})


def collect(records: Iterable[Length]) -> Lengths:
  """Many lengths as arrays."""
  found = list(records)
  counts = [len(r.media) for r in found]
  media = [f for r in found for f in r.media]
  return Lengths(
    tokens=np.array([r.tokens for r in found], np.int32),
    supervised=np.array([r.supervised for r in found], np.int32),
    visual=np.array([r.visual for r in found], np.int32),
    first=np.cumsum([0, *counts], dtype=np.int64),
    media=np.array(media, np.int32).reshape(-1, 4),
  )


def concatenate(parts: Sequence[Lengths]) -> Lengths:
  """Records of all parts, one part after the other."""
  starts = np.cumsum([0, *(len(p.media) for p in parts)])
  first = [p.first[:-1] + start for p, start in zip(parts, starts, strict=False)]
  return Lengths(
    tokens=np.concatenate([p.tokens for p in parts]),
    supervised=np.concatenate([p.supervised for p in parts]),
    visual=np.concatenate([p.visual for p in parts]),
    first=np.concatenate([*first, starts[-1:]]),
    media=np.concatenate([p.media for p in parts]),
  )
