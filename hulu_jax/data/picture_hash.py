"""Pictures as a few bits that survive re-encoding, resizing and brightness, and as exact digests.

Flipped, cropped or rotated pictures are not recognised, nor a picture with much drawn over it.
"""

import functools
import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from hulu_jax.media.types import Media

# Frames taken of a volume or a clip, evenly spaced.
FRAMES = 8
# Side of the picture that is transformed, and of the block of low frequencies in the first hash.
_SIDE, _BLOCK = 32, 8
# Below this standard deviation, in grey levels, there is nothing to tell a picture by.
_FLAT = 1.0


class Look(NamedTuple):
  """How a medium looks; two looks are compared frame by frame.

  low: uint64 [F], a bit for each of the 64 lowest frequencies, above their median or not; high: the
    same for the next 64, which tell apart what is only roughly alike.  F is 1 for a picture.  A
    frame without content is 0 in both.
  """

  low: np.ndarray
  high: np.ndarray


def digest(media: Media) -> int:
  """64 bits that stand for kind, size and every pixel."""
  found = hashlib.blake2b(f"{media.kind} {media.frames.shape}".encode(), digest_size=8)
  found.update(np.ascontiguousarray(media.frames).data)
  return int.from_bytes(found.digest(), "little")


def look(media: Media) -> Look:
  """The look of a picture, or of evenly spaced frames of a volume or clip."""
  total = len(media.frames)
  frames = media.frames
  if media.kind != "image":
    frames = frames[[(2 * k + 1) * total // (2 * FRAMES) for k in range(FRAMES)]]
  low, high = zip(*map(_hashes, frames), strict=True)
  return Look(np.array(low, np.uint64), np.array(high, np.uint64))


def _hashes(frame: np.ndarray) -> tuple[int, int]:
  """Both hashes of a frame, uint8 [H, W, 1 or 3].

  pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010): grey,
  32 x 32, cosine transform, signs of the 8 x 8 lowest coefficients about their median.  Pillow's
  bilinear resize averages over what it leaves out; without that a picture reduced by a quarter
  looks like another one.
  """
  picture = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).convert("L")
  small = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float64)
  if small.std() < _FLAT:
    return 0, 0
  cosines = _cosines()
  coefficients = cosines @ small @ cosines.T
  low, high = _places()
  # The mean grey level, first of all, is no part of the median: it would only shift it.
  return _bits(coefficients.ravel()[low], skip=1), _bits(coefficients.ravel()[high], skip=0)


def _bits(values: np.ndarray, skip: int) -> int:
  bits = values > np.median(values[skip:])
  return int.from_bytes(np.packbits(bits).tobytes(), "big")


@functools.cache
def _cosines() -> np.ndarray:
  """float64 [32, 32]: the cosine transform DCT-II, orthonormal but for the first row's factor."""
  k = np.arange(_SIDE)
  return np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / (2 * _SIDE))


@functools.cache
def _places() -> tuple[np.ndarray, np.ndarray]:
  """Flat indices of the lowest block, and of the 64 lowest frequencies outside it."""
  row, column = np.divmod(np.arange(_SIDE**2), _SIDE)
  inside = (row < _BLOCK) & (column < _BLOCK)
  outside = np.flatnonzero(~inside)
  order = np.argsort((row + column)[outside], kind="stable")
  return np.flatnonzero(inside), outside[order][: _BLOCK**2]


def distances(a: Look, b: Look) -> tuple[np.ndarray, np.ndarray]:
  """Bits that differ on average over the frames: float64 [...], of the low hash and of the high.

  a, b: hashes [..., F].  Frames without content in both are left out; with content in only one they
  are as far apart as can be, and so are media without any.
  """
  counted = (a.low != 0) | (b.low != 0)
  only_one = (a.low == 0) != (b.low == 0)
  frames = counted.sum(axis=-1)

  def mean(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bits = np.where(only_one, 64, np.bitwise_count(x ^ y)) * counted
    return np.where(frames > 0, bits.sum(axis=-1) / np.maximum(frames, 1), 64.0)

  return mean(a.low, b.low), mean(a.high, b.high)
