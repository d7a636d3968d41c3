"""Pictures and arrays: grey stays grey, the allow-list holds, damage is BadRecord."""

import numpy as np
from PIL import Image
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Options
from hulu_jax.media import read

RGB = np.random.default_rng(0).integers(0, 255, (13, 17, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ("png", "webp", "tiff"))
@pytest.mark.parametrize("preset", ("radiology", "hulumed"))
def test_lossless_pictures_arrive_unchanged(tmp_path, suffix, preset):
  colour, grey = tmp_path / f"c.{suffix}", tmp_path / f"g.{suffix}"
  Image.fromarray(RGB).save(colour, lossless=True)  # a word only WebP heeds
  media = read(colour, preset=preset)
  assert media.kind == "image"
  np.testing.assert_array_equal(media.frames[0], RGB)
  if suffix != "webp":  # which has no grey mode
    Image.fromarray(RGB[..., 0]).save(grey)
    np.testing.assert_array_equal(read(grey, preset=preset).frames[0], RGB[..., :1])


def test_the_name_does_not_matter(tmp_path):
  Image.fromarray(RGB).save(tmp_path / "a.png")
  (tmp_path / "a.png").rename(tmp_path / "scan.dcm")
  np.testing.assert_array_equal(read(tmp_path / "scan.dcm").frames[0], RGB)


def test_sixteen_bit_grey_is_scaled_and_said(tmp_path):
  deep = np.arange(200, dtype=np.uint16).reshape(10, 20) * 20
  Image.fromarray(deep).save(tmp_path / "a.png")
  media = read(tmp_path / "a.png")
  assert media.frames.shape == (1, 10, 20, 1) and media.frames.max() == 255
  assert any("percentiles" in n for n in media.notes)


def test_refused_pictures(tmp_path):
  Image.fromarray(RGB).save(tmp_path / "a.bmp")
  with pytest.raises(BadRecord, match="unknown kind; expected PNG"):
    read(tmp_path / "a.bmp")
  pages = [Image.fromarray(RGB), Image.fromarray(RGB)]
  pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
  with pytest.raises(BadRecord, match="several pages"):
    read(tmp_path / "a.tiff")
  Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
  with pytest.raises(BadRecord, match="beyond the limit of 64,000,000 pixels"):
    read(tmp_path / "bomb.png")
  Image.fromarray(RGB).save(tmp_path / "a.png")
  with pytest.raises(BadRecord, match="do not apply to a picture"):
    read(tmp_path / "a.png", Options(window="lung"))
  with pytest.raises(BadRecord, match="the picture has 13 x 17"):
    read(tmp_path / "a.png", Options(crop=(0, 0, 14, 17)))


@pytest.mark.parametrize("suffix", ("png", "jpg", "webp", "tiff"))
def test_truncated_pictures(tmp_path, suffix):
  path = tmp_path / f"a.{suffix}"
  Image.fromarray(np.tile(RGB, (8, 8, 1))).save(path)
  data = path.read_bytes()
  for cut in (0.2, 0.5, 0.9):
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(BadRecord):
      read(path)


def test_missing_empty_and_foreign_files(tmp_path):
  for name, content, kind in (("a", b"", "empty"), ("b", b"not medical", "format")):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadRecord) as caught:
      read(tmp_path / name)
    assert caught.value.kind == kind and str(tmp_path) not in str(caught.value)
  with pytest.raises(BadRecord, match="missing: no such file"):
    read(tmp_path / "nothing")
  with pytest.raises(ValueError, match="unknown preset 'radiolgy'; there are: radiology, hulumed"):
    read(tmp_path / "a", preset="radiolgy")


def test_npy_volumes(tmp_path):
  array = np.random.default_rng(0).normal(0, 300, (4, 6, 5)).astype(np.float32)
  np.save(tmp_path / "a.npy", array)
  options = Options(modality="CT", window="bone", spacing_mm=(3.0, 1.0, 2.0))
  media = read(tmp_path / "a.npy", options)
  assert media.frames.shape == (4, 6, 5, 1) and media.spacing_mm == (3.0, 1.0, 2.0)
  assert any("orientation_unknown" in n for n in media.notes)
  same = read(tmp_path / "a.npy", options, preset="hulumed")
  assert same.frames.shape == (4, 6, 5, 1) and same.spacing_mm == (3.0, 1.0, 2.0)
  np.save(tmp_path / "o.npy", np.array([{}, {}]), allow_pickle=True)
  with pytest.raises(BadRecord, match="Python objects"):
    read(tmp_path / "o.npy")
  np.save(tmp_path / "f.npy", array[0])
  with pytest.raises(BadRecord, match="2 axes; expected slice, row, column"):
    read(tmp_path / "f.npy")
  tight = Limits(max_pixels=10, max_voxels=10, max_frames=10, max_bytes=10**6)
  with pytest.raises(BadRecord, match="the limit is 10"):
    read(tmp_path / "a.npy", options, limits=tight)
