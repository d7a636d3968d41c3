"""Clips (mp4, mov, mpeg, avi, webm, gif) to frames with exact timestamps, through PyAV.

Which frames are taken:

- radiology: with `fps`, the frames on the screen at 0, 1/fps, 2/fps, ... seconds after the first;
  with `frames`, as many by number, evenly from the first to the last; 32 where neither is given.
  Never a frame twice.  Timestamps count from the first frame.
- hulumed: what the released code's Hugging Face path takes (spec 1.8): ffmpeg's `fps` filter with
  `round=down`, so output k is the last frame before (k + 1) / fps seconds, then evenly down to
  `frames`; 1 a second and 128 where not given.  It calls these k / fps seconds after the start of
  the stream, up to 1 / fps early, and so do the timestamps here.  Its local path takes others:
  decord, every `int(source rate / fps)`-th frame from the first.  A GIF is taken as 25 frames per
  second, from the middle of each second, whatever times it carries.

What is shown: turned by the display matrix, as players and ffmpeg do (the released code then cuts
the rows of a quarter turn at the wrong width; that is not repeated here); pixels that are not
square are made so by bicubic stretching (radiology) or left (hulumed); alpha is dropped; more than
8 bits are reduced to 8; the fields of interlaced frames stay woven.  A clip whose channels are
equal in all frames taken becomes one channel.  A crop counts in the pixels shown.
"""

from pathlib import Path

import numpy as np

from hulu_jax.media import channels
from hulu_jax.media import clip
from hulu_jax.media import crop
from hulu_jax.media import sampling
from hulu_jax.media import upright
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

_GIF_FPS = 25.0  # what the released code takes a GIF's frames to be (spec 1.8)
_ALPHA = ("rgba", "bgra", "argb", "abgr", "yuva", "gbrap", "ya8", "ya16", "pal8")


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """Frames by `options.fps` or `options.frames`, else by the preset.  Raises BadRecord."""
  sampling.check_clip_options(options)
  box = crop.box_only(options.crop)
  # PyAV raises FFmpegError, ValueError, OSError, StopIteration, ... on damaged files;
  # their messages quote paths, so the cause is not chained.
  try:
    return _read(path, preset, options, limits, box)
  except BadRecord:
    raise
  except Exception as error:
    raise BadRecord("format", f"a damaged video ({type(error).__name__})") from None


def _read(
  path: Path,
  preset: str,
  options: Options,
  limits: Limits,
  box: tuple[int, int, int, int] | None,
) -> Media:
  with clip.opened(path, limits) as opened:
    clock, taken, stamps, decoded = _take(opened, preset, options, limits)
  header = opened.header
  notes = _notes(header, clock, decoded)
  frames = decoded.frames
  if preset == "radiology":
    frames = _squared(frames, header, limits, notes)
  elif header.aspect not in (None, 1):
    notes.append("pixels are not square: shown as stored, as the released code does")
  turned = upright.turn(frames, decoded.matrix)
  if turned is None:
    notes.append("the file asks for a turn by other than quarters: shown as stored")
  elif turned is not frames:
    notes.append("turned as the file asks")
  return Media(
    kind="video",
    frames=channels.one_channel(crop.cut(frames if turned is None else turned, box)),
    modality=options.modality,
    slices=tuple(taken.tolist()),
    fps=sampling.mean_fps(clock.since_first()),
    timestamps=tuple(round(t, 6) for t in stamps.tolist()),
    provenance={
      "container": header.container,
      "codec": header.codec,
      "pixels": header.pixels,
      "frames": len(clock.times),
    },
    notes=tuple(notes),
  )


def _take(
  opened: clip.Clip, preset: str, options: Options, limits: Limits
) -> tuple[clip.Clock, np.ndarray, np.ndarray, clip.Decoded]:
  """The clock, the numbers of the frames taken, their timestamps, and the frames.

  Choosing by the packets' times saves a second decoding; where the frames' own differ, they win.
  """
  header = opened.header
  clock = opened.packet_clock()
  if clock is None:
    clock, _ = opened.decode(lambda number: False)
  for _ in range(2):
    taken, stamps = _choose(clock, header, preset, options)
    wanted = set(taken.tolist())
    limits.check(len(taken), header.height, header.width)
    decoded_clock, held = opened.decode(wanted.__contains__)
    if decoded_clock.times == clock.times and decoded_clock.end == clock.end:
      return clock, taken, stamps, clip.to_rgb(held, taken.tolist())
    clock = decoded_clock
  raise BadRecord("format", "a video that decodes to other frames each time")


def _choose(
  clock: clip.Clock, header: clip.Header, preset: str, options: Options
) -> tuple[np.ndarray, np.ndarray]:
  """int64 numbers of the frames to take, and float64 seconds that are told of each."""
  if preset == "radiology":
    since = clock.since_first()
    taken = sampling.choose(since, preset, options)
    return taken, since[taken]
  fps, most = sampling.released_rate(options)
  if header.container == "gif":
    taken = sampling.by_segments(len(clock.times), _GIF_FPS, fps, most)
    return taken, taken / _GIF_FPS
  taken, outputs = sampling.by_filter(clock.times, clock.end, fps, most)
  # arange(start, start + length + 1 / fps, 1 / fps), as there: what comes later has no time, and is
  # lost.
  if header.seconds is not None:
    inside = outputs < np.ceil((header.seconds + 1 / fps) * fps)
    taken, outputs = taken[inside], outputs[inside]
  return taken, float(header.start) + outputs / fps


def _squared(
  frames: np.ndarray, header: clip.Header, limits: Limits, notes: list[str]
) -> np.ndarray:
  height, width = frames.shape[1:3]
  size = upright.square_size(height, width, header.aspect)
  if size != (height, width):
    limits.check(len(frames), *size)
    notes.append(f"pixels are not square: {height} x {width} stretched to {size[0]} x {size[1]}")
  return upright.stretch(frames, size)


def _notes(header: clip.Header, clock: clip.Clock, decoded: clip.Decoded) -> list[str]:
  notes = []
  if clock.guessed:
    notes.append("some frames carry no time: the frame rate was used")
  if header.streams > 1:
    notes.append(f"{header.streams} video streams: the first was read")
  if decoded.interlaced:
    notes.append("interlaced: the fields of a frame were not separated")
  if header.pixels.startswith(_ALPHA):
    notes.append("transparency was dropped")
  if header.bits > 8:
    notes.append(f"{header.bits} bits per channel were reduced to 8")
  return notes
