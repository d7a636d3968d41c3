"""Clips made here with PyAV: which frames, at what times; cut-off files are noticed."""

from fractions import Fraction

import av
import numpy as np
from PIL import Image
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Options
from hulu_jax.media import read

CODECS = {
  "mp4": "mpeg4",
  "mov": "mpeg4",
  "avi": "mpeg4",
  "mpeg": "mpeg1video",
  "webm": "libvpx-vp9",
}


def write_clip(path, frames=30, fps=10, options=None):
  """Frame k has grey 4 * k: a decoded frame tells its own number."""
  with av.open(str(path), "w", options=options or {}) as container:
    rate = 25 if path.suffix == ".mpeg" else fps
    stream = container.add_stream(CODECS[path.suffix[1:]], rate=rate)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    stream.bit_rate = 4_000_000
    for k in range(frames):
      picture = np.full((48, 64, 3), 4 * k, np.uint8)
      frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
      frame.pts, frame.time_base = k, Fraction(1, rate)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def numbers(media):
  return np.round(media.frames.mean(axis=(1, 2, 3)) / 4).astype(int).tolist()


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_by_count_carry_their_times(tmp_path, suffix):
  path = write_clip(tmp_path / f"a.{suffix}")
  media = read(path, Options(frames=4))
  step = 0.04 if suffix == "mpeg" else 0.1
  assert media.kind == "video" and media.frames.shape == (4, 48, 64, 3)
  assert media.slices == (0, 9, 19, 29)
  np.testing.assert_allclose(numbers(media), media.slices, atol=1)
  # An MPEG program stream dates packets, not frames: libav may be one frame off.
  slack = step if suffix == "mpeg" else 0.002
  np.testing.assert_allclose(media.timestamps, np.array(media.slices) * step, atol=slack + 1e-6)


def test_frames_by_rate_and_defaults(tmp_path):
  path = write_clip(tmp_path / "a.mp4", frames=50)
  assert read(path, Options(fps=2)).timestamps == tuple(k / 2 for k in range(10))
  assert read(path, Options(fps=2, frames=3)).timestamps == (0.0, 2.0, 4.5)
  assert len(read(path).frames) == 32
  assert read(path, preset="hulumed").timestamps == (0.0, 1.0, 2.0, 3.0, 4.0)
  assert len(read(path, Options(fps=1000)).frames) == 50  # never a frame twice
  assert read(path).fps == 10


def test_gif(tmp_path):
  pages = [Image.fromarray(np.full((20, 30, 3), 60 * k, np.uint8)) for k in range(4)]
  pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=200)
  media = read(tmp_path / "a.gif")
  assert media.frames.shape == (4, 20, 30, 3)
  np.testing.assert_allclose(media.timestamps, (0, 0.2, 0.4, 0.6), atol=1e-6)


def test_cut_off_clips_are_noticed(tmp_path):
  rng = np.random.default_rng(0)
  for options in ({}, {"movflags": "faststart"}):
    path = write_clip(tmp_path / "a.mp4", options=options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(BadRecord):
      read(path)
    flipped = bytearray(data)
    for position in rng.integers(0, len(data), 400):
      flipped[position] ^= 255
    path.write_bytes(flipped)
    try:
      read(path)
    except BadRecord as error:
      assert str(tmp_path) not in str(error) and error.__cause__ is None


def test_limits_and_options(tmp_path):
  path = write_clip(tmp_path / "a.mp4")
  tight = Limits(max_pixels=10**6, max_voxels=10**6, max_frames=20, max_bytes=10**9)
  with pytest.raises(BadRecord, match="30 frames; the limit is 20"):
    read(path, limits=tight)
  for options in (Options(window="lung"), Options(plane="axial"), Options(fps=0)):
    with pytest.raises(BadRecord, match="options"):
      read(path, options)


def test_real_clips(real):
  clips = sorted(real("vid_pocus_lung/public/clips").iterdir())
  for path in clips[::4]:
    media = read(path, Options(frames=3))
    assert len(media.frames) == 3 and media.timestamps[0] == 0 and media.timestamps[-1] > 1
