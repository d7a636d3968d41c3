"""Compressed DICOM: which fragments make a frame, what is decoded, palettes, and damaged files."""

import io
from pathlib import Path
import struct

import av
import numpy as np
from openjpeg import utils as openjpeg_utils
import PIL.Image
import pydicom
from pydicom import uid as uids
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.encaps import encapsulate_extended
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media.dicom import compressed
from hulu_jax.media.dicom import pixels
from tests.media.made import US_MULTI_CLASS
from tests.media.made import dicom_dataset

RNG = np.random.default_rng(3)
SIZE = (16, 24)


def jpeg(grey: int) -> bytes:
  buffer = io.BytesIO()
  PIL.Image.fromarray(np.full(SIZE, grey, np.uint8)).save(buffer, "JPEG")
  return buffer.getvalue()


def item(data: bytes, odd: bool = False) -> bytes:
  """odd: a length that DICOM forbids and some write."""
  data += b"\0" * (len(data) % 2 != odd)
  return b"\xfe\xff\x00\xe0" + struct.pack("<L", len(data)) + data


def cine(tmp_path, data: bytes, frames=3, syntax=uids.JPEGBaseline8Bit, **elements) -> Path:
  """A cine whose encapsulated pixels are `data`, items and all, without the last delimiter."""
  shape = (frames, *SIZE)
  defaults = {"Modality": "US", "SOPClassUID": US_MULTI_CLASS}
  dataset = dicom_dataset(np.zeros(shape, np.uint8), **(defaults | elements))
  dataset.file_meta.TransferSyntaxUID = syntax
  dataset.PixelData = data
  dataset["PixelData"].VR = "OB"
  dataset["PixelData"].is_undefined_length = True
  path = tmp_path / "cine"
  dataset.save_as(path, enforce_file_format=True)
  return path


def greys(path: Path, taken) -> list[int]:
  return [int(frame[5, 5]) for frame in pixels.decode(path, taken)[0]]


def test_fragments_become_frames_however_they_are_listed(tmp_path):
  frames = [jpeg(k) for k in (40, 80, 120)]
  halves = [part for f in frames for part in (f[:200], f[200:])]
  plain = item(b"") + b"".join(map(item, frames))
  split = item(b"") + b"".join(map(item, halves))
  wrong_table = item(struct.pack("<3L", 0, 77, 99)) + b"".join(map(item, frames))
  lone_zero = item(struct.pack("<L", 0)) + b"".join(map(item, halves))
  table = encapsulate(frames, fragments_per_frame=2, has_bot=True)
  for data in (plain, split, wrong_table, lone_zero, table, encapsulate(frames)):
    path = cine(tmp_path, data)
    assert greys(path, (0, 1, 2)) == [40, 80, 120]
    assert greys(path, (2, 0)) == [120, 40]
  data, offsets, lengths = encapsulate_extended(frames)
  tables = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
  assert greys(cine(tmp_path, data, **tables), (2, 1)) == [120, 80]
  odd = item(b"") + item(frames[0], odd=True) + item(frames[1], odd=True) + item(frames[2])
  assert greys(cine(tmp_path, odd), (1, 2)) == [80, 120]


@pytest.mark.parametrize(
  ("build", "frames", "expected"),
  [
    (lambda f: item(b"") + item(f[0]) + item(f[1]), 3, "2 fragments of pixels for 3 frames"),
    (lambda f: item(b"") + b"".join(map(item, f)), 2, "3 frames in 3 fragments .* header says 2"),
    (lambda f: item(b"") + item(f[0]) + item(f[1]), 1, "2 frames in 2 fragments .* says 1"),
    (lambda f: encapsulate(f), 2, "3 frames in 3 fragments of pixels; the header says 2"),
    (lambda f: item(b""), 1, "0 fragments of pixels for 1 frames"),
    (lambda f: item(b"\1\2") + item(f[0]), 1, "without a valid Basic Offset Table"),
    (lambda f: item(b"") + item(f[0]) + b"rubbish!" + item(f[1]), 2, "other data among"),
    (lambda f: item(b"") + item(f[0])[:-9], 1, "leaves the file|other data|the end of the file"),
    (lambda f: item(b"") + item(f[0][:250]), 1, "cannot be decoded"),
    (lambda f: item(b"") + item(b"\0" * 300), 1, "does not start as its transfer syntax says"),
  ],
)
def test_frames_that_are_missing_or_too_many(tmp_path, build, frames, expected):
  data = build([jpeg(k) for k in (40, 80, 120)])
  with pytest.raises(BadRecord, match=expected) as caught:
    pixels.decode(cine(tmp_path, data, frames), range(frames))
  assert caught.value.kind == "format"


def test_a_frame_of_another_shape_is_not_squeezed_in(tmp_path):
  """Half as high and twice as wide: as many pixels, another picture."""
  buffer = io.BytesIO()
  PIL.Image.fromarray(np.zeros((SIZE[0] // 2, SIZE[1] * 2), np.uint8)).save(buffer, "JPEG")
  with pytest.raises(BadRecord, match="8 x 48 x 1 samples; the header says 16 x 24 x 1"):
    pixels.decode(cine(tmp_path, encapsulate([buffer.getvalue()]), 1), (0,))
  buffer = io.BytesIO()
  PIL.Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(buffer, "JPEG2000")
  path = cine(tmp_path, encapsulate([buffer.getvalue()]), 1, uids.JPEG2000Lossless)
  with pytest.raises(BadRecord, match="16 x 24 x 3 samples; the header says 16 x 24 x 1"):
    pixels.decode(path, (0,))


def test_only_the_asked_frames_are_decoded(tmp_path, monkeypatch):
  """32 of 1,000 frames, as `read` takes them."""
  count, decode = [], compressed.decode
  monkeypatch.setattr(
    pixels.compressed, "decode", lambda data, form: count.append(1) or decode(data, form)
  )
  frames = [jpeg(k % 250) for k in range(50)] * 20
  media = read(cine(tmp_path, encapsulate(frames), 1000), Options(frames=32))
  assert len(count) == 32 and media.frames.shape == (32, *SIZE, 1)
  assert media.slices[:3] == (0, 32, 64)
  assert [int(f[5, 5, 0]) for f in media.frames[:3]] == [0, 32, 14]


def test_colours_of_jpeg_follow_the_frame_before_the_header(tmp_path):
  """A frame without any marker is as the header says; one with a marker knows better."""
  rgb = np.broadcast_to(np.array([200, 60, 20], np.uint8), (1, *SIZE, 3))
  buffer = io.BytesIO()
  PIL.Image.fromarray(rgb[0]).save(buffer, "JPEG", quality=100, subsampling=0)
  marked = buffer.getvalue()
  assert marked[6:10] == b"JFIF"
  unmarked = marked[:2] + marked[20:]  # without the APP0 segment
  as_if_ybr = np.array(PIL.Image.fromarray(rgb[0]).convert("YCbCr"))[5, 5].astype(int)
  for data, photometric, expected in (
    (marked, "RGB", rgb[0, 5, 5]),
    (marked, "YBR_FULL_422", rgb[0, 5, 5]),
    (unmarked, "YBR_FULL", rgb[0, 5, 5]),
    (unmarked, "RGB", as_if_ybr),
  ):
    dataset = dicom_dataset(rgb, PhotometricInterpretation=photometric)
    dataset.file_meta.TransferSyntaxUID = uids.JPEGBaseline8Bit
    dataset.PixelData = encapsulate([data])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    found = pixels.decode(tmp_path / "a", (0,))[0][0, 5, 5].astype(int)
    assert np.abs(found - expected).max() <= 2, photometric


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [uids.JPEGLSLossless, uids.JPEG2000Lossless, uids.RLELossless])
def test_lossless_syntaxes_return_what_was_stored(tmp_path, syntax, bits, signed):
  low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
  kind = f"{'i' if signed else 'u'}{1 if bits == 8 else 2}"
  wanted = RNG.integers(low, high, (40, 48)).astype(kind)
  dataset = dicom_dataset(wanted, BitsStored=bits, HighBit=bits - 1)
  if syntax == uids.JPEG2000Lossless:
    dataset.PixelData = encapsulate([openjpeg_utils.encode_array(wanted, bits_stored=bits)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
  else:
    dataset.compress(syntax, generate_instance_uid=False)
  dataset.save_as(tmp_path / "a", enforce_file_format=True)
  np.testing.assert_array_equal(pixels.decode(tmp_path / "a", (0,))[0][0], wanted)


def test_what_needs_another_codec_names_it():
  for name, bits in (("SC_rgb_jpeg_gdcm.dcm", 8), ("JPGExtended.dcm", 12)):
    with pytest.raises(BadRecord, match=f"{bits}-bit pixels in JPEG .*hulu_jax.gpl-codecs"):
      pixels.decode(Path(get_testdata_file(name, download=False)), (0,))


@pytest.mark.parametrize(
  ("syntax", "expected"),
  [
    ("1.2.840.10008.1.2.4.52", "JPEG Extended .Process 3 and 5., which is not read"),
    ("1.2.3.4.5", "an unknown transfer syntax, which is not read"),
  ],
)
def test_syntaxes_that_are_not_read(tmp_path, syntax, expected):
  with pytest.raises(BadRecord, match=expected):
    pixels.decode(cine(tmp_path, encapsulate([jpeg(9)]), 1, syntax), (0,))


def test_pixels_in_fragments_only_where_the_syntax_says_so(tmp_path):
  """Run-length and plain syntaxes swapped in the file; their names are equally long."""
  plain, run = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"
  bare = dicom_dataset(np.zeros(SIZE, np.uint8))
  bare.save_as(tmp_path / "bare", enforce_file_format=True)
  (tmp_path / "bare").write_bytes((tmp_path / "bare").read_bytes().replace(plain, run))
  with pytest.raises(BadRecord, match="pixels that are not in fragments in RLE Lossless"):
    pixels.decode(tmp_path / "bare", (0,))
  path = cine(tmp_path, encapsulate([bytes(64)]), 1, uids.RLELossless)
  path.write_bytes(path.read_bytes().replace(run, plain))
  with pytest.raises(BadRecord, match="pixels in fragments in Explicit VR Little Endian"):
    pixels.decode(path, (0,))


def film(codec: str, container: str, frames=6) -> bytes:
  """Flat frames of 32 x 48 that grow brighter."""
  buffer = io.BytesIO()
  with av.open(buffer, "w", format=container) as out:
    stream = out.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
    for k in range(frames):
      flat = np.full((32, 48, 3), 30 * k + 20, np.uint8)
      out.mux(stream.encode(av.VideoFrame.from_ndarray(flat, format="rgb24")))
    out.mux(stream.encode(None))
  return buffer.getvalue()


@pytest.mark.parametrize(
  ("codec", "container", "syntax"),
  [
    ("mpeg2video", "mpeg2video", uids.MPEG2MPML),
    ("mpeg2video", "mpegts", uids.MPEG2MPHL),
    ("mpeg4", "mp4", uids.MPEG4HP41),
  ],
)
def test_a_film_is_decoded_whole_and_counted(tmp_path, codec, container, syntax):
  data = encapsulate([film(codec, container)], has_bot=False)
  elements = {
    **{"Rows": 32, "Columns": 48, "SamplesPerPixel": 3, "PlanarConfiguration": 0},
    "PhotometricInterpretation": "YBR_PARTIAL_420",
  }
  path = cine(tmp_path, data, 6, syntax, **elements)
  found = pixels.decode(path, (5, 1))[0]
  assert found.shape == (2, 32, 48, 3)
  assert np.abs(found[:, 16, 24].astype(int) - [[170], [50]]).max() <= 4
  assert read(path).frames.shape == (6, 32, 48, 3)
  with pytest.raises(BadRecord, match="6 frames in the stream; the header says 9"):
    pixels.decode(cine(tmp_path, data, 9, syntax, **elements), (0,))
  with pytest.raises(BadRecord, match="more than 4 frames in the stream"):
    pixels.decode(cine(tmp_path, data, 4, syntax, **elements), (0,))
  with pytest.raises(BadRecord, match="frames of 32 x 48; the header says 32 x 64"):
    pixels.decode(cine(tmp_path, data, 6, syntax, **(elements | {"Columns": 64})), (0,))


def palette(stored, tables, first=0, bits=16, entries=None, **elements) -> pydicom.FileDataset:
  """tables: bytes of the red, green and blue tables."""
  dataset = dicom_dataset(stored, PhotometricInterpretation="PALETTE COLOR", **elements)
  entries = len(tables[0]) // 2 if entries is None else entries
  for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
    descriptor = [entries, first, bits]
    setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", descriptor)
    setattr(dataset, f"{colour}PaletteColorLookupTableData", table)
  return dataset


def shown(tmp_path, dataset) -> np.ndarray:
  dataset.save_as(tmp_path / "palette", enforce_file_format=True)
  return pixels.decode(tmp_path / "palette", (0,))[0][0]


def test_palettes_of_8_and_16_bits(tmp_path):
  colours = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
  numbers = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)
  expected = colours[np.clip(numbers, 0, 3)]  # beyond the table: its last entry
  wide = [(colours[:, k].astype("<u2") * 257).tobytes() for k in range(3)]
  narrow = [colours[:, k].astype("<u2").tobytes() for k in range(3)]
  packed = [colours[:, k].tobytes() for k in range(3)]
  for tables, bits in ((wide, 16), (narrow, 16), (narrow, 8), (packed, 8)):
    found = shown(tmp_path, palette(numbers, tables, bits=bits, entries=4))
    np.testing.assert_array_equal(found, expected)


def test_palettes_that_start_elsewhere(tmp_path):
  colours = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
  tables = [(colours[:, k].astype("<u2") * 257).tobytes() for k in range(3)]
  signed = np.array([[-5, -2, -1], [0, 1, 90]], np.int16)
  found = shown(tmp_path, palette(signed, tables, first=-2))
  np.testing.assert_array_equal(found, colours[np.clip(signed + 2, 0, 3)])
  high = np.array([[0, 1000, 1001], [1003, 1004, 65535]], np.uint16)
  found = shown(tmp_path, palette(high, tables, first=1000))
  np.testing.assert_array_equal(found, colours[np.clip(high.astype(int) - 1000, 0, 3)])


def test_a_palette_of_65536_entries_says_zero(tmp_path):
  ramp = np.arange(65536, dtype="<u2").tobytes()
  numbers = RNG.integers(0, 65536, (4, 5), dtype=np.uint16)
  found = shown(tmp_path, palette(numbers, [ramp] * 3, entries=0))
  np.testing.assert_array_equal(found, np.repeat((numbers >> 8)[..., None], 3, axis=-1))


def test_palettes_of_big_endian_files(tmp_path):
  """Words of 16 bits, and bytes that lie in pairs in such words."""
  colours = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
  numbers = np.array([[0, 1], [2, 3]], np.uint8)
  wide = [(colours[:, k].astype(">u2") * 257).tobytes() for k in range(3)]
  pairs = [colours[:, k].reshape(2, 2)[:, ::-1].tobytes() for k in range(3)]
  for tables, bits in ((wide, 16), (pairs, 8)):
    dataset = palette(numbers, tables, bits=bits, entries=4)
    dataset.file_meta.TransferSyntaxUID = uids.ExplicitVRBigEndian
    dataset["PixelData"].VR = "OB"
    path = tmp_path / "big"
    options = {"implicit_vr": False, "little_endian": False, "force_encoding": True}
    pydicom.dcmwrite(path, dataset, overwrite=True, **options)
    np.testing.assert_array_equal(pixels.decode(path, (0,))[0][0], colours[numbers])


def test_segmented_palettes(tmp_path):
  """Two values, a line of four steps, and the first segment again (PS3.3 C.7.9.2)."""
  words = [0, 2, 0, 1000, 1, 4, 5000, 2, 1, 0, 0]
  dataset = palette(np.arange(8, dtype=np.uint8)[None], [b"\0\0"] * 3, entries=8)
  for colour in ("Red", "Green", "Blue"):
    del dataset[f"{colour}PaletteColorLookupTableData"]
    data = np.array(words, "<u2").tobytes()
    setattr(dataset, f"Segmented{colour}PaletteColorLookupTableData", data)
  expected = np.array([0, 1000, 2000, 3000, 4000, 5000, 0, 1000]) >> 8
  np.testing.assert_array_equal(shown(tmp_path, dataset)[0, :, 0], expected)
  for bad in ([1, 4, 5000], [7, 1, 2], [0, 2, 0, 1000], [0, 1, 5, 2, 1, 9999, 9999]):
    dataset.SegmentedGreenPaletteColorLookupTableData = np.array(bad, "<u2").tobytes()
    with pytest.raises(BadRecord, match="segmented colour table"):
      shown(tmp_path, dataset)


def test_palettes_that_are_missing_or_too_short(tmp_path):
  numbers = np.zeros((2, 2), np.uint8)
  with pytest.raises(BadRecord, match="6 bytes for 9 entries"):
    shown(tmp_path, palette(numbers, [b"\0" * 6] * 3, entries=9))
  with pytest.raises(BadRecord, match="a colour table of 12 bits"):
    shown(tmp_path, palette(numbers, [b"\0" * 6] * 3, bits=12))
  bare = palette(numbers, [b"\0" * 6] * 3)
  del bare.GreenPaletteColorLookupTableDescriptor
  with pytest.raises(BadRecord, match="without its lookup tables"):
    shown(tmp_path, bare)


def test_the_palette_example_equals_its_table():
  path = Path(get_testdata_file("examples_palette.dcm", download=False))
  dataset = pydicom.dcmread(path)
  numbers = np.frombuffer(dataset.PixelData, np.uint8)[: 350 * 800].reshape(350, 800)
  for k, colour in enumerate(("Red", "Green", "Blue")):
    table = np.frombuffer(dataset[f"{colour}PaletteColorLookupTableData"].value, "<u2")
    np.testing.assert_array_equal(pixels.decode(path, (0,))[0][0, ..., k], (table >> 8)[numbers])


@pytest.mark.parametrize(
  "name",
  ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "SC_rgb_jpeg_dcmtk"],
)
def test_truncated_compressed_files_are_never_half_black(tmp_path, name):
  data = Path(get_testdata_file(f"{name}.dcm", download=False)).read_bytes()
  start, end = data.rfind(b"\xe0\x7f\x10\x00"), data.rfind(b"\xfe\xff\xdd\xe0")
  for cut in (start + 4, start + 30, (start + end) // 2, end - 20, end - 1, end + 3):
    (tmp_path / "cut").write_bytes(data[:cut])
    with pytest.raises(BadRecord):
      read(tmp_path / "cut")
