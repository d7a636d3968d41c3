"""Which slices or frames are taken when not all are wanted."""

from collections.abc import Sequence
from fractions import Fraction
import math

import numpy as np

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Options

Spacing = tuple[float, float, float]
# Frames of a clip when the caller names neither a count nor a rate.
DEFAULT_FRAMES = 32
HULUMED_FPS, HULUMED_FRAMES = 1.0, 128  # spec 1.8, HF defaults
_MOST_FPS = 1e6


def by_count(available: int, wanted: int | None) -> np.ndarray:
  """int64 indices, evenly spaced, first and last included, none twice; all if `wanted` is None.

  `linspace` truncated to integers, as the released code samples (spec 1.8 and 1.9, HF column).
  """
  if wanted is not None and wanted < 1:
    raise BadRecord("options", f"frames={wanted}; expected at least 1")
  if wanted is None or wanted >= available:
    return np.arange(available)
  return np.linspace(0, available - 1, wanted, dtype=np.int64)


def by_mm(available: int, step_mm: float, wanted_mm: float) -> np.ndarray:
  """int64 indices of the slices nearest to 0, wanted_mm, 2 * wanted_mm, ... from the first one.

  step_mm: between neighbours.  None is taken twice, so slices further apart are all taken; the last
  one only where a multiple comes to it.
  """
  if not (math.isfinite(wanted_mm) and wanted_mm > 0):
    raise BadRecord("options", f"slice_mm={wanted_mm:g}; expected more than 0")
  stride = wanted_mm / step_mm
  if stride <= 1:
    return np.arange(available)
  # A rounding error must not lose the slice that lies just at a multiple.
  ticks = np.arange(int((available - 1) / stride + 1e-6) + 1)
  return np.minimum(np.floor(ticks * stride + 0.5).astype(np.int64), available - 1)


def spacing(steps: Sequence[float] | None, slices: np.ndarray) -> Spacing | None:
  """Millimetres between the slices taken, rows and columns, from the steps between all slices."""
  if steps is None:
    return None
  between, rows, columns = (float(v) for v in steps)
  if len(slices) > 1:
    between *= float(slices[-1] - slices[0]) / (len(slices) - 1)
  return between, rows, columns


def by_fps(timestamps: np.ndarray, fps: float) -> np.ndarray:
  """int64 indices of the frames on the screen at 0, 1/fps, 2/fps, ... seconds, none twice.

  timestamps: float [frames], seconds, ascending; a frame is shown from its time until the next's.
  The grid starts at the first frame and ends with the last.
  """
  _check_fps(fps)
  # Half a microsecond: 3 * (1 / 3) must find the frame at 1.0.
  since = (timestamps - timestamps[0]) * fps
  first = np.ceil(since - 5e-7 * fps)  # the first tick at or after each frame
  following = np.append(first[1:], np.floor(since[-1] + 5e-7 * fps) + 1)
  return np.flatnonzero(first < following)


def by_filter(
  times: Sequence[Fraction], end: Fraction, fps: float, most: int | None
) -> tuple[np.ndarray, np.ndarray]:
  """What ffmpeg's filter `fps=FPS:round=down` sends out, then evenly down to `most` (spec 1.8).

  times: seconds of every frame from the start of the container, ascending; end: when the last frame
  ends.  Output k is the last frame before (k + 1) / fps seconds: with `round=down` a frame's time
  is cut to whole ticks, and the last of a tick wins.  A frame that lasts several ticks comes
  several times; ticks before the first frame show the first (ffmpeg's constant frame rate).

  Returns:
    int64 indices of frames, and int64 numbers k of outputs, one per output kept.

  Raises:
    BadRecord: no output at all, as for a clip that ends before 1 / fps seconds.
  """
  _check_fps(fps)
  rate = Fraction(fps).limit_denominator(2**31 - 1)  # as ffmpeg reads it (av_d2q)
  outputs = math.floor(end * rate)
  if outputs < 1:
    raise BadRecord(
      "options",
      f"a clip of {float(end):.3f} s gives no frame at {fps:g} frames per second, as in the "
      "released code; give a larger fps, or the preset radiology",
    )
  kept = by_count(outputs, most)
  ticks = np.array([math.floor(t * rate) for t in times])
  return np.maximum(np.searchsorted(ticks, kept, side="right") - 1, 0), kept


def by_segments(count: int, rate: float, fps: float, most: int) -> np.ndarray:
  """int64 indices as the released code takes them of GIFs and folders of frames (spec 1.8).

  rate: frames per second that it assumes.  The middle of every segment of `rate // fps` frames;
  evenly, `most` of them, where the clip would last `most` seconds or more.  It compares seconds
  with frames there, so that with an `fps` above 1 more than `most` may be taken.
  """
  _check_fps(fps)
  if count / rate >= most:
    return by_count(count, most)
  if fps > rate:
    raise BadRecord(
      "options", f"fps={fps:g}; the released code takes these at {rate:g} frames per second at most"
    )
  segment = int(min(rate // fps, count))
  return np.arange(segment // 2, count, segment)


def _check_fps(fps: float) -> None:
  if not 0 < fps <= _MOST_FPS:
    raise BadRecord("options", f"fps={fps:g}; expected more than 0 and at most {_MOST_FPS:g}")


def check_clip_options(options: Options) -> None:
  """Raises BadRecord for what a clip cannot have."""
  given = [
    name
    for name, value in (
      ("window", options.window),
      ("plane", options.plane),
      ("time_index", options.time_index),
      ("slice_mm", options.slice_mm),
      ("resample_mm", options.resample_mm),
    )
    if value is not None
  ]
  if given:
    raise BadRecord("options", f"{' and '.join(given)} cannot apply to a clip")


def released_rate(options: Options) -> tuple[float, int]:
  """Frames per second, and frames at most, of the preset hulumed: 1 and 128 where not given."""
  fps = HULUMED_FPS if options.fps is None else options.fps
  return fps, HULUMED_FRAMES if options.frames is None else options.frames


def choose(times: np.ndarray, preset: str, options: Options) -> np.ndarray:
  """int64 indices of the frames to take; times: float [frames], seconds, ascending.

  `fps` first, then evenly down to `frames`.  With neither: 32 frames over the clip (radiology), one
  frame a second and at most 128 (hulumed).  Never a frame twice.
  """
  fps, count = options.fps, options.frames
  if fps is None and count is None:
    fps, count = released_rate(options) if preset == "hulumed" else (None, DEFAULT_FRAMES)
  taken = np.arange(len(times)) if fps is None else by_fps(times, fps)
  return taken[by_count(len(taken), count)]


def mean_fps(times: Sequence[float] | np.ndarray) -> float | None:
  """Frames per second over the whole clip, None for a single frame."""
  if len(times) < 2 or times[-1] <= times[0]:
    return None
  return round((len(times) - 1) / float(times[-1] - times[0]), 3)
