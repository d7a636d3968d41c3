"""The preset hulumed takes of a clip what ffmpeg's own fps filter lets through."""

from fractions import Fraction

import av
import numpy as np
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media import sampling
from tests.media import clips


def assert_as_filtered(path, fps):
  """All of what the filter sends out, as far as the released code has times for it."""
  ticks, want = clips.through_filter(path, fps)
  media = read(path, Options(fps=fps, frames=10**6), preset="hulumed")
  assert ticks == list(range(len(ticks)))
  with av.open(str(path)) as container:
    start = container.streams.video[0].start_time * container.streams.video[0].time_base
    end = float(start) + container.duration / 1e6
  told = np.arange(float(start), end + 1 / fps, 1 / fps)[: len(want)]  # the released expression
  want = want[: len(told)]
  np.testing.assert_allclose(media.timestamps, told, atol=1e-6)
  np.testing.assert_array_equal(np.broadcast_to(media.frames, want.shape), want)


def test_real_clips(real):
  folder = sorted(real("vid_pocus_lung/public/clips").iterdir())
  assert len(folder) == 15
  for path in folder:
    assert_as_filtered(path, 1)
  for path in folder[::4]:
    assert_as_filtered(path, 2.5)


@pytest.mark.parametrize("suffix", clips.CODECS)
@pytest.mark.parametrize("fps", [1, 3, 7.5, 29.97])
def test_made_clips(tmp_path, suffix, fps):
  # Mostly away from whole seconds; 41 frames at 12.5 per second end at 3.28 s.
  rate = 25 if suffix == "mpeg" else Fraction(25, 2)
  assert_as_filtered(clips.write(tmp_path / f"a.{suffix}", clips.grey_steps(41), rate=rate), fps)


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_variable_frame_rate(tmp_path, suffix):
  """Some frames last several ticks, some share one; the first comes late."""
  times = [0, 40, 900, 1000, 1033, 1066, 4100, 4500, 7999, 8000]
  options = {"bf": "0"} if suffix == "mp4" else {}
  path = clips.write(
    tmp_path / f"a.{suffix}", clips.grey_steps(10), times=times, rate=25, codec_options=options
  )
  for fps in (1, 4, 0.5):
    assert_as_filtered(path, fps)
  media = read(path, preset="hulumed")
  # Output k is the last frame before k + 1 seconds.
  assert media.slices[:8] == (2, 5, 5, 5, 7, 7, 7, 8)
  assert media.timestamps[:8] == tuple(range(8))


def test_by_hand():
  times = [Fraction(k, 10) for k in range(24)]
  taken, outputs = sampling.by_filter(times, Fraction(24, 10), 1, None)
  assert (taken.tolist(), outputs.tolist()) == ([9, 19], [0, 1])
  # The last 0.4 s come in no output; a tick before the first frame shows the first.
  late = [t + Fraction(5, 2) for t in times]
  taken, _ = sampling.by_filter(late, Fraction(49, 10), 1, None)
  assert taken.tolist() == [0, 0, 4, 14]
  taken, outputs = sampling.by_filter(times, Fraction(24, 10), 100, 5)
  assert outputs.tolist() == [0, 59, 119, 179, 239]
  assert taken.tolist() == [0, 5, 11, 17, 23]


def test_at_most_128_frames(tmp_path):
  path = clips.write(tmp_path / "a.mp4", clips.grey_steps(40), rate=Fraction(1, 5))  # 200 s
  media = read(path, preset="hulumed")
  want = np.linspace(0, 199, 128, dtype=int)
  np.testing.assert_array_equal(media.timestamps, want)
  assert media.slices == tuple((want // 5).tolist())
  assert len(read(path, Options(frames=7), preset="hulumed").frames) == 7


def test_a_clip_of_less_than_a_tick_is_an_error(tmp_path):
  path = clips.write(tmp_path / "a.mp4", clips.grey_steps(8))
  with pytest.raises(BadRecord, match="0.800 s gives no frame at 1 frames per second"):
    read(path, preset="hulumed")
  assert len(read(path, Options(fps=2), preset="hulumed").frames) == 1
  assert len(read(path).frames) == 8


def test_gifs_are_taken_as_25_frames_per_second():
  # Worked out from the released code (spec 1.8): segments of 25, from the middle.
  assert sampling.by_segments(60, 25.0, 1.0, 128).tolist() == [12, 37]
  assert sampling.by_segments(60, 25.0, 2.0, 128).tolist() == [6, 18, 30, 42, 54]
  assert sampling.by_segments(10, 25.0, 1.0, 128).tolist() == [5]
  # 60 / 25 = 2.4 s: not fewer than 2, so evenly.
  assert sampling.by_segments(60, 25.0, 1.0, 2).tolist() == [0, 59]
  with pytest.raises(BadRecord, match="at 25 frames per second at most"):
    sampling.by_segments(60, 25.0, 30.0, 128)
