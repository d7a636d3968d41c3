"""Draws soft-edged, textured discs on frames: the one sign the quick start's questions are about.

Frames are float32 in 0..1.
"""

import dataclasses
import math

import numpy as np

# Inside a disc: how much of the ground still shows, and the standard deviation of its own texture.
SHOW_THROUGH = 0.2
TEXTURE = 0.09
# Strongest acquisition noise over the whole frame.
MAX_NOISE = 0.03

_BANK = 1 << 17


@dataclasses.dataclass(frozen=True)
class Disc:
  """Centre and radius in pixels (pixel k spans k..k+1); contrast in -1..1 of full scale."""

  y: float
  x: float
  radius: float
  contrast: float


class Noise:
  """Standard normal fields cut out of one bank: fresh ones would be most of a record's cost."""

  def __init__(self, seed: int):
    self._bank = np.random.default_rng(seed).standard_normal(_BANK, dtype=np.float32)

  def field(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 of `shape`, read-only use; `shape` must hold fewer values than the bank."""
    size = math.prod(shape)
    start = int(rng.integers(_BANK - size))
    return self._bank[start : start + size].reshape(shape)


def faded(ground: np.ndarray, ease: float) -> np.ndarray:
  """Pulls uint8 frames [..., H, W] towards their mean: ease 1 leaves flat grey, 0 all of them."""
  frames = ground.astype(np.float32)
  frames *= np.float32((1 - ease) / 255)
  frames += np.float32(ease * ground.mean() / 255)
  return frames


def draw(frame: np.ndarray, disc: Disc, noise: np.ndarray) -> None:
  """Blends a disc into `frame` [H, W] in place; `noise` [H, W] is its texture.

  The disc's level is the mean of the ground under it plus its contrast; where that leaves 0..1 the
  contrast takes the sign that has room.
  """
  top, bottom = _span(disc.y, disc.radius, frame.shape[0])
  left, right = _span(disc.x, disc.radius, frame.shape[1])
  ground = frame[top:bottom, left:right]
  y = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - disc.y)
  x = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - disc.x)
  alpha = np.clip(np.float32(disc.radius + 0.5) - np.sqrt(y * y + x * x), 0, 1)
  mean = float(np.vdot(ground, alpha) / alpha.sum())
  contrast = disc.contrast
  if not 0 <= mean + contrast <= 1:
    contrast = math.copysign(contrast, 0.5 - mean)
  level = np.float32(mean * (1 - SHOW_THROUGH) + contrast)
  inside = level + np.float32(SHOW_THROUGH) * ground
  inside += np.float32(TEXTURE) * noise[top:bottom, left:right]
  inside -= ground
  ground += alpha * inside


def finish(frames: np.ndarray, noise: np.ndarray, strength: float) -> np.ndarray:
  """Adds noise of standard deviation `strength` to `frames` (overwritten) and rounds to uint8."""
  frames += np.float32(strength) * noise
  frames *= np.float32(255)
  frames += np.float32(0.5)
  return np.clip(frames, 0, 255, out=frames).astype(np.uint8)


def _span(centre: float, radius: float, size: int) -> tuple[int, int]:
  """The pixels along one axis that a disc with its soft edge touches, inside the frame."""
  return max(0, int(centre - radius - 1)), min(size, int(centre + radius + 2))
