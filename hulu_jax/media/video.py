"""Clips (mp4, mov, mpeg, avi, webm, gif) to frames with exact timestamps, through PyAV."""

from pathlib import Path

import av
import numpy as np

from hulu_jax.media import crop
from hulu_jax.media import sampling
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

FORMATS = ("mp4", "mov", "mpeg", "mpegvideo", "avi", "webm", "matroska", "gif")
# What a container declares may exceed what it holds by an edit list or a rounded duration.
_MISSING_FRAMES, _MISSING_SECONDS = 0.02, 0.5


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """Frames by `options.fps` or `options.frames`, else by the preset.  Raises BadRecord."""
  sampling.check_clip_options(options)
  box = crop.box_only(options.crop)
  # PyAV raises FFmpegError, ValueError, OSError, StopIteration, ... on damaged files;
  # their messages quote paths, so the cause is not chained.
  try:
    times, grey, notes = _scan(path, limits)
    taken = sampling.choose(np.array(times), preset, options)
    _check_taken(path, len(taken), limits)
    frames = _decode(path, taken, "gray" if grey else "rgb24")
  except BadRecord:
    raise
  except Exception as error:
    raise BadRecord("format", f"a damaged video ({type(error).__name__})") from None
  chosen = tuple(round(float(times[k]), 6) for k in taken)
  return Media(
    kind="video",
    frames=crop.cut(frames, box),
    modality=options.modality,
    slices=tuple(int(k) for k in taken),
    fps=sampling.mean_fps(times),
    timestamps=chosen,
    notes=tuple(notes),
  )


def _open(path: Path):
  container = av.open(str(path))
  names = set(container.format.name.split(","))
  if not names & set(FORMATS):
    raise BadRecord("format", f"container {container.format.name}; expected {', '.join(FORMATS)}")
  if not container.streams.video:
    raise BadRecord("format", "a container without a video stream")
  stream = container.streams.video[0]
  stream.thread_type = "AUTO"
  return container, stream


def _scan(path: Path, limits: Limits) -> tuple[list[float], bool, list[str]]:
  """Times of all frames from the first, whether the clip is grey, and notes."""
  container, stream = _open(path)
  with container:
    limits.check(1, stream.height, stream.width)
    limits.within("frames", stream.frames, limits.max_frames)
    length = None if container.duration is None else container.duration / av.time_base
    rate = float(stream.average_rate or 25)
    times: list[float | None] = []
    for frame in container.decode(stream):
      times.append(frame.time)
      limits.within("frames", len(times), limits.max_frames)
    grey = (stream.format is not None) and stream.format.name.startswith("gray")
    declared = stream.frames
  known = _fill(times, rate)
  _check_whole(known, declared, length, rate)
  notes = [] if None not in times else ["some frames carry no time: the frame rate was used"]
  return known, grey, notes


def _fill(times: list[float | None], rate: float) -> list[float]:
  """Times counted from the first frame; a missing one follows its predecessor by 1 / rate."""
  known: list[float] = []
  for time in times:
    known.append(time if time is not None else (known[-1] + 1 / rate if known else 0.0))
  if any(b < a for a, b in zip(known, known[1:], strict=False)):
    raise BadRecord("format", "frame times that run backwards")
  return [t - known[0] for t in known]


def _check_whole(times: list[float], declared: int, length: float | None, rate: float) -> None:
  """A cut-off file decodes without an error; only what it declares tells (reliability F17)."""
  if not times:
    raise BadRecord("format", "a video without frames")
  if declared and len(times) < declared - max(1, _MISSING_FRAMES * declared):
    raise BadRecord("format", f"a truncated video: {len(times)} frames of {declared} declared")
  shown = times[-1] + 1 / rate
  if length is not None and shown < length - max(_MISSING_SECONDS, 0.1 * length):
    raise BadRecord("format", f"a truncated video: {shown:.1f} s of {length:.1f} s declared")


def _check_taken(path: Path, frames: int, limits: Limits) -> None:
  container, stream = _open(path)
  with container:
    limits.check(frames, stream.height, stream.width)


def _decode(path: Path, taken: np.ndarray, pixels: str) -> np.ndarray:
  """uint8 [T, H, W, 1 or 3] of the frames numbered `taken`, ascending."""
  wanted, out = set(taken.tolist()), []
  container, stream = _open(path)
  with container:
    for number, frame in enumerate(container.decode(stream)):
      if number in wanted:
        out.append(frame.to_ndarray(format=pixels))
      if len(out) == len(wanted):
        break
  if len({picture.shape for picture in out}) != 1:
    raise BadRecord("format", "a video whose frames change size")
  frames = np.stack(out)
  return frames if frames.ndim == 4 else frames[..., None]
