"""Which slices or frames are taken when not all are wanted."""

from collections.abc import Sequence

import numpy as np

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Options

# Frames of a clip when the caller names neither a count nor a rate.
DEFAULT_FRAMES = 32
HULUMED_FPS, HULUMED_FRAMES = 1.0, 128  # spec 1.8, HF defaults


def by_count(available: int, wanted: int | None) -> np.ndarray:
  """int64 indices, evenly spaced, first and last included, none twice; all if `wanted` is None.

  `linspace` truncated to integers, as the released code samples (spec 1.8 and 1.9, HF column).
  """
  if wanted is not None and wanted < 1:
    raise BadRecord("options", f"frames={wanted}; expected at least 1")
  if wanted is None or wanted >= available:
    return np.arange(available)
  return np.linspace(0, available - 1, wanted, dtype=np.int64)


def by_fps(timestamps: np.ndarray, fps: float) -> np.ndarray:
  """int64 indices of the last frame shown at or before 0, 1/fps, 2/fps, ... seconds, none twice.

  timestamps: float [frames], seconds, ascending.
  """
  if not fps > 0:
    raise BadRecord("options", f"fps={fps:g}; expected more than 0")
  # Half a microsecond: 3 * (1 / 3) must find the frame at 1.0.
  steps = int((timestamps[-1] - timestamps[0] + 5e-7) * fps) + 1
  if steps >= 100 * len(timestamps):
    return np.arange(len(timestamps))
  wanted = timestamps[0] + np.arange(steps) / fps
  return np.unique(np.searchsorted(timestamps, wanted + 5e-7, side="right") - 1)


def check_clip_options(options: Options) -> None:
  """Raises BadRecord for what a clip cannot have."""
  if options.window is not None or options.plane is not None or options.time_index is not None:
    raise BadRecord("options", "window, plane and time_index do not apply to a video")


def choose(times: np.ndarray, preset: str, options: Options) -> np.ndarray:
  """int64 indices of the frames to take; times: float [frames], seconds, ascending.

  `fps` first, then evenly down to `frames`.  With neither: 32 frames over the clip (radiology), one
  frame a second and at most 128 (hulumed).  Never a frame twice.
  """
  fps, count = options.fps, options.frames
  if fps is None and count is None:
    fps, count = (HULUMED_FPS, HULUMED_FRAMES) if preset == "hulumed" else (None, DEFAULT_FRAMES)
  taken = np.arange(len(times)) if fps is None else by_fps(times, fps)
  return taken[by_count(len(taken), count)]


def mean_fps(times: Sequence[float] | np.ndarray) -> float | None:
  """Frames per second over the whole clip, None for a single frame."""
  if len(times) < 2 or times[-1] <= times[0]:
    return None
  return round((len(times) - 1) / float(times[-1] - times[0]), 3)
