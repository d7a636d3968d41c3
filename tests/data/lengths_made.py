"""Seeded record lengths like those of a medical mixture: text, pictures, volumes, clips."""

import numpy as np

from hulu_jax.data.lengths import Length
from hulu_jax.data.lengths import Medium


def mixed(count: int, seed: int = 0) -> list[Length]:
  """Small numbers in rough proportions: one record in twelve is a volume or a clip."""
  rng = np.random.default_rng(seed)
  return [_record(rng) for _ in range(count)]


def _record(rng: np.random.Generator) -> Length:
  text = int(rng.integers(8, 60))
  kind = rng.choice(4, p=[0.4, 0.52, 0.05, 0.03])
  if kind == 0:
    return Length(text, text // 4, 0, ())
  if kind == 1:
    patches = int(rng.integers(2, 8) * rng.integers(2, 8))
    return Length(text + patches, text // 4, patches, (Medium(1, patches, rng.choice([1, 3]), 1),))
  frames, patches = int(rng.integers(4, 13)), 4 * int(rng.integers(2, 7))
  kept = frames * patches // 4
  medium = Medium(frames, patches, 1 if kind == 2 else 3, 2)
  return Length(text + kept, text // 4, kept, (medium,))
