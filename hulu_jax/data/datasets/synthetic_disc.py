"""The quick start's questions: where a synthetic disc is in a real picture, volume or clip, and
short rules over given text.  Checks the wiring, not clinical ability.

In training a medium is followed by several questions, about the row or the first frame too: one
answer a medium teaches a small model too slowly.  In the test split each record asks one scored
question.
"""

import itertools
from typing import Any

import numpy as np

from hulu_jax.data.datasets import _backgrounds
from hulu_jax.data.datasets import _discs

KINDS = ("text", "2D", "3D", "video")
SPLITS = ("train", "test")
# The scored tasks; record i of the test split asks number i modulo their count.
TASKS = {"text": ("side",), "2D": ("presence", "quadrant"), "3D": ("third",), "video": ("third",)}

FINDINGS = ("nodule", "cyst", "mass", "effusion", "stone", "fracture", "lesion", "polyp")
# Findings that never stand together in training; every text question of the test split needs one of
# these pairs.
HELD_OUT_PAIRS = (
  frozenset({"nodule", "stone"}),
  frozenset({"cyst", "fracture"}),
  frozenset({"mass", "polyp"}),
  frozenset({"effusion", "lesion"}),
  frozenset({"nodule", "cyst"}),
  frozenset({"mass", "effusion"}),
)

_SIDES = ("left", "right")
_THIRDS = ("first", "middle", "last")
# How many findings a text lists, one at first.  Two are always one left and one right, so that no
# count of words answers.
_COUNTS_BY_EASE = ((0.75, (1,)), (0.35, (1, 2)))
_COUNTS = (2,)

# Smallest and largest radius and contrast of a disc at full difficulty; while easy the smallest
# grows by up to the last number.  A picture's rows and columns are its 14-pixel patches.
_RADII_2D, _RADII_CLIP, _CONTRASTS = (12, 18, 3), (8, 12, 2), (0.5, 0.8, 0.1)
_CELL = 14
# Distance of a disc's centre from the picture's middle lines, so that its quadrant is plain.
_OFFSETS = (14, 44)
# In a clip: distance of the centre from the border, and its wobble from frame to frame.
_MARGIN, _WOBBLE = 10, 1.5

Turns = list[tuple[str, str]]


class Source:
  """Records of one kind; a pure function of (seed, index) that several threads may call.

  kind: one of KINDS.
  split: "train" or "test"; they share no file, and no pair of findings in HELD_OUT_PAIRS.
  seed: of everything drawn.
  size: number of records; answers to scored questions are dealt evenly over them.
  pool: number of background crops rendered beforehand; 0 for text, which has none.
  fade: share of the records, from the first on, over which the task grows from easy (flat
    background, large discs, one finding) to full difficulty; 0 in the test split.

  Raises:
    ValueError: a field is out of its range.
  """

  def __init__(self, *, kind: str, split: str, seed: int, size: int, pool: int, fade: float):
    _check(kind, split, size, pool, fade)
    self.files, self.lengths = (), None
    self._kind, self._split, self._size, self._fade = kind, split, size, fade
    self._key = (seed, KINDS.index(kind), SPLITS.index(split))
    rng = np.random.default_rng(self._key)
    self._noise = _discs.Noise(seed)
    tasks = len(TASKS[kind]) if split == "test" else 1
    # 12 options are a multiple of 2 sides, 3 thirds and 4 quadrants.  In training two pictures in
    # three have a disc: those without teach nothing about where it is.
    self._dealt = _deal(rng, size, tasks, 12)
    self._present = _deal(rng, size, tasks, 2 if split == "test" else 3) > 0
    if kind == "text":
      self._subsets = _subsets(split)
    elif kind == "2D":
      self._grounds = _backgrounds.pictures(split, pool, seed)
    else:
      # The one cine is held out; sweeps through the training volumes, shown as clips, stand in.
      medium = "video" if (kind, split) == ("video", "test") else "volume"
      self._grounds = _backgrounds.clips(split, medium, pool, seed)

  def __len__(self) -> int:
    return self._size

  def __getitem__(self, i: int) -> dict[str, Any]:
    """{"id", "kind", "messages"}; frames are uint8 [1, 112, 112, 1] or [6, 56, 56, 1]."""
    if not 0 <= i < self._size:
      raise IndexError(f"record {i} of a dataset of {self._size}")
    rng = np.random.default_rng((*self._key, i))
    ease = max(0.0, 1 - i / (self._size * self._fade)) if self._fade else 0.0
    scene = {"text": self._text, "2D": self._picture, "3D": self._clip, "video": self._clip}
    medium, turns = scene[self._kind](rng, i, ease)
    if self._split == "test":
      turns = [turns[i % len(TASKS[self._kind])]]
    else:
      turns = [turns[k] for k in rng.permutation(len(turns))]
    return {
      "id": f"disc-{self._kind}-{self._split}-{i}",
      "kind": self._kind,
      "messages": _conversation(medium, turns),
    }

  def _text(self, rng: np.random.Generator, i: int, ease: float) -> tuple[dict, Turns]:
    counts = next((counts for above, counts in _COUNTS_BY_EASE if ease > above), _COUNTS)
    subsets = self._subsets[counts[rng.integers(len(counts))]]
    names = [FINDINGS[k] for k in rng.permutation(subsets[rng.integers(len(subsets))])]
    fit = [k for k, name in enumerate(names) if self._split == "train" or _held(name, names)]
    asked = fit[rng.integers(len(fit))]
    first = int(self._dealt[i]) % 2
    sides = rng.permutation((np.arange(1, len(names)) + first) % 2).tolist()
    sides.insert(asked, first)
    listed = " , ".join(f"{name} {_SIDES[side]}" for name, side in zip(names, sides, strict=True))
    turns = [
      (f"which side is the {name} ?", _SIDES[side]) for name, side in zip(names, sides, strict=True)
    ]
    turns.insert(0, turns.pop(asked))
    return {"type": "text", "text": f"findings : {listed} ."}, turns

  def _picture(self, rng: np.random.Generator, i: int, ease: float) -> tuple[dict, Turns]:
    frame = _discs.faded(self._grounds[rng.integers(len(self._grounds))], ease)
    side = frame.shape[-1]
    lower, right = divmod(int(self._dealt[i]) % 4, 2)
    y = side / 2 + (2 * lower - 1) * rng.uniform(*_OFFSETS)
    x = side / 2 + (2 * right - 1) * rng.uniform(*_OFFSETS)
    disc = _disc(rng, ease, y, x, _RADII_2D)
    texture, noise = self._noise.field(rng, frame.shape), self._noise.field(rng, frame.shape)
    asks_where = self._split == "test" and TASKS["2D"][i % 2] == "quadrant"
    present = asks_where or bool(self._present[i])
    if present:
      _discs.draw(frame, disc, texture)
    frame = _discs.finish(frame, noise, rng.uniform(0, _discs.MAX_NOISE))
    quadrant = f"{('upper', 'lower')[lower]} {_SIDES[right]}"
    turns = [
      ("is there a disc ?", "yes" if present else "no"),
      ("which quadrant is the disc in ?", quadrant if present else "none"),
      ("which row ?", str(int(y // _CELL) + 1) if present else "none"),
      ("which column ?", str(int(x // _CELL) + 1) if present else "none"),
    ]
    return {"type": "image", "frames": frame[None, :, :, None]}, turns

  def _clip(self, rng: np.random.Generator, i: int, ease: float) -> tuple[dict, Turns]:
    frames = _discs.faded(self._grounds[rng.integers(len(self._grounds))], ease)
    depth, side, _ = frames.shape
    third = int(self._dealt[i]) % 3
    length = int(rng.integers(1, depth // 3 + 1))
    start = third * depth // 3 + int(rng.integers(depth // 3 - length + 1))
    y, x = rng.uniform(_MARGIN, side - _MARGIN, 2)
    disc = _disc(rng, ease, y, x, _RADII_CLIP)
    texture, noise = self._noise.field(rng, frames.shape), self._noise.field(rng, frames.shape)
    for k in range(start, start + length):
      _discs.draw(frames[k], _wobbled(rng, disc), texture[k])
    frames = _discs.finish(frames, noise, rng.uniform(0, _discs.MAX_NOISE))
    turns = [
      ("which third contains the disc ?", _THIRDS[third]),
      ("first frame ?", str(start + 1)),
      ("last frame ?", str(start + length)),
    ]
    medium = {"type": "volume", "frames": frames[..., None]}
    if self._kind == "video":
      medium |= {"type": "video", "timestamps": [float(k) for k in range(depth)]}
    return medium, turns


def _check(kind: str, split: str, size: int, pool: int, fade: float) -> None:
  if kind not in KINDS:
    raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
  if split not in SPLITS:
    raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
  if size < 1:
    raise ValueError(f"size is {size}, expected at least 1 record")
  if (pool != 0) if kind == "text" else (pool < 1):
    raise ValueError(f"pool is {pool} for {kind}, expected 0 for text and at least 1 otherwise")
  if not 0 <= fade <= (1 if split == "train" else 0):
    raise ValueError(f"fade is {fade} for {split}, expected 0 to 1 in train and 0 in test")


def _deal(rng: np.random.Generator, size: int, tasks: int, options: int) -> np.ndarray:
  """int64 [size]: for each of `tasks` interleaved tasks all options equally often, shuffled."""
  hands = rng.permutation(np.arange(-(-size // tasks)) % options)
  return np.repeat(hands, tasks)[:size]


def _held(name: str, names: list[str]) -> bool:
  return any(frozenset({name, other}) in HELD_OUT_PAIRS for other in names)


def _subsets(split: str) -> dict[int, list[tuple[int, ...]]]:
  """By size, the sets of findings (as numbers) that the split may list."""
  chosen: dict[int, list[tuple[int, ...]]] = {}
  for count in (1, *_COUNTS):
    for subset in itertools.combinations(range(len(FINDINGS)), count):
      names = [FINDINGS[k] for k in subset]
      if any(_held(name, names) for name in names) == (split == "test"):
        chosen.setdefault(count, []).append(subset)
  return chosen


def _disc(
  rng: np.random.Generator, ease: float, y: float, x: float, radii: tuple[int, int, int]
) -> _discs.Disc:
  radius = rng.uniform(radii[0] + radii[2] * ease, radii[1])
  contrast = rng.uniform(_CONTRASTS[0] + _CONTRASTS[2] * ease, _CONTRASTS[1])
  return _discs.Disc(y, x, radius, contrast if rng.random() < 0.5 else -contrast)


def _wobbled(rng: np.random.Generator, disc: _discs.Disc) -> _discs.Disc:
  dy, dx = rng.uniform(-_WOBBLE, _WOBBLE, 2)
  return _discs.Disc(disc.y + dy, disc.x + dx, disc.radius * rng.uniform(0.85, 1), disc.contrast)


def _conversation(medium: dict, turns: Turns) -> list[dict[str, Any]]:
  messages: list[dict[str, Any]] = []
  for question, answer in turns:
    for role, text in (("user", question), ("assistant", answer)):
      messages.append({"role": role, "content": [{"type": "text", "text": text}]})
  opening = messages[0]["content"]
  if medium["type"] == "text":
    opening[0]["text"] = f"{medium['text']} {opening[0]['text']}"
  else:
    opening.insert(0, medium)
  return messages
