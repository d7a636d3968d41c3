"""An opened clip: when its frames are shown, known without decoding, and the frames that are taken.

Times are exact (integers times a time base), so the same frames are taken on every machine.  A file
is opened once where it is small enough: libav decodes its start each time, to learn what it holds.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
import numpy as np

from hulu_jax.media import cut_off
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits

FORMATS = ("mp4", "mov", "mpeg", "mpegvideo", "avi", "webm", "matroska", "gif")
# Players show a picture for at most this share of missing frames, or this long, without remark.
_MISSING_FRAMES, _MISSING_SECONDS, _MISSING_PART = 0.02, 0.5, 0.1
# Bytes of packets that are kept between their times and their decoding.
_KEPT = 64 << 20


@dataclasses.dataclass(frozen=True)
class Clock:
  """When frames are shown.

  times: seconds of each, in the order of display, from the start of the container; end: of the
  last; guessed: some frames carried no time.
  """

  times: tuple[Fraction, ...]
  end: Fraction
  guessed: bool = False

  def since_first(self) -> np.ndarray:
    """float64 [frames]: seconds from the first frame."""
    return np.array([float(t - self.times[0]) for t in self.times])


@dataclasses.dataclass(frozen=True)
class Header:
  """What a container declares.

  pixels: libav's name of the pixel format, with `bits` per channel.
  start: seconds of the first frame, as the container counts; base: those of its own start, from
  which ffmpeg counts; seconds: how long it lasts; frames: how many there are; rate: frames per
  second, for frames without a time.  None: not declared.
  """

  container: str
  codec: str
  pixels: str
  bits: int
  height: int
  width: int
  start: Fraction
  base: Fraction
  seconds: float | None
  video_seconds: float | None
  frames: int | None
  rate: Fraction
  aspect: Fraction | None
  streams: int


@dataclasses.dataclass(frozen=True)
class Decoded:
  """frames: uint8 [T, H, W, 3] as stored; matrix: see `upright.turn`."""

  frames: np.ndarray
  matrix: tuple[int, ...] | None
  interlaced: bool


class Clip:
  """A clip whose container is open; made by `opened`.  `header`: what it declares."""

  def __init__(self, path: Path, limits: Limits, container: InputContainer, stream: VideoStream):
    self.header = _header(container, stream)
    self._path, self._limits = path, limits
    self._container, self._stream = container, stream
    self._packets: list[Packet[VideoStream]] | None = None

  def packet_clock(self) -> Clock | None:
    """The clock that the container tells without decoding; None where it does not tell.

    Called once.  The packets stay for `decode`, unless they are too large together.
    """
    found: list[tuple[int, int]] = []
    kept: list[Packet[VideoStream]] | None = []
    room = _KEPT
    for packet in self._container.demux(self._stream):
      room -= packet.size
      if room < 0:
        kept = None
      if kept is not None:
        kept.append(packet)
      if packet.size == 0 or packet.is_discard:
        continue
      if packet.pts is None:
        return None
      found.append((packet.pts, packet.duration or 0))
      self._limits.within("frames", len(found), self._limits.max_frames)
    self._packets = kept
    return clock(sorted(found), _base(self._stream), self.header) if found else None

  def decode(self, taken: Callable[[int], bool]) -> tuple[Clock, dict[int, VideoFrame]]:
    """The clock of all frames as decoded, and the frames whose number is `taken`.

    Frames are held as decoded, half the bytes of RGB.  Raises BadRecord for frames missing at the
    end, or beyond the limits.
    """
    packets, self._packets = self._packets, None  # a decoder takes them once
    if packets is not None:
      return self._decoded(packets, taken)
    with _open(self._path, self._limits) as container:
      return self._decoded(container.demux(_picture_stream(container, self._limits)), taken)

  def _decoded(
    self, packets: "Iterable[Packet[VideoStream]]", taken: Callable[[int], bool]
  ) -> tuple[Clock, dict[int, VideoFrame]]:
    shown: list[tuple[int | None, int]] = []
    held: dict[int, VideoFrame] = {}
    for number, frame in enumerate(frame for packet in packets for frame in packet.decode()):
      shown.append((frame.dts if frame.pts is None else frame.pts, frame.duration or 0))
      self._limits.within("frames", len(shown), self._limits.max_frames)
      if taken(number):
        held[number] = frame
    if not shown:
      raise BadRecord("format", "a video without frames")
    found = clock(shown, _base(self._stream), self.header)
    self._limits.check_seconds(float(found.end - found.times[0]))
    check_whole(found, self.header)
    return found, held


@contextlib.contextmanager
def opened(path: Path, limits: Limits) -> Iterator[Clip]:
  """Raises BadRecord for a clip of another format, cut off, or beyond the limits."""
  cut_off.check(path)
  with _open(path, limits) as container:
    stream = _picture_stream(container, limits)
    if not stream.height * stream.width:
      most = f"{limits.max_pixels:,}"
      raise BadRecord("limit", f"a video of no known size, or beyond the limit of {most} pixels")
    limits.check(1, stream.height, stream.width)
    clip = Clip(path, limits, container, stream)
    limits.within("frames", clip.header.frames or 0, limits.max_frames)
    limits.check_seconds(clip.header.seconds or 0)
    yield clip


def _base(stream: VideoStream) -> Fraction:
  return stream.time_base or Fraction(1)


def _open(path: Path, limits: Limits) -> InputContainer:
  """The whitelists keep playlists, and files that name others, from being followed; libav refuses
  to allocate larger frames, which may also come after the first."""
  options = {
    "format_whitelist": ",".join(FORMATS),
    "protocol_whitelist": "file",
    "max_pixels": str(limits.max_pixels),
  }
  return av.open(f"file:{path}", options=options)


def _picture_stream(container: InputContainer, limits: Limits) -> VideoStream:
  """The first video stream that is not a cover picture.

  One thread decodes it: threads of libav's own take a third more CPU time (measured with H.264),
  and a loader has a thread for every core.
  """
  for stream in container.streams.video:
    if not stream.disposition & Disposition.attached_pic:
      stream.codec_context.thread_count = 1
      stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
      return stream
  raise BadRecord("format", "a container without a video stream; expected a clip")


def _header(container: InputContainer, stream: VideoStream) -> Header:
  if stream.format is None or stream.time_base is None:
    raise BadRecord("format", "a video in a codec that cannot be decoded")
  start = (stream.start_time or 0) * stream.time_base
  # Of MPEG streams ffmpeg forgets where the sound starts (AVFMT_TS_DISCONT).
  own = container.start_time is None or container.format.name == "mpeg"
  length = None if container.duration is None else container.duration / av.time_base
  samples = len(stream.index_entries) if "mp4" in container.format.name else 0
  shown = sum(not entry.is_discard for entry in stream.index_entries) if samples else 0
  return Header(
    container=container.format.name,
    codec=stream.codec_context.name,
    pixels=stream.format.name,
    bits=max((part.bits for part in stream.format.components), default=8),
    height=stream.height,
    width=stream.width,
    start=start,
    base=start if own else Fraction(container.start_time, av.time_base),
    seconds=length,
    video_seconds=_video_seconds(container, stream, length),
    frames=(min(shown, stream.frames) if samples else stream.frames) or None,
    rate=stream.average_rate or Fraction(25),
    aspect=stream.sample_aspect_ratio,
    streams=len(container.streams.video),
  )


def _video_seconds(
  container: InputContainer, stream: VideoStream, length: float | None
) -> float | None:
  """How long the pictures last; sound may last longer."""
  if stream.duration is not None and stream.time_base is not None:
    return float(stream.duration * stream.time_base)
  return None if container.streams.audio else length


def clock(shown: Sequence[tuple[int | None, int]], base: Fraction, header: Header) -> Clock:
  """shown: (time, duration) of each frame, in units of `base` seconds; a duration 0 is unknown.

  A missing time follows the one before by the frame rate; so does the end.  Raises BadRecord for
  times that run backwards.
  """
  step = 1 / header.rate
  times: list[Fraction] = []
  for time, _ in shown:
    if time is not None:
      times.append(time * base - header.base)
    else:
      times.append(times[-1] + step if times else header.start - header.base)
  if any(b < a for a, b in zip(times, times[1:], strict=False)):
    raise BadRecord("format", "frame times that run backwards")
  last = shown[-1][1] * base
  if not last:
    last = times[-1] - times[-2] if len(times) > 1 and times[-1] > times[-2] else step
  return Clock(tuple(times), times[-1] + last, any(time is None for time, _ in shown))


def check_whole(found: Clock, header: Header) -> None:
  """A cut-off file decodes without an error; only what it declares tells (reliability F17)."""
  there, declared = len(found.times), header.frames
  if declared and there < declared - max(1, _MISSING_FRAMES * declared):
    raise BadRecord("format", f"a truncated video: {there} frames of {declared} declared")
  shown, length = float(found.end - found.times[0]), header.video_seconds
  if length is not None and shown < length - max(_MISSING_SECONDS, _MISSING_PART * length):
    raise BadRecord("format", f"a truncated video: {shown:.1f} s of {length:.1f} s declared")


def to_rgb(held: dict[int, VideoFrame], taken: Sequence[int]) -> Decoded:
  """The frames numbered `taken`, a frame as often as it is named.

  Chroma is interpolated bicubically, as ffmpeg does: pixels are those of its `-pix_fmt rgb24`.
  Raises BadRecord for a damaged frame, and for frames of several sizes.
  """
  damaged = sum(frame.is_corrupt for frame in held.values())
  if damaged:
    raise BadRecord("format", f"{damaged} of {len(held)} frames taken are damaged")
  sizes = {(frame.height, frame.width) for frame in held.values()}
  if len(sizes) != 1:
    raise BadRecord("format", "a video whose frames change size")
  out = np.empty((len(taken), *sizes.pop(), 3), np.uint8)
  matrices = {_matrix(frame) for frame in held.values()}
  if len(matrices) != 1:
    raise BadRecord("format", "a video that is turned while it runs")
  interlaced = any(frame.interlaced_frame for frame in held.values())
  done: dict[int, int] = {}
  for place, number in enumerate(taken):
    if number in done:
      out[place] = out[done[number]]
    else:
      out[place] = held.pop(number).to_ndarray(format="rgb24", interpolation="BICUBIC", threads=1)
      done[number] = place
  return Decoded(out, matrices.pop(), interlaced)


def _matrix(frame: VideoFrame) -> tuple[int, ...] | None:
  sides = cast(SideDataContainer, frame.side_data)  # PyAV's stubs know motion vectors only
  if Type.DISPLAYMATRIX not in sides:
    return None
  return tuple(np.frombuffer(bytes(sides[Type.DISPLAYMATRIX]), "=i4")[:9].tolist())
