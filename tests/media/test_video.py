"""Clips made here with PyAV: which frames, at what times, shown how; cut-off files are noticed."""

import dataclasses
from fractions import Fraction

import av
import numpy as np
from PIL import Image
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Options
from hulu_jax.media import clip
from hulu_jax.media import read
from hulu_jax.media import sampling
from hulu_jax.media import upright
from hulu_jax.media.limits import DEFAULT
from tests.media import clips


@pytest.mark.parametrize("suffix", clips.CODECS)
def test_frames_by_count_carry_their_times(tmp_path, suffix):
  rate = 25 if suffix == "mpeg" else 10
  path = clips.write(tmp_path / f"a.{suffix}", clips.grey_steps(30), rate=rate)
  media = read(path, Options(frames=4))
  assert media.kind == "video" and media.frames.shape == (4, 48, 64, 1)
  assert media.slices == (0, 9, 19, 29)
  assert clips.numbers(media.frames) == [0, 9, 19, 29]
  with av.open(str(path)) as container:
    times = [float(f.pts * f.time_base) for f in container.decode(video=0)]
  np.testing.assert_allclose(
    media.timestamps, np.array(times)[[0, 9, 19, 29]] - times[0], atol=1e-6
  )
  # The muxer of MPEG program streams leaves a gap of one frame.
  slack = 1 / rate if suffix == "mpeg" else 0
  np.testing.assert_allclose(media.timestamps, np.array(media.slices) / rate, atol=slack + 1e-6)


def test_frames_by_rate_and_defaults(tmp_path):
  path = clips.write(tmp_path / "a.mp4", clips.grey_steps(42))
  assert read(path, Options(fps=2)).timestamps == tuple(k / 2 for k in range(9))
  assert read(path, Options(fps=2, frames=3)).timestamps == (0.0, 2.0, 4.0)
  assert len(read(path).frames) == 32
  assert len(read(path, Options(fps=1000)).frames) == 42  # never a frame twice
  hulumed = read(path, preset="hulumed")
  assert hulumed.timestamps == (0.0, 1.0, 2.0, 3.0) and hulumed.slices == (9, 19, 29, 39)


def test_variable_rate_by_fps(tmp_path):
  """Frame on the screen at each half second; worked out by hand."""
  times = [0, 40, 900, 1000, 1033, 1066, 4100, 4500]
  path = clips.write(tmp_path / "a.webm", clips.grey_steps(8), times=times, rate=25)
  media = read(path, Options(fps=2))
  assert media.slices == (0, 1, 3, 5, 7)
  assert media.timestamps == (0.0, 0.04, 1.0, 1.066, 4.5)


def shown_by_loop(times, fps):
  """Frame on the screen at every tick up to the last frame, each once."""
  taken, tick = [], 0
  while tick / fps <= times[-1] + 5e-7:
    taken.append(max(k for k, t in enumerate(times) if t <= tick / fps + 5e-7))
    tick += 1
  return sorted(set(taken))


def test_by_fps_is_the_plain_loop():
  rng = np.random.default_rng(0)
  for fps in (0.3, 1, 3, 29.97, 120):
    for _ in range(5):
      times = np.cumsum(np.concatenate([[0], rng.integers(1, 400, 30)])) / 1000
      assert sampling.by_fps(times, fps).tolist() == shown_by_loop(times, fps)
  cluster = np.array([0, 0.01, 0.02, 0.03, 500.0])
  assert sampling.by_fps(cluster, 1.0).tolist() == [0, 3, 4]


@pytest.mark.parametrize("frames", [2, 3])
def test_b_frames_come_in_order_of_display(tmp_path, frames):
  options = {"bf": str(frames), "b-adapt": "0", "g": "12", "tune": "animation"}
  path = clips.write(tmp_path / "a.mp4", clips.grey_steps(30), codec_options=options)
  with av.open(str(path)) as container:
    kinds = {frame.pict_type for frame in container.decode(video=0)}
  assert av.video.frame.PictureType.B in kinds
  media = read(path, Options(frames=30))
  assert clips.numbers(media.frames) == list(range(30))
  np.testing.assert_allclose(media.timestamps, np.arange(30) / 10, atol=1e-6)


def test_threads_do_not_matter(real):
  path = real("vid_pocus_lung/public/clips") / "Cov_convex_volpecelli_sonographic_v1.mov"
  media = read(path, Options(frames=9))
  with av.open(str(path)) as container:
    container.streams.video[0].thread_type = "NONE"
    frames = list(container.decode(video=0))
  for number, time, frame in zip(media.slices, media.timestamps, media.frames, strict=True):
    assert time == pytest.approx(float(frames[number].pts * frames[number].time_base), abs=1e-6)
    want = frames[number].to_ndarray(format="rgb24", interpolation="BICUBIC")
    np.testing.assert_array_equal(frame, want)


@pytest.mark.parametrize("suffix", clips.CODECS)
def test_packets_are_kept_while_they_are_few(tmp_path, suffix, monkeypatch):
  opens, open_ = [], av.open
  monkeypatch.setattr(clip.av, "open", lambda *args, **kw: opens.append(0) or open_(*args, **kw))
  path = clips.write(tmp_path / f"a.{suffix}", clips.grey_steps(30), rate=25)
  opens.clear()
  kept = read(path, Options(frames=7))
  assert len(opens) == 1
  monkeypatch.setattr(clip, "_KEPT", 0)
  again = read(path, Options(frames=7))
  assert len(opens) == 3
  np.testing.assert_array_equal(kept.frames, again.frames)
  assert (kept.timestamps, kept.notes) == (again.timestamps, again.notes)


def test_an_edit_list_hides_the_start(tmp_path):
  """The track's edit list (ISO/IEC 14496-12, 8.6.6) is made to begin 1.2 s into the media."""
  path = clips.write(tmp_path / "a.mp4", clips.grey_steps(30), codec_options={"bf": "0"})
  data = bytearray(path.read_bytes())
  place = data.index(b"elst") + 4  # version and flags, count, then duration and media time
  assert data[place : place + 8] == b"\0\0\0\0\0\0\0\1"
  timescale_at = data.index(b"mdhd") + 4 + 12
  timescale = int.from_bytes(data[timescale_at : timescale_at + 4], "big")
  data[place + 8 : place + 12] = (1800).to_bytes(4, "big")  # milliseconds
  data[place + 12 : place + 16] = (timescale * 12 // 10).to_bytes(4, "big")
  path.write_bytes(data)
  media = read(path, Options(frames=30))
  assert clips.numbers(media.frames) == list(range(12, 30))
  np.testing.assert_allclose(media.timestamps, np.arange(18) / 10, atol=1e-6)


def test_times_count_from_the_first_frame(real):
  for path in sorted(real("vid_pocus_lung/public/clips").glob("*.mpeg")):
    assert read(path, Options(frames=3)).timestamps[0] == 0  # 0.54 s in the container
    assert read(path, preset="hulumed").timestamps[:2] == (0.54, 1.54)  # as released


def test_gif(tmp_path):
  pages = [Image.fromarray(np.full((20, 30, 3), 60 * k, np.uint8)) for k in range(4)]
  durations = [200, 50, 1000, 100]
  pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=durations)
  media = read(tmp_path / "a.gif")
  assert media.frames.shape == (4, 20, 30, 1)
  np.testing.assert_allclose(media.timestamps, (0, 0.2, 0.25, 1.25), atol=1e-6)
  released = read(tmp_path / "a.gif", preset="hulumed")
  assert released.slices == (2,) and released.timestamps == (0.08,)


# Quarter turns and mirror images, as the nine numbers of a display matrix with 16 bits of fraction
# (2 of 30 in the last), and what becomes of a picture.
ONE = 1 << 16
TURNS = {
  "clockwise": ([0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30], lambda p: np.rot90(p, -1)),
  "counter": ([0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30], lambda p: np.rot90(p, 1)),
  "half": ([-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30], lambda p: np.rot90(p, 2)),
  "mirrored": ([-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30], np.fliplr),
  "flipped": ([ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30], np.flipud),
  "transposed": ([0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30], lambda p: p.swapaxes(0, 1)),
  "none": ([ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30], lambda p: p),
}


def corners():
  """uint8 [3, 48, 64, 3]: another grey in each quarter."""
  picture = np.full((48, 64, 3), 20, np.uint8)
  picture[:24, 32:], picture[24:, :32], picture[24:, 32:] = 90, 160, 230
  return np.stack([picture] * 3)


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("preset", ["radiology", "hulumed"])
def test_clips_are_turned_as_players_do(tmp_path, name, preset):
  matrix, move = TURNS[name]
  path = clips.write(tmp_path / "a.mp4", corners(), matrix=matrix, rate=1)
  media = read(path, Options(frames=2), preset=preset)
  want = move(corners()[0])
  assert media.frames.shape[1:3] == want.shape[:2]
  np.testing.assert_allclose(media.frames[0, ..., 0].astype(int), want[..., 0], atol=30)
  assert ("turned as the file asks" in media.notes) == (name != "none")


def test_odd_angles_are_said():
  frames = corners()
  for degrees in (30, 45, 80):
    cos, sin = (round(ONE * f(np.radians(degrees))) for f in (np.cos, np.sin))
    assert upright.turn(frames, [cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30]) is None
  assert upright.turn(frames, [0] * 9) is frames


def test_pixels_that_are_not_square(tmp_path):
  path = clips.write(tmp_path / "a.mp4", corners(), aspect=Fraction(3, 2), rate=1)
  media = read(path, Options(frames=1))
  assert media.frames.shape[:3] == (1, 48, 96)
  assert "pixels are not square: 48 x 64 stretched to 48 x 96" in media.notes
  assert abs(int(media.frames[0, 10, 80, 0]) - 90) < 9
  stored = read(path, Options(frames=1), preset="hulumed")
  assert stored.frames.shape[:3] == (1, 48, 64) and any("not square" in n for n in stored.notes)
  tall = clips.write(tmp_path / "b.mp4", corners(), aspect=Fraction(1, 2), rate=1)
  assert read(tall, Options(frames=1)).frames.shape[:3] == (1, 96, 64)
  small = dataclasses.replace(DEFAULT, max_pixels=48 * 64)
  with pytest.raises(BadRecord, match="limit: 4,608 pixels"):
    read(path, limits=small)


def test_colour_depth_and_alpha(tmp_path):
  grey = clips.grey_steps(3)
  for pixels in ("gray", "gray10le", "gray16le"):
    media = read(clips.write(tmp_path / "g.avi", grey, codec="ffv1", pixels=pixels, rate=1))
    np.testing.assert_array_equal(media.frames, grey[..., :1])
    assert any("bits per channel were reduced" in n for n in media.notes) == (pixels != "gray")
  colour = grey.copy()
  colour[..., 0] = 200
  media = read(clips.write(tmp_path / "c.mp4", colour, pixels="yuv444p10le", rate=1))
  np.testing.assert_allclose(media.frames.astype(int), colour, atol=3)
  path = clips.write(tmp_path / "a.avi", colour, codec="ffv1", pixels="bgra")
  media = read(path)
  np.testing.assert_array_equal(media.frames, colour)
  assert "transparency was dropped" in media.notes


def test_one_coloured_pixel_keeps_three_channels(tmp_path):
  pictures = clips.grey_steps(3).copy()
  path = clips.write(tmp_path / "a.avi", pictures, codec="ffv1", pixels="bgr0")
  assert read(path).frames.shape[-1] == 1
  pictures[2, 5, 7, 0] += 1
  clips.write(path, pictures, codec="ffv1", pixels="bgr0")
  np.testing.assert_array_equal(read(path).frames, pictures)
  assert read(path, Options(frames=1)).frames.shape[-1] == 1  # the pixel is in the last


def test_interlaced_is_said(tmp_path):
  options = {"flags": "+ilme+ildct"}
  pictures = clips.grey_steps(4)
  path = clips.write(tmp_path / "a.mpeg", pictures, rate=25, codec_options=options)
  assert any("interlaced" in n for n in read(path).notes)
  assert not read(clips.write(tmp_path / "b.mpeg", pictures, rate=25)).notes


@pytest.mark.parametrize("suffix", [*clips.CODECS, "gif"])
def test_cut_off_clips_are_noticed(tmp_path, suffix):
  path = tmp_path / f"a.{suffix}"
  pictures = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
  if suffix == "gif":
    pages = [Image.fromarray(p) for p in pictures]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=100)
  else:
    rate = 25 if suffix == "mpeg" else 10
    faststart = {"movflags": "faststart"} if suffix in ("mp4", "mov") else {}
    clips.write(path, pictures, rate=rate, options=faststart)
  data = path.read_bytes()
  assert len(read(path).frames) == 30
  path.write_bytes(data + b"\0" * 100)
  assert len(read(path).frames) == 30
  for part in (0.1, 0.3, 0.5, 0.8, 0.95, 0.999):
    path.write_bytes(data[: int(len(data) * part)])
    # Cut between two packets, an MPEG stream lacks nothing that is declared.
    between = "|.* taken are damaged" if suffix == "mpeg" else ""
    with pytest.raises(BadRecord, match=f"format: (a truncated video{between})"):
      read(path)


def test_missing_frames_are_noticed_though_no_byte_is_missing():
  header = clip.Header(
    *("mov,mp4", "h264", "yuv420p", 8, 48, 64, Fraction(0), Fraction(0), 10.0, 10.0),
    *(100, Fraction(10), None, 1),
  )

  def clock(frames):
    return clip.clock([(k, 1) for k in range(frames)], Fraction(1, 10), header)

  clip.check_whole(clock(98), header)
  with pytest.raises(BadRecord, match="97 frames of 100 declared"):
    clip.check_whole(clock(97), header)
  unnumbered = dataclasses.replace(header, frames=None)
  clip.check_whole(clock(90), unnumbered)
  with pytest.raises(BadRecord, match="8.9 s of 10.0 s declared"):
    clip.check_whole(clock(89), unnumbered)


def test_frames_without_a_time_follow_by_the_rate():
  header = clip.Header(
    *("avi", "mpeg4", "yuv420p", 8, 48, 64, Fraction(0), Fraction(0), None, None),
    *(None, Fraction(10), None, 1),
  )
  found = clip.clock([(None, 0), (3, 0), (None, 0)], Fraction(1, 20), header)
  assert found.times == (0, Fraction(3, 20), Fraction(1, 4)) and found.guessed
  with pytest.raises(BadRecord, match="run backwards"):
    clip.clock([(3, 1), (2, 1)], Fraction(1, 20), header)


@pytest.mark.parametrize("suffix", [*clips.CODECS])
def test_flipped_bytes_raise_nothing_else(tmp_path, suffix):
  rng = np.random.default_rng(0)
  path = clips.write(tmp_path / f"a.{suffix}", clips.grey_steps(12), rate=25)
  data = path.read_bytes()
  for _ in range(8):
    flipped = bytearray(data)
    for position in rng.integers(0, len(data), 20):
      flipped[position] ^= 1 << rng.integers(8)
    path.write_bytes(flipped)
    try:
      read(path)
    except BadRecord as error:
      assert str(tmp_path) not in str(error) and error.__cause__ is None


def test_limits_and_options(tmp_path):
  path = clips.write(tmp_path / "a.mp4", clips.grey_steps(30))
  for tight, match in (
    (Limits(max_frames=20), "30 frames; the limit is 20"),
    (Limits(max_seconds=2.5), "a clip of 3 s; the limit is 2.5 s"),
    (Limits(max_pixels=100), "3,072 pixels in a frame"),
    (Limits(max_voxels=48 * 64 * 10), "voxels"),
  ):
    with pytest.raises(BadRecord, match=match):
      read(path, limits=tight)
  assert len(read(path, Options(frames=10), limits=Limits(max_voxels=48 * 64 * 10)).frames) == 10
  for suffix in ("avi", "webm", "mpeg"):  # which tell their size only in a frame
    other = clips.write(tmp_path / f"a.{suffix}", clips.grey_steps(3), rate=25)
    with pytest.raises(BadRecord, match="limit: "):
      read(other, limits=Limits(max_pixels=100))
  for options in (Options(window="lung"), Options(plane="axial"), Options(fps=0)):
    with pytest.raises(BadRecord, match="options"):
      read(path, options)
  with pytest.raises(BadRecord, match="fps=inf; expected more than 0 and at most"):
    read(path, Options(fps=float("inf")))


@pytest.mark.parametrize("suffix", ["mp4", "webm", "avi"])
def test_a_declared_length_is_limited_before_decoding(tmp_path, suffix, monkeypatch):
  slow = Fraction(1, 1000)
  path = clips.write(tmp_path / f"a.{suffix}", clips.grey_steps(5), rate=slow)
  monkeypatch.setattr(clip.Clip, "decode", None)  # whoever calls it fails otherwise
  with pytest.raises(BadRecord, match="limit: a clip of [0-9,]+ s; the limit is 3,600 s"):
    read(path)


def test_frames_that_grow(tmp_path):
  """Two program streams in one file, the second larger: that of a limit is never allocated."""
  small = clips.write(tmp_path / "a.mpeg", clips.grey_steps(9), rate=25).read_bytes()
  large = np.zeros((9, 96, 128, 3), np.uint8)
  large = clips.write(tmp_path / "b.mpeg", large, rate=25, first=30).read_bytes()
  (tmp_path / "c.mpeg").write_bytes(small + large)
  for limits, match in (
    (DEFAULT, "a video whose frames change size"),
    (Limits(max_pixels=48 * 64), "a damaged video"),
  ):
    with pytest.raises(BadRecord, match=match):
      read(tmp_path / "c.mpeg", limits=limits)


def test_a_crop_counts_in_the_pixels_shown(tmp_path):
  matrix, move = TURNS["clockwise"]
  path = clips.write(tmp_path / "a.mp4", corners(), matrix=matrix, rate=1)
  media = read(path, Options(frames=1, crop=(0, 0, 20, 12)))
  assert media.frames.shape[:3] == (1, 20, 12)
  assert abs(int(media.frames.mean()) - int(move(corners()[0])[:20, :12].mean())) < 9


def test_sound_without_pictures(tmp_path):
  path = tmp_path / "a.mp4"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("aac", rate=8000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    frame.sample_rate, frame.pts = 8000, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
  with pytest.raises(BadRecord, match="without a video stream"):
    read(path)
