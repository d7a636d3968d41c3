"""A folder of pictures is a clip: in which order, at what times, and what is refused."""

import numpy as np
from PIL import Image
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Options
from hulu_jax.media import frames_folder
from hulu_jax.media import read
from tests.media.made import dicom_dataset


def fill(folder, names, suffix="png"):
  """Frame k is 10 * k everywhere; in another order than by name."""
  for k, name in sorted(enumerate(names), key=lambda item: item[1][::-1]):
    Image.fromarray(np.full((20, 30), 10 * k, np.uint8)).save(folder / f"{name}.{suffix}")
  return folder


def levels(media):
  return (media.frames[:, 0, 0, 0] // 10).tolist()


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
  fill(tmp_path, [f"frame{k}" for k in range(1, 13)])
  media = read(tmp_path)
  assert media.kind == "video" and media.frames.shape == (12, 20, 30, 1)
  assert levels(media) == list(range(12))
  assert media.timestamps is None and media.fps is None
  assert any("no frame rate" in n for n in media.notes)
  assert levels(read(tmp_path, Options(frames=4))) == [0, 3, 7, 11]
  assert read(tmp_path, Options(frames=4)).slices == (0, 3, 7, 11)


def test_natural_order():
  want = ["1.png", "02.png", "2.png", "10.png", "a", "a1_2", "a1_10", "a9.png", "a010.png", "b1"]
  assert sorted(want[::-1], key=frames_folder.natural) == want


def test_a_rate_needs_a_source(tmp_path):
  fill(tmp_path, "ab")
  with pytest.raises(BadRecord, match="options: fps needs a frame rate, .* give frames instead"):
    read(tmp_path, Options(fps=1))


def test_the_released_code_took_three_frames_per_second(tmp_path):
  """Spec 1.8: names as text, segments of 3, the middle of each."""
  fill(tmp_path, [f"{k}" for k in range(1, 13)])
  media = read(tmp_path, preset="hulumed")
  as_text = sorted(range(12), key=lambda k: f"{k + 1}.png")
  assert media.slices == (1, 4, 7, 10)
  assert levels(media) == [as_text[k] for k in (1, 4, 7, 10)]
  assert media.timestamps == tuple(round(k / 3, 6) for k in (1, 4, 7, 10))
  assert any("sorted as text" in n for n in media.notes)


def test_hidden_files_are_skipped_and_the_content_decides(tmp_path):
  fill(tmp_path, ["1", "2"])
  (tmp_path / "1.png").rename(tmp_path / "1.txt")
  Image.fromarray(np.full((20, 30, 3), 20, np.uint8)).save(tmp_path / "3.jpg")
  (tmp_path / ".DS_Store").write_bytes(b"x")
  (tmp_path / "Thumbs.db").write_bytes(b"x")
  assert levels(read(tmp_path)) == [0, 1, 2]


def test_grey_and_coloured_frames_together(tmp_path):
  fill(tmp_path, ["1", "2"])
  Image.fromarray(np.full((20, 30, 3), (200, 0, 0), np.uint8)).save(tmp_path / "3.png")
  media = read(tmp_path)
  assert media.frames.shape == (3, 20, 30, 3)
  assert media.frames[1:, 0, 0].tolist() == [[10, 10, 10], [200, 0, 0]]


def test_deep_frames_share_one_range(tmp_path):
  for k in range(3):
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) + 1000 * k
    Image.fromarray(values).save(tmp_path / f"{k}.png")
  media = read(tmp_path)
  assert media.frames.shape == (3, 20, 30, 1)
  means = media.frames.mean(axis=(1, 2, 3))
  assert means[0] < 80 and means[2] > 170  # scaled one by one they would be equal
  fill(tmp_path, ["9"])
  with pytest.raises(BadRecord, match="3 of 4 pictures have more than 8 bits; expected all"):
    read(tmp_path)


def test_a_broken_frame_is_never_dropped(tmp_path):
  fill(tmp_path, ["1", "2", "3"])
  whole = (tmp_path / "2.png").read_bytes()
  for part in (whole[:-30], whole[:12]):
    (tmp_path / "2.png").write_bytes(part)
    with pytest.raises(BadRecord, match="format: a damaged picture"):
      read(tmp_path)


def test_mixed_sizes(tmp_path):
  fill(tmp_path, ["1", "2"])
  Image.new("L", (8, 9)).save(tmp_path / "3.png")
  with pytest.raises(BadRecord, match=r"frames of 2 sizes \(2 of 20 x 30, 1 of 9 x 8"):
    read(tmp_path)


def test_other_files_are_counted(tmp_path):
  fill(tmp_path, ["1", "2"])
  for k in range(3):
    dicom_dataset(np.zeros((4, 5), np.int16)).save_as(tmp_path / f"{k}.dcm")
  with pytest.raises(BadRecord, match="a folder of 2 pictures, 3 DICOM files; expected pictures"):
    read(tmp_path)
  for k in range(3):
    (tmp_path / f"{k}.dcm").unlink()
  (tmp_path / "SECRET.csv").write_text("SECRET")
  (tmp_path / "inner").mkdir()
  with pytest.raises(BadRecord, match="2 pictures, 1 files of another kind, 1 folders") as caught:
    read(tmp_path)
  assert "SECRET" not in str(caught.value)


def test_limits_and_options(tmp_path):
  fill(tmp_path, ["1", "2", "3"])
  with pytest.raises(BadRecord, match="3 frames; the limit is 2"):
    read(tmp_path, limits=Limits(max_frames=2))
  with pytest.raises(BadRecord, match="voxels"):
    read(tmp_path, limits=Limits(max_voxels=1200))
  assert len(read(tmp_path, Options(frames=2), limits=Limits(max_voxels=1200)).frames) == 2
  with pytest.raises(BadRecord, match="options"):
    read(tmp_path, Options(window="lung"))
  assert read(tmp_path, Options(crop=(0, 0, 5, 6))).frames.shape == (3, 5, 6, 1)
