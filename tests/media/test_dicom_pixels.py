"""DICOM pixels as stored: forms, bits and colours against numpy and PIL, and files that lie."""

import io
from pathlib import Path
import tracemalloc

import numpy as np
import openjpeg
import PIL.Image
import pydicom
from pydicom import uid as uids
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import read
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import pixels
from tests.media.made import dicom_dataset

# The rows of pydicom's SC_rgb_* pictures: ten stripes of 10 rows.
STRIPES = np.array(
  [
    *((255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255)),
    *((128, 128, 255), (0, 0, 0), (64, 64, 64), (192, 192, 192), (255, 255, 255)),
  ]
)
RNG = np.random.default_rng(7)


def example(name: str) -> Path:
  return Path(get_testdata_file(name, download=False))


def save(tmp_path, dataset, name="a") -> Path:
  path = tmp_path / name
  dataset.save_as(path, enforce_file_format=True)
  return path


def stored(path: Path, taken=(0,)) -> np.ndarray:
  return pixels.decode(path, taken)[0]


def colour(size=(6, 8)) -> np.ndarray:
  return RNG.integers(0, 256, (1, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
  "name",
  [
    *("MR_small_RLE", "MR_small_bigendian", "MR_small_expb", "MR_small_implicit"),
    *("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_padded"),
  ],
)
def test_one_mr_slice_is_the_same_in_every_encoding(name):
  plain = pydicom.dcmread(example("MR_small.dcm"))
  expected = np.frombuffer(plain.PixelData, "<i2").reshape(1, 64, 64)
  np.testing.assert_array_equal(stored(example(f"{name}.dcm")), expected)


@pytest.mark.parametrize(
  ("name", "tolerance"),
  [
    *[(f"SC_rgb_{k}", 0) for k in ("rle", "rle_16bit", "rle_32bit", "rle_2frame", "gdcm_KY")],
    *[(f"SC_rgb_dcmtk_+eb+{k}", 5) for k in ("cr", "cy+n1", "cy+n2", "cy+np", "cy+s2", "cy+s4")],
    *[(f"SC_rgb_{k}", 5) for k in ("jpeg_dcmtk", "jpeg_lossy_gdcm")],
    *[(f"SC_rgb_jls_lossy_{k}", 3) for k in ("line", "sample")],
    ("SC_ybr_full_422_uncompressed", 5),
  ],
)
def test_one_colour_picture_is_the_same_in_every_encoding(name, tolerance):
  """In the middle of each stripe, where lossy encodings do not ring."""
  frame = stored(example(f"{name}.dcm"))[0].astype(int)
  assert frame.shape == (100, 100, 3)
  for k, expected in enumerate(STRIPES):
    assert np.abs(frame[10 * k + 3 : 10 * k + 7] - expected).max() <= tolerance, f"stripe {k}"


def test_second_frames_and_odd_sizes():
  frames = stored(example("SC_rgb_rle_2frame.dcm"), (1, 0))
  np.testing.assert_array_equal(frames[0, 5::10, 0], 255 - STRIPES)  # made as the negative
  np.testing.assert_array_equal(frames[1, 5::10, 0], STRIPES)
  odd = np.array([[166, 141, 52], [63, 87, 176], [158, 158, 158]])
  for name in ("SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm"):
    np.testing.assert_array_equal(stored(example(name))[0, :, 0], odd)


def test_jpeg_2000_with_a_wrong_sign_is_corrected():
  """Signed numbers of 13 bits encoded as if they were unsigned: two's complement by hand."""
  path = example("J2K_pixelrep_mismatch.dcm")
  frame = next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))
  raw = openjpeg.decode(frame)
  assert raw.dtype == np.uint16 and raw.max() > 4096
  expected = raw.astype(int) - 8192 * (raw >= 4096)
  np.testing.assert_array_equal(stored(path)[0], expected)
  assert expected.min() == -2000  # what this scanner writes outside of its circle


def test_jpeg_2000_in_a_wrapper_that_dicom_does_not_allow():
  """A JP2 file as a frame: grey with three words, each in its own colour."""
  frame = stored(example("GDCMJ2K_TextGBR.dcm"))[0]
  assert frame.shape == (400, 400, 3) and tuple(frame[0, 0]) == (128, 128, 128)
  words = [frame[55:135], frame[155:240], frame[260:340]]
  for channel, word in enumerate(words):
    bright = (word[..., channel] > 250) & (word.sum(axis=-1) < 260)
    assert bright.sum() > 1000


def test_near_lossless_jpeg_ls_stays_near():
  """Stripes of 5 rows that halve; encoded with at most 5 levels of error."""
  values = stored(example("JPEGLSNearLossless_08.dcm"))[0].astype(int)
  halves = np.array([255, 128, 64, 32, 16, 8, 4, 2, 1])
  assert np.abs(values[2::5, 0] - halves).max() <= 5
  assert (values[:, :1] == values).all()


@pytest.mark.parametrize(
  ("bits", "high", "signed"),
  [(12, 11, 0), (12, 11, 1), (12, 15, 0), (12, 15, 1), (10, 12, 0), (10, 12, 1), (16, 15, 1)],
)
def test_only_stored_bits_count(tmp_path, bits, high, signed):
  """Rubbish in every other bit, as overlays once were kept there (PS3.5 8.1.1)."""
  wanted = RNG.integers(-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed), (1, 4, 6))
  low = high + 1 - bits
  mask = (2**bits - 1) << low
  rubbish = RNG.integers(0, 2**16, wanted.shape) & ~mask & 0xFFFF
  raw = ((wanted << low) & mask | rubbish).astype(np.uint16)
  elements = {"BitsStored": bits, "HighBit": high, "PixelRepresentation": signed}
  path = save(tmp_path, dicom_dataset(raw, **elements))
  np.testing.assert_array_equal(stored(path), wanted)


@pytest.mark.parametrize("syntax", [uids.ExplicitVRLittleEndian, uids.ExplicitVRBigEndian])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_integers_of_every_width_and_order(tmp_path, kind, syntax):
  info = np.iinfo(kind)
  wanted = RNG.integers(info.min, info.max, (2, 3, 5), dtype=kind, endpoint=True)
  big = syntax == uids.ExplicitVRBigEndian
  raw = wanted.astype(wanted.dtype.newbyteorder(">" if big else "<"))
  dataset = dicom_dataset(raw, PixelRepresentation=int(info.min < 0))
  dataset.file_meta.TransferSyntaxUID = syntax
  dataset["PixelData"].VR = "OW" if wanted.itemsize > 1 else "OB"
  path = tmp_path / "a"
  pydicom.dcmwrite(
    path, dataset, implicit_vr=False, little_endian=not big, force_encoding=True, overwrite=True
  )
  frames = stored(path, (1, 0))
  np.testing.assert_array_equal(frames, wanted[::-1])
  assert frames.dtype == np.dtype(kind)


def test_bytes_kept_as_words_in_big_endian(tmp_path):
  """8-bit pixels under OW are swapped in pairs, across the border of odd frames."""
  wanted = RNG.integers(0, 256, (3, 3, 5), dtype=np.uint8)
  dataset = dicom_dataset(wanted)
  dataset.file_meta.TransferSyntaxUID = uids.ExplicitVRBigEndian
  words = np.append(wanted.ravel(), 0).astype(np.uint8).reshape(-1, 2)[:, ::-1]
  dataset.PixelData = words.tobytes()
  dataset["PixelData"].VR = "OW"
  path = tmp_path / "a"
  pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
  np.testing.assert_array_equal(stored(path, (2, 0, 1)), wanted[[2, 0, 1]])


def test_frames_of_single_bits_share_bytes(tmp_path):
  wanted = RNG.integers(0, 2, (5, 3, 7), dtype=np.uint8)
  dataset = dicom_dataset(wanted, BitsAllocated=1, BitsStored=1, HighBit=0)
  packed = np.packbits(wanted.ravel(), bitorder="little").tobytes()
  dataset.PixelData = packed + b"\0" * (len(packed) % 2)
  np.testing.assert_array_equal(stored(save(tmp_path, dataset), (4, 0, 1)), wanted[[4, 0, 1]])


@pytest.mark.parametrize(
  ("kind", "keyword"), [("f4", "FloatPixelData"), ("f8", "DoubleFloatPixelData")]
)
def test_float_pixels(tmp_path, kind, keyword):
  wanted = RNG.normal(size=(2, 4, 5)).astype(kind)
  dataset = dicom_dataset(wanted, BitsAllocated=wanted.itemsize * 8)
  del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
  setattr(dataset, keyword, wanted.tobytes())
  frames = stored(save(tmp_path, dataset), (1,))
  np.testing.assert_array_equal(frames, wanted[1:])
  assert frames.dtype == np.dtype(kind)


def test_planes_and_ybr_of_uncompressed_colour(tmp_path):
  rgb = colour()
  planes = dicom_dataset(rgb, PlanarConfiguration=1)
  planes.PixelData = rgb.transpose(0, 3, 1, 2).tobytes()
  np.testing.assert_array_equal(stored(save(tmp_path, planes, "planes")), rgb)
  # PIL's YCbCr is JFIF's, and so is DICOM's YBR_FULL (PS3.3 C.7.6.3.1.2).
  ybr = np.array(PIL.Image.fromarray(rgb[0]).convert("YCbCr"))
  expected = np.array(PIL.Image.fromarray(ybr, "YCbCr").convert("RGB")).astype(int)
  full = dicom_dataset(ybr[None], PhotometricInterpretation="YBR_FULL")
  assert np.abs(stored(save(tmp_path, full, "full"))[0] - expected).max() <= 1
  shared = ybr.copy()
  shared[:, 1::2, 1:] = shared[:, ::2, 1:]
  expected = np.array(PIL.Image.fromarray(shared, "YCbCr").convert("RGB")).astype(int)
  half = dicom_dataset(ybr[None], PhotometricInterpretation="YBR_FULL_422")
  pairs = [shared[:, ::2, 0], shared[:, 1::2, 0], shared[:, ::2, 1], shared[:, ::2, 2]]
  half.PixelData = np.stack(pairs, axis=-1).tobytes()
  assert np.abs(stored(save(tmp_path, half, "half"))[0] - expected).max() <= 1


def test_deep_colour_becomes_bytes(tmp_path):
  deep = RNG.integers(0, 4096, (1, 5, 6, 3), dtype=np.uint16)
  path = save(tmp_path, dicom_dataset(deep, BitsStored=12, HighBit=11))
  np.testing.assert_array_equal(
    stored(path), np.floor(deep.astype(float) * 255 / 4095 + 0.5).astype(np.uint8)
  )


def test_an_overlay_is_never_drawn():
  dataset = pydicom.dcmread(example("examples_overlay.dcm"))
  assert (0x6000, 0x3000) in dataset
  expected = np.frombuffer(dataset.PixelData, "<u2").reshape(1, 300, 484)
  np.testing.assert_array_equal(stored(example("examples_overlay.dcm")), expected)


def test_a_large_cine_is_read_by_the_frame(tmp_path):
  """2 of 400 frames: neither the file's bytes nor the other frames are ever held."""
  frames = np.broadcast_to(np.arange(400, dtype=np.uint16)[:, None, None], (400, 128, 128))
  path = save(tmp_path, dicom_dataset(frames))
  tracemalloc.start()
  found = stored(path, (399, 7))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert found[:, 0, 0].tolist() == [399, 7]
  assert peak < 20 * frames[0].nbytes < frames.nbytes / 10


@pytest.mark.parametrize("syntax", [uids.ImplicitVRLittleEndian, uids.ExplicitVRLittleEndian])
def test_archives_without_preamble_or_meta(tmp_path, syntax):
  wanted = RNG.integers(0, 256, (1, 9, 7), dtype=np.uint8)
  dataset = dicom_dataset(wanted, Modality="OT")
  path, implicit = tmp_path / "a", syntax == uids.ImplicitVRLittleEndian
  bare = pydicom.Dataset(dataset)
  bare.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
  assert path.read_bytes()[:2] == b"\x08\x00"
  np.testing.assert_array_equal(stored(path), wanted)
  np.testing.assert_array_equal(read(path).frames[..., 0], wanted)
  dataset.preamble = None  # meta alone
  dataset.save_as(path, enforce_file_format=False)
  assert path.read_bytes()[:2] == b"\x02\x00"
  np.testing.assert_array_equal(read(path).frames[..., 0], wanted)


def test_other_files_are_not_taken_for_dicom(tmp_path):
  buffer = io.BytesIO()
  np.savez(buffer, a=np.zeros(99))
  for head in (
    b"",
    bytes(540),
    b"\x08\x00" * 270,
    b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + b"text that is no element" * 30,
    b"\x02\x00\x00\x00" + bytes(536),
    buffer.getvalue()[:540],
    Path(__file__).read_bytes()[:540],
    b"\x7fELF\x02\x01\x01" + bytes(533),
  ):
    assert not header.looks_like_dicom(head)
  flips = [RNG.bytes(540) for _ in range(2000)]
  assert not any(header.looks_like_dicom(b"\x08\x00" + head) for head in flips)


@pytest.mark.parametrize(
  ("elements", "expected"),
  [
    ({"Rows": 5}, "30 bytes of pixels where 1 frames need 40"),
    ({"Rows": 3, "Columns": 3}, "24 bytes of pixels; 1 frames need 9"),
    ({"NumberOfFrames": 2}, "24 bytes of pixels where 2 frames need 48"),
    ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "12 bits allocated"),
    ({"HighBit": 3}, "high bit 3"),
    ({"PhotometricInterpretation": "RGB"}, "RGB of 1 samples"),
    ({"SamplesPerPixel": 3}, "MONOCHROME2 of 3 samples"),
    ({"SamplesPerPixel": 4, "PhotometricInterpretation": "CANARY"}, "another colour space of 4"),
  ],
)
def test_headers_that_do_not_fit_their_pixels(tmp_path, elements, expected):
  dataset = dicom_dataset(np.zeros((1, 4, 6), np.uint8))
  for keyword, value in elements.items():
    setattr(dataset, keyword, value)
  if elements == {"Rows": 5}:
    dataset.Columns = 8
    dataset.PixelData = bytes(30)
  with pytest.raises(BadRecord, match=expected) as caught:
    stored(save(tmp_path, dataset))
  assert "CANARY" not in str(caught.value)


def test_a_file_cut_off_in_its_pixels(tmp_path):
  data = save(tmp_path, dicom_dataset(np.ones((3, 8, 8), np.uint8))).read_bytes()
  for lost in (1, 64, 150, 192):
    (tmp_path / "cut").write_bytes(data[:-lost])
    with pytest.raises(BadRecord, match="cut off|without PixelData"):
      stored(tmp_path / "cut", (0,))
