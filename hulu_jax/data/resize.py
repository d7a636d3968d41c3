"""How large a picture is when the encoder sees it: the reference's two rules, and the resize."""

from collections.abc import Iterator, Sequence
import math
from typing import NamedTuple

import numpy as np
from PIL import Image


class Entry(NamedTuple):
  """Size in pixels of one visual entry's first frame, and how many frames it has."""

  height: int
  width: int
  frames: int


def target_sizes(
  entries: Sequence[Entry], factors: Sequence[int], min_tokens: int, max_tokens: int
) -> list[tuple[int, int]]:
  """(height, width) for every entry of one conversation.

  factors: patch side times merge size, per entry.  When all are equal the token budget is shared
  evenly over all frames; otherwise the budget only bounds the total.

  Raises:
    ValueError: a side would shrink to nothing.
  """
  if len(set(factors)) == 1:
    return [_shared(e, entries, factors[0], min_tokens, max_tokens) for e in entries]
  return _bounded(entries, factors, max_tokens)


def _shared(
  entry: Entry, entries: Sequence[Entry], factor: int, min_tokens: int, max_tokens: int
) -> tuple[int, int]:
  """Rounds half to even, shrinks to the budget, grows to the minimum: the minimum wins."""
  height, width = entry.height, entry.width
  budget = max_tokens * factor**2 // sum(e.frames for e in entries)
  tall, wide = (round(side / factor) * factor for side in (height, width))
  if tall * wide > budget:
    shrink = math.sqrt(height * width / budget)
    tall, wide = (math.floor(side / shrink / factor) * factor for side in (height, width))
  if tall * wide < min_tokens * factor**2:
    grow = math.sqrt(min_tokens * factor**2 / (height * width))
    tall, wide = (math.ceil(side * grow / factor) * factor for side in (height, width))
  return tall, wide


def _bounded(
  entries: Sequence[Entry], factors: Sequence[int], max_tokens: int
) -> list[tuple[int, int]]:
  total = sum(
    e.frames * math.ceil(e.height / f) * math.ceil(e.width / f)
    for e, f in zip(entries, factors, strict=True)
  )
  shrink = math.sqrt(total / max_tokens) if total > max_tokens else 1.0
  snap = math.floor if total > max_tokens else round
  sizes = []
  for e, f in zip(entries, factors, strict=True):
    size = (snap(e.height / shrink / f) * f, snap(e.width / shrink / f) * f)
    if not all(size):
      raise ValueError(f"{e.height} x {e.width} pixels shrink to {size}; raise max_tokens")
    sizes.append(size)
  return sizes


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Antialiased bicubic through Pillow.  uint8 [T, H, W, C] -> uint8 [T, height, width, C]."""
  if frames.shape[1:3] == size:
    return frames
  out = np.empty((len(frames), *size, frames.shape[3]), np.uint8)
  for place, frame in zip(out, each(frames, size), strict=True):
    place[...] = frame
  return out


def each(frames: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
  """The frames of `resize` one by one, uint8 [height, width, C]: what is made of a frame at once is
  made while it lies in the processor's cache."""
  for frame in frames:
    if frame.shape[:2] == size:
      yield frame
      continue
    picture = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
    resized = np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))
    yield resized.reshape(*size, frame.shape[-1])
