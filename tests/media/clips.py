"""Clips that tests make with PyAV, and ffmpeg's own answers to compare with."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODECS = {
  "mp4": "libx264",
  "mov": "libx264",
  "avi": "mpeg4",
  "mpeg": "mpeg2video",
  "webm": "libvpx-vp9",
}
HEIGHT, WIDTH = 48, 64


def grey_steps(count: int) -> np.ndarray:
  """uint8 [count, 48, 64, 3]; frame k is 6 * k everywhere: it tells its own number."""
  levels = (6 * np.arange(count)).astype(np.uint8)
  return np.broadcast_to(levels[:, None, None, None], (count, HEIGHT, WIDTH, 3))


def numbers(frames: np.ndarray) -> list[int]:
  """The numbers that frames of `grey_steps` tell."""
  return np.round(frames.mean(axis=(1, 2, 3)) / 6).astype(int).tolist()


def write(
  path: Path,
  pictures: np.ndarray,
  *,
  rate: int | Fraction = 10,
  times: list[int] | None = None,
  first: int = 0,
  codec: str | None = None,
  pixels: str = "yuv420p",
  options: dict[str, str] | None = None,
  codec_options: dict[str, str] | None = None,
  aspect: Fraction | None = None,
  matrix: list[int] | None = None,
) -> Path:
  """Writes uint8 [T, H, W, 3] as a clip; times: of each frame, in milliseconds, else by the rate,
  counted from `first`."""
  with av.open(str(path), "w", options=options or {}) as container:
    stream = container.add_stream(codec or CODECS[path.suffix[1:]], rate=rate)
    stream.height, stream.width = pictures.shape[1:3]
    stream.pix_fmt, stream.bit_rate = pixels, 4_000_000
    stream.options = codec_options or {}
    if times is not None:
      stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
    if aspect is not None:
      stream.sample_aspect_ratio = aspect
    if matrix is not None:
      stream.set_display_matrix(matrix)
    for k, picture in enumerate(pictures):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
      frame.pts = first + k if times is None else times[k]
      frame.time_base = 1 / Fraction(rate) if times is None else Fraction(1, 1000)
      if times is not None:
        frame.duration = (times[k + 1] if k + 1 < len(times) else times[k] + 400) - times[k]
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def through_filter(path: Path, fps: float) -> tuple[list[int], np.ndarray]:
  """Output numbers and uint8 [T, H, W, 3] of libavfilter's `fps=FPS:round=down` over a clip.

  Times count from the container's start, as in the ffmpeg program; of an MPEG program stream, from
  the video's.
  """
  ticks, frames = [], []
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    if container.format.name == "mpeg":
      base = stream.start_time
    else:
      base = int(Fraction(container.start_time, 10**6) / stream.time_base)
    graph = av.filter.Graph()
    source = graph.add_buffer(template=stream)
    chosen = graph.add("fps", f"fps={fps}:round=down")
    rgb, sink = graph.add("format", "rgb24"), graph.add("buffersink")
    for one, next_one in ((source, chosen), (chosen, rgb), (rgb, sink)):
      one.link_to(next_one)
    graph.configure()
    for frame in [*container.decode(stream), None]:
      if frame is not None:
        frame.pts -= base
      source.push(frame)
      while True:
        try:
          shown = sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
          break
        ticks.append(shown.pts)
        frames.append(shown.to_ndarray())
  return ticks, np.stack(frames) if frames else np.empty((0, 0, 0, 3), np.uint8)
