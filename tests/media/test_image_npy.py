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


def test_sixteen_bit_grey_in_a_given_range(tmp_path):
  deep = np.arange(200, dtype=np.uint16).reshape(10, 20) * 20
  Image.fromarray(deep).save(tmp_path / "a.png")
  media = read(tmp_path / "a.png", Options(value_range=(0, 1000)))
  want = np.clip(deep / 1000 * 255, 0, 255)
  np.testing.assert_allclose(media.frames[0, ..., 0], want, atol=1)
  assert media.value_range == (0, 1000)
  released = read(tmp_path / "a.png", preset="hulumed")
  np.testing.assert_array_equal(released.frames[0, ..., 0], np.minimum(deep, 255))
  assert any("converted by Pillow" in n for n in released.notes)


# EXIF orientation (CIPA DC-008, tag 0x0112) to what is done with the stored picture.
TURNS = {
  1: lambda p: p,
  2: np.fliplr,
  3: lambda p: np.rot90(p, 2),
  4: np.flipud,
  5: lambda p: p.swapaxes(0, 1),
  6: lambda p: np.rot90(p, -1),
  7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
  8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_exif_orientation(tmp_path, orientation, suffix):
  path = tmp_path / f"a.{suffix}"
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(RGB).save(path, exif=exif, lossless=True)
  np.testing.assert_array_equal(read(path).frames[0], TURNS[orientation](RGB))
  released = read(path, preset="hulumed")
  with Image.open(path) as stored:  # of these formats Pillow itself turns TIFF only
    np.testing.assert_array_equal(released.frames[0], np.asarray(stored.convert("RGB")))
  untouched = suffix != "tiff" and orientation != 1
  assert any("asks to be turned" in n for n in released.notes) == untouched


def test_what_is_transparent_stays_hidden(tmp_path):
  alpha = np.full((13, 17), 255, np.uint8)
  alpha[:4], alpha[4:8] = 0, 51
  Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a.png")
  media = read(tmp_path / "a.png")
  assert not media.frames[0, :4].any()
  np.testing.assert_allclose(media.frames[0, 4:8], RGB[4:8] / 5, atol=1)
  np.testing.assert_array_equal(media.frames[0, 8:], RGB[8:])
  assert "transparent parts are shown black" in media.notes
  np.testing.assert_array_equal(read(tmp_path / "a.png", preset="hulumed").frames[0], RGB)
  alpha[:] = 255
  Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a.png")
  assert not read(tmp_path / "a.png").notes
  Image.fromarray(RGB[..., 0]).save(tmp_path / "g.png", transparency=int(RGB[0, 0, 0]))
  media = read(tmp_path / "g.png")
  hidden = RGB[..., 0] == RGB[0, 0, 0]
  np.testing.assert_array_equal(media.frames[0, ..., 0], np.where(hidden, 0, RGB[..., 0]))


def test_palettes_inks_and_bits(tmp_path):
  few = (RGB // 64) * 80
  Image.fromarray(few).quantize(64).save(tmp_path / "p.png")
  np.testing.assert_allclose(read(tmp_path / "p.png").frames[0].astype(int), few, atol=2)
  bits = RGB[..., 0] > 100
  Image.fromarray(bits).save(tmp_path / "b.png")
  np.testing.assert_array_equal(read(tmp_path / "b.png").frames[0, ..., 0], bits * np.uint8(255))
  inks = np.dstack([RGB, np.full((13, 17), 30, np.uint8)])
  Image.fromarray(inks, "CMYK").save(tmp_path / "k.tiff")
  media = read(tmp_path / "k.tiff")
  want = (255 - RGB.astype(float)) * (255 - 30) / 255
  np.testing.assert_allclose(media.frames[0], want, atol=1.01)
  assert any("CMYK" in n for n in media.notes)
  Image.fromarray(RGB, "LAB").save(tmp_path / "l.tiff")
  with pytest.raises(BadRecord, match="colour mode LAB; expected grey or RGB"):
    read(tmp_path / "l.tiff")


def test_grey_stored_as_colour_is_one_channel(tmp_path):
  grey = RGB[..., :1]
  Image.fromarray(grey.repeat(3, axis=2)).save(tmp_path / "a.png")
  for preset in ("radiology", "hulumed"):
    np.testing.assert_array_equal(read(tmp_path / "a.png", preset=preset).frames[0], grey)


def test_of_a_multi_picture_file_the_first_is_read(tmp_path):
  small = Image.fromarray(RGB[:5, :5])
  Image.fromarray(np.tile(RGB, (8, 8, 1))).save(
    tmp_path / "a.jpg", "MPO", save_all=True, append_images=[small]
  )
  media = read(tmp_path / "a.jpg")
  assert media.frames.shape == (1, 104, 136, 3)
  assert "a file of 2 pictures: the first was read" in media.notes


def test_refused_pictures(tmp_path):
  Image.fromarray(RGB).save(tmp_path / "a.bmp")
  with pytest.raises(BadRecord, match="unknown kind; expected PNG"):
    read(tmp_path / "a.bmp")
  pages = [Image.fromarray(RGB), Image.fromarray(RGB)]
  pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
  with pytest.raises(BadRecord, match="a TIFF of 2 pages; expected one: save the wanted pages"):
    read(tmp_path / "a.tiff")
  other = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
  for suffix in ("png", "webp"):
    other[0].save(tmp_path / f"m.{suffix}", save_all=True, append_images=other[1:])
    with pytest.raises(BadRecord, match="an animation of 2 frames; .* save it as a video or GIF"):
      read(tmp_path / f"m.{suffix}")
  Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
  with pytest.raises(BadRecord, match="beyond the limit of 64,000,000 pixels"):
    read(tmp_path / "bomb.png")
  Image.fromarray(RGB).save(tmp_path / "a.png")
  for options, what in (
    (Options(window="lung"), "window does"),
    (Options(fps=1, plane="axial"), "fps and plane do"),
  ):
    with pytest.raises(BadRecord, match=f"{what} not apply to a picture file"):
      read(tmp_path / "a.png", options)
  with pytest.raises(BadRecord, match="value_range does not apply to pictures of 8 bits"):
    read(tmp_path / "a.png", Options(value_range=(0, 100)))
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
  # Columns 2 mm apart are interpolated to pixels as wide as they are high.
  assert media.frames.shape == (4, 6, 10, 1) and media.spacing_mm == (3.0, 1.0, 1.0)
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
