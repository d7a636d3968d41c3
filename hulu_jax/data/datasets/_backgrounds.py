"""Renders crops of real pictures, volumes and clips once, as grounds to draw discs on."""

from collections.abc import Callable
import dataclasses
import functools

import numpy as np

from hulu_jax.media import samples

PICTURE_SIDE = 112
CLIP_SIDE = 56
CLIP_FRAMES = 6

# A crop is a square of this share of the frame's shorter side, turned and mirrored at random.
_SHARES = (0.3, 0.6)
_MAX_TURN_DEGREES = 15.0
_MAX_LOG_GAMMA = 0.35
# Which part of a volume a picture's slice may come from, and where a clip may start and stop: outer
# slices are mostly air.
_SLICES, _STARTS, _STOPS = (0.2, 0.8), (0.1, 0.35), (0.65, 0.9)
# Frames of a cine between two frames of a clip.
_CINE_STEP = 2
# A crop flatter than this (standard deviation, grey levels) is air: draw another.
_MIN_CONTRAST, _MAX_TRIES = 10.0, 1000
# Larger pictures are averaged down, so that a crop shows structures and not single pixels.
_SHORT_SIDE = 300
# Percentiles of a file's grey levels that become black and white.
_BLACK, _WHITE = 0.5, 99.5
# Random textures count as so many files: few pictures are free to train on, and a small model would
# learn them by heart.  They are never tested on.
_TEXTURES_2D, _TEXTURES_CLIP = 4, 2


@dataclasses.dataclass(frozen=True)
class Stack:
  """frames: uint8 [T, H, W]; spacing_mm: between frames, rows and columns."""

  frames: np.ndarray
  spacing_mm: tuple[float, float, float]


Draw = Callable[[np.random.Generator], np.ndarray]


def names(split: str, *kinds: str) -> list[str]:
  """The samples of a split ("train" or "test") that are of one of `kinds` (of Media)."""
  return [s.name for s in samples.TABLE if s.split == split and s.kind in kinds]


def pictures(split: str, count: int, seed: int) -> np.ndarray:
  """uint8 [count, 112, 112], read-only: crops of a split's pictures, cines and volumes."""
  draws: list[Draw] = [functools.partial(_still, stack) for stack in _load(split, "image", "video")]
  draws += [functools.partial(_slice, _planes(stack)) for stack in _load(split, "volume")]
  if split == "train":
    draws += [functools.partial(_texture, PICTURE_SIDE, 1)] * _TEXTURES_2D
  return _pool(draws, count, seed)[:, 0]


# The sources of volumes and of videos train on the same clips.
@functools.lru_cache(maxsize=1)
def clips(split: str, medium: str, count: int, seed: int) -> np.ndarray:
  """uint8 [count, 6, 56, 56], read-only: sweeps through "volume"s or parts of "video"s."""
  if medium == "video":
    draws: list[Draw] = [functools.partial(_stretch, stack) for stack in _load(split, "video")]
  else:
    draws = [functools.partial(_sweep, _planes(stack)) for stack in _load(split, "volume")]
  if split == "train":
    draws += [functools.partial(_texture, CLIP_SIDE, CLIP_FRAMES)] * _TEXTURES_CLIP
  return _pool(draws, count, seed)


def _load(split: str, *kinds: str) -> list[Stack]:
  stacks = []
  for name in names(split, *kinds):
    media = samples.load(name)
    frames = _stretched(_averaged(media.frames))
    stacks.append(Stack(frames, media.spacing_mm or (1.0, 1.0, 1.0)))
  return stacks


def _averaged(frames: np.ndarray) -> np.ndarray:
  """uint8 [T, H, W] of [T, H, W, C]: means over channels and k x k pixels; the k that brings the
  shorter side closest above _SHORT_SIDE."""
  if frames.shape[-1] == 1 and min(frames.shape[1:3]) < 2 * _SHORT_SIDE:
    return frames[..., 0]
  k = max(1, min(frames.shape[1:3]) // _SHORT_SIDE)
  count, height, width = frames.shape[0], frames.shape[1] // k, frames.shape[2] // k
  blocks = frames[:, : height * k, : width * k].reshape(count, height, k, width, k, -1)
  return blocks.mean((2, 4, 5)).astype(np.uint8)


def _stretched(frames: np.ndarray) -> np.ndarray:
  """uint8 frames, their grey levels stretched between _BLACK and _WHITE: a cine is dim."""
  share = np.cumsum(np.bincount(frames.ravel(), minlength=256)) / frames.size * 100
  black, white = np.searchsorted(share, (_BLACK, _WHITE))
  curve = (np.arange(256) - black) / max(1, white - black)
  return (np.clip(curve, 0, 1) * 255 + 0.5).astype(np.uint8)[frames]


def _pool(draws: list[Draw], count: int, seed: int) -> np.ndarray:
  rng = np.random.default_rng((seed, count))
  pool = np.stack([_contrasty(rng, draws[rng.integers(len(draws))]) for _ in range(count)])
  # Shared between sources and threads.
  pool.setflags(write=False)
  return pool


def _contrasty(rng: np.random.Generator, draw: Draw) -> np.ndarray:
  for _ in range(_MAX_TRIES):
    crop = draw(rng)
    if crop.std() > _MIN_CONTRAST:
      return crop
  raise ValueError(f"{_MAX_TRIES} crops in a row were flat: expected a picture with some contrast")


def _texture(side: int, frames: int, rng: np.random.Generator) -> np.ndarray:
  """uint8 [frames, side, side]: a streaky cloud that drifts into another from frame to frame.

  Half are cut into flat regions, as tissue is; half are dim with bright spots, as ultrasound is.
  """
  regions = rng.random() < 0.5
  turn, streak = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 1))
  rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
  along = (rows * np.cos(turn) + columns * np.sin(turn)) * streak
  across = (columns * np.cos(turn) - rows * np.sin(turn)) / streak
  steepness = rng.uniform(1.4 if regions else 0.8, 2.2)
  falloff = np.maximum(np.hypot(along, across), 1 / side) ** steepness
  ends = np.fft.rfft2(rng.standard_normal((2, side, side))) / falloff
  drift = np.linspace(0, rng.uniform(0, np.pi / 2), frames)[:, None, None]
  clouds = np.fft.irfft2(np.cos(drift) * ends[0] + np.sin(drift) * ends[1], s=(side, side))
  levels = np.clip(clouds / clouds.std() / 4 + 0.5, 0, 1)
  if regions:
    edges = np.sort(rng.uniform(0.1, 0.9, 3))
    flat = rng.permutation(np.linspace(0, 1, 4))[np.digitize(levels, edges)]
    levels += rng.uniform(0.5, 1.0) * (flat - levels)
  else:
    levels **= np.exp(rng.uniform(0, 1.5))
  return (levels * 255 + 0.5).astype(np.uint8)


def _still(stack: Stack, rng: np.random.Generator) -> np.ndarray:
  k = rng.integers(len(stack.frames))
  return _crop(rng, stack.frames[k : k + 1], stack.spacing_mm[1:], PICTURE_SIDE)


def _slice(planes: list[Stack], rng: np.random.Generator) -> np.ndarray:
  stack = planes[rng.integers(3)]
  k = _at(stack, rng.uniform(*_SLICES))
  return _crop(rng, stack.frames[k : k + 1], stack.spacing_mm[1:], PICTURE_SIDE)


def _sweep(planes: list[Stack], rng: np.random.Generator) -> np.ndarray:
  stack = planes[rng.integers(3)]
  shares = np.linspace(rng.uniform(*_STARTS), rng.uniform(*_STOPS), CLIP_FRAMES)
  if rng.random() < 0.5:
    shares = shares[::-1]
  frames = stack.frames[[_at(stack, share) for share in shares]]
  return _crop(rng, frames, stack.spacing_mm[1:], CLIP_SIDE)


def _stretch(stack: Stack, rng: np.random.Generator) -> np.ndarray:
  start = rng.integers(len(stack.frames) - (CLIP_FRAMES - 1) * _CINE_STEP)
  frames = stack.frames[start::_CINE_STEP][:CLIP_FRAMES]
  return _crop(rng, frames, stack.spacing_mm[1:], CLIP_SIDE)


def _at(stack: Stack, share: float) -> int:
  return round(share * (len(stack.frames) - 1))


def _planes(stack: Stack) -> list[Stack]:
  """The same volume as stacks along each of its axes."""
  frames, (between, row, column) = stack.frames, stack.spacing_mm
  return [
    stack,
    Stack(np.moveaxis(frames, 1, 0), (row, between, column)),
    Stack(np.moveaxis(frames, 2, 0), (column, between, row)),
  ]


def _crop(
  rng: np.random.Generator, frames: np.ndarray, spacing: tuple[float, ...], side: int
) -> np.ndarray:
  """uint8 [T, side, side]: the same random square out of all `frames` [T, H, W]; spacing in mm."""
  height, width = frames.shape[1] * spacing[0], frames.shape[2] * spacing[1]
  size = rng.uniform(*_SHARES) * min(height, width)
  centre_y, centre_x = (rng.uniform(size / 2, extent - size / 2) for extent in (height, width))
  turn = np.deg2rad(rng.uniform(-_MAX_TURN_DEGREES, _MAX_TURN_DEGREES))
  ticks = ((np.arange(side, dtype=np.float32) + 0.5) / side - 0.5) * size
  down, across = ticks[:, None] * rng.choice((-1, 1)), ticks[None, :] * rng.choice((-1, 1))
  y = (centre_y + down * np.cos(turn) - across * np.sin(turn)) / spacing[0] - 0.5
  x = (centre_x + down * np.sin(turn) + across * np.cos(turn)) / spacing[1] - 0.5
  gamma = np.exp(rng.uniform(-_MAX_LOG_GAMMA, _MAX_LOG_GAMMA))
  curve = (np.linspace(0, 1, 256) ** gamma * 255 + 0.5).astype(np.uint8)
  return curve[_bilinear(frames, y, x)]


def _bilinear(frames: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  """uint8 [T, *y.shape]: `frames` [T, H, W] at row y and column x, the border repeated outwards."""
  count, height, width = frames.shape
  y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
  top = np.minimum(y.astype(np.int64), height - 2)
  left = np.minimum(x.astype(np.int64), width - 2)
  down, across = (y - top).astype(np.float32), (x - left).astype(np.float32)
  flat = frames.reshape(count, -1)
  corner = top * width + left
  upper = flat[:, corner] * (1 - across) + flat[:, corner + 1] * across
  lower = flat[:, corner + width] * (1 - across) + flat[:, corner + width + 1] * across
  return (upper * (1 - down) + lower * down + np.float32(0.5)).astype(np.uint8)
