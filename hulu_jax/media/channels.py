"""Keeps grey pictures grey: one channel where three would say the same."""

import numpy as np

_FEW = 8  # rows; in most coloured pictures one is enough


def one_channel(frames: np.ndarray) -> np.ndarray:
  """uint8 [T, H, W, 3] -> [T, H, W, 1] where red, green and blue are equal in every pixel.

  What the encoder sees is the same, from a third of the bytes; one coloured pixel keeps all three.
  """
  if frames.shape[-1] != 3:
    return frames
  for frame in frames:  # a coloured clip shows it in its first frame, and there in a few rows
    if not (_grey(frame[:_FEW]) and _grey(frame)):
      return frames
  return np.ascontiguousarray(frames[..., :1])


def _grey(frame: np.ndarray) -> bool:
  red, green, blue = (frame[..., k] for k in range(3))
  return np.array_equal(red, green) and np.array_equal(green, blue)
