"""Small files that claim or inflate to gigabytes: refused from headers, fast, in little memory.

Each is read in a process that ends at five seconds or one gigabyte; either would be another error
than the one expected.
"""

import gzip
import io
import struct
import zlib

import nibabel
import numpy as np
from PIL import Image
import pydicom
from pydicom import encaps
from pydicom import uid
from pydicom.dataset import Dataset
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Options
from hulu_jax.media.worker import Reader
from tests.media import measured
from tests.media import tiny


@pytest.fixture(scope="module")
def reader():
  with Reader(timeout=5, target=measured.read) as own:
    yield own


def chunk(kind, data):
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits=1, extra=b"", data=b""):
  head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
  body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", data or zlib.compress(b"\0" * 100))
  return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def whole_png(side):
  """A true picture of one bit a pixel: all of it is there."""
  rows = zlib.compressobj(9)
  row = b"\0" * (1 + side // 8)
  data = b"".join(rows.compress(row) for _ in range(side)) + rows.flush()
  return png(side, side, data=data)


def text_png(kind):
  zeros = zlib.compress(b"\0" * 200_000_000, 9)
  head = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
  return png(8, 8, extra=chunk(kind, head + zeros), data=zlib.compress(b"\0\0" * 8))


def patched(data, place, change):
  return data[:place] + change + data[place + len(change) :]


def jpeg_of_another_size():
  data = tiny.picture("JPEG")
  return patched(data, data.index(b"\xff\xc0") + 5, b"\xff\xff\xff\xff")


def tiff(width, height):
  out = io.BytesIO()
  Image.new("L", (8, 8)).save(out, "TIFF", tiffinfo={256: 8, 257: 8})
  data = bytearray(out.getvalue())
  (first,) = struct.unpack_from("<I", data, 4)
  for entry in range(struct.unpack_from("<H", data, first)[0]):
    place = first + 2 + 12 * entry
    tag = struct.unpack_from("<H", data, place)[0]
    if tag in (256, 257):
      struct.pack_into("<HII", data, place + 2, 4, 1, width if tag == 256 else height)
  return bytes(data)


def webp():
  """VP8X with a canvas of 16 million squared, the most its header can say."""
  canvas = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff" * 6
  body = b"WEBP" + canvas + tiny.picture("WEBP")[12:]
  return b"RIFF" + struct.pack("<I", len(body)) + body


def nifti(shape, offset=352.0, kind=nibabel.Nifti1Header):
  header = kind()
  header["dim"][: len(shape) + 1] = [len(shape), *shape]
  header["datatype"], header["bitpix"] = 4, 16
  header["vox_offset"] = offset
  header["magic"] = b"n+1" if kind is nibabel.Nifti1Header else b"n+2"
  return header.binaryblock + b"\0" * 4


def inflating(head, size):
  """`head` and zeros, `size` bytes in all, as gzip of about a thousandth, without its checksum."""
  packer, more = zlib.compressobj(9, wbits=31), zlib.compressobj(9, wbits=-15)
  start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
  # What follows a full flush knows nothing of what was before: it can be said again and again.
  block = more.compress(b"\0" * 10_000_000) + more.flush(zlib.Z_FULL_FLUSH)
  return start + block * (size // 10_000_000)


def npy(text, version=(1, 0)):
  size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
  return b"\x93NUMPY" + bytes(version) + size + text.encode() + b"\0" * 64


def npy_of(shape, dtype="<i2"):
  return npy(repr({"descr": dtype, "fortran_order": False, "shape": shape}) + "\n")


def dicom(**elements):
  return tiny.saved(tiny.ct(**elements))


def nested(depth):
  """Sequences in sequences, of undefined length: each is read before the next."""
  item = b"\x0c\x00\x01\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
  return before_pixels(item * depth)


def before_pixels(extra):
  """A slice with raw elements, of a group beyond all others but the pixels'."""
  data = tiny.saved(tiny.ct())
  place = data.index(b"\xe0\x7f\x10\x00")
  return data[:place] + extra + data[place:]


def deflated():
  dataset = tiny.ct()
  dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
  dataset.PixelData = b"\0" * 200_000_000
  dataset.Rows = dataset.Columns = 10_000
  return tiny.saved(dataset)


def stream_of_another_size(name, marker, place, change):
  """A codestream that claims another size than Rows and Columns say."""
  data = tiny.MADE[name]()
  return patched(data, data.index(marker) + place, change)


def many_fragments():
  dataset = tiny.ct()
  dataset.file_meta.TransferSyntaxUID = uid.JPEGLSLossless
  dataset.PixelData = encaps.encapsulate([b"\0" * 8])
  dataset["PixelData"].is_undefined_length = True
  data = tiny.saved(dataset)
  return data[:-8] + b"\xfe\xff\x00\xe0\0\0\0\0" * 100_000 + data[-8:]


def gif():
  return patched(tiny.clip("gif", "gif"), 6, b"\xff\xff\xff\xff")


def mp4_of_hours():
  """A clip of six frames whose unit of time is a second, not a ten-thousandth of one."""
  data = tiny.clip("mp4", "mpeg4").replace(b"edts", b"free")  # the edit list knows the true length
  place = data.index(b"mdhd") + 4 + 12
  return patched(data, place, struct.pack(">I", 1))


BOMBS = {
  "png of 12000 x 12000": (lambda: whole_png(12_000), "limit"),
  "png of 16000 x 16000": (lambda: whole_png(16_000), "limit"),
  "png of 60000 x 60000, empty": (lambda: png(60_000, 60_000), "limit"),
  "png of 2 billion columns": (lambda: png(2**31 - 1, 1), "limit"),
  "png with zTXt of 200 MB": (lambda: text_png(b"zTXt"), None),
  "png with iTXt of 200 MB": (lambda: text_png(b"iTXt"), None),
  "png with a profile of 200 MB": (lambda: text_png(b"iCCP"), None),
  "jpeg of 65535 x 65535": (jpeg_of_another_size, "limit"),
  "tiff of 60000 x 60000": (lambda: tiff(60_000, 60_000), "limit"),
  "tiff of 4 billion x 4 billion": (lambda: tiff(2**32 - 1, 2**32 - 1), "limit"),
  "webp of 16 million x 16 million": (webp, None),
  "nifti of 20000 x 20000 x 20000": (lambda: nifti((20_000,) * 3), "limit"),
  "nifti of 700 x 700 x 700, empty": (lambda: nifti((700,) * 3), ("format", "truncated")),
  "nifti of a negative size": (lambda: nifti((-5, 10, 10)), ("geometry", "format")),
  "nifti-2 of 2**40 voxels": (lambda: nifti((2**40, 1, 1), 544, nibabel.Nifti2Header), "limit"),
  "nifti with data at infinity": (lambda: nifti((4, 4, 4), np.inf), None),
  "nifti with data far away": (lambda: nifti((4, 4, 4), 1e30), ("limit", "format")),
  "gzip of 3.4 GB, as declared": (
    lambda: gzip.compress(nifti((1500, 1500, 750)) + b"\0" * 10**6),
    "limit",
  ),
  "gzip of 900 MB behind a small volume": (
    lambda: inflating(nifti((4, 4, 4)), 900_000_000),
    ("limit", "format"),
  ),
  "gzip of 3.4 GB behind a small volume": (
    lambda: inflating(nifti((4, 4, 4)), 3_400_000_000),
    ("limit", "format"),
  ),
  "gzip of 3.4 GB of nothing": (lambda: inflating(b"", 3_400_000_000), "format"),
  "gzip in gzip": (lambda: gzip.compress(gzip.compress(tiny.nifti())), "format"),
  "npy of 10**18 values": (lambda: npy_of((10**6,) * 3), None),
  "npy of values of a gigabyte": (lambda: npy_of((1, 1, 1), "<U250000000"), None),
  "npy of a negative shape": (lambda: npy_of((-1, 2, 2)), None),
  "npy with a header of 100 MB": (lambda: npy("(" * 100_000_000, (2, 0)), "format"),
  "npy with a header that nests": (lambda: npy("[" * 9_000), "format"),
  "npy of objects": (lambda: npy_of((1, 1, 1), "|O"), "format"),
  "dicom of 65535 x 65535": (lambda: dicom(Rows=65_535, Columns=65_535), "limit"),
  "dicom of 2 billion frames": (lambda: dicom(NumberOfFrames="2147483647"), "limit"),
  "dicom of 10**12 frames": (lambda: dicom(NumberOfFrames="999999999999"), "limit"),
  "dicom of -1 frames": (lambda: dicom(NumberOfFrames="-1"), None),
  "dicom with pixels cut off": (lambda: dicom(Rows=8_000, Columns=8_000), None),
  "dicom, deflated": (deflated, ("format", "deflated")),
  "dicom nested 10 deep and cut off": (lambda: nested(10), None),
  "dicom nested 100,000 deep": (lambda: nested(100_000), None),
  "dicom with an element of 4 GB": (
    lambda: before_pixels(b"\xdf\x7f\x10\x00OB\0\0\xf0\xff\xff\xff"),
    None,
  ),
  "dicom with 100,000 fragments": (many_fragments, None),
  "jpeg-ls of 65535 x 65535 in dicom": (
    lambda: stream_of_another_size("jpegls.dcm", b"\xff\xf7", 5, b"\xff\xff\xff\xff"),
    None,
  ),
  "jpeg of 65500 x 65500 in dicom": (
    lambda: stream_of_another_size("jpeg.dcm", b"\xff\xc0", 5, b"\xff\xdc\xff\xdc"),
    None,
  ),
  "jpeg 2000 of 60000 x 60000 in dicom": (
    lambda: stream_of_another_size("j2k.dcm", b"\xff\x51", 6, struct.pack(">II", 60_000, 60_000)),
    None,
  ),
  "gif of 65535 x 65535": (gif, ("limit", "geometry")),
  "mp4 of two hours": (mp4_of_hours, "limit"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(reader, tmp_path, name):
  make, expected = BOMBS[name]
  path = tmp_path / "a"
  path.write_bytes(make())
  for preset in ("radiology", "hulumed"):
    with pytest.raises(BadRecord) as error:
      reader.read(path, preset=preset)
    assert error.value.kind not in ("crash", "timeout"), error.value
    assert "MemoryError" not in error.value.reason, error.value
    words = (expected,) if isinstance(expected, str) else expected or ("",)
    assert any(word in str(error.value) for word in words), error.value


ASKED = {
  "voxels of a micrometre": Options(resample_mm=0.001),
  "slices of a micrometre": Options(slice_mm=1e-6),
  "a billion slices": Options(frames=10**9, repeat_slices=True),
}


@pytest.mark.parametrize("preset", ["radiology", "hulumed"])
@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_for_is_limited_too(reader, tmp_path, name, preset):
  """Records are written by others as well: options may not ask for terabytes either."""
  (tmp_path / "a.nii").write_bytes(tiny.nifti())
  try:
    media = reader.read(tmp_path / "a.nii", ASKED[name], preset=preset)
  except BadRecord as error:
    assert error.kind in ("limit", "options", "geometry"), error
    assert "MemoryError" not in error.reason
  else:
    assert media.frames.size < 10**6


def test_a_header_of_giant_voxels_is_limited(reader, tmp_path):
  """Resampled to what is asked for, a volume of a kilometre would be one of exabytes."""
  image = nibabel.Nifti1Image(np.ones((8, 8, 8), np.int16), np.diag([1e5, 1e5, 1e5, 1]))
  image.to_filename(tmp_path / "a.nii")
  with pytest.raises(BadRecord) as error:
    reader.read(tmp_path / "a.nii", Options(resample_mm=1.0))
  assert error.value.kind == "limit", error.value


def test_gzip_is_read_to_its_end(reader, tmp_path):
  """Members in a row are one file and padding is none of it; damage anywhere is noticed."""
  data = tiny.nifti()
  whole = gzip.compress(data, mtime=0)
  two = gzip.compress(data[:500], mtime=0) + gzip.compress(data[500:], mtime=0)
  expected = None
  for good in (whole, two, whole + b"\0" * 512):
    (tmp_path / "a.nii.gz").write_bytes(good)
    frames = reader.read(tmp_path / "a.nii.gz").frames
    expected = frames if expected is None else expected
    np.testing.assert_array_equal(frames, expected)
  crc = patched(whole, len(whole) - 8, b"\1\2\3\4")
  size = patched(whole, len(whole) - 4, b"\1\2\3\4")
  for bad in (crc, size, whole[:-6], whole[:-9], whole + b"SMITH", two[:-20], two + whole[:30]):
    (tmp_path / "a.nii.gz").write_bytes(bad)
    with pytest.raises(BadRecord) as error:
      reader.read(tmp_path / "a.nii.gz")
    assert error.value.kind == "format"


def test_a_deep_sequence_that_is_whole_is_no_fault(reader, tmp_path):
  inner = Dataset()
  for _ in range(20):
    outer = Dataset()
    outer.ReferencedImageSequence = [inner]
    inner = outer
  dataset = tiny.ct(ReferencedImageSequence=[inner])
  (tmp_path / "a").write_bytes(tiny.saved(dataset))
  assert reader.read(tmp_path / "a").kind == "image"
  assert pydicom.dcmread(tmp_path / "a").ReferencedImageSequence


LIMITED = {
  "a.png": ("max_pixels", 383, 384),
  "a.nii": ("max_voxels", 959, 960),  # its pixels of 1 x 2 mm become squares of 1 mm
  "a.npy": ("max_voxels", 479, 480),
  "plain.dcm": ("max_pixels", 383, 384),
  "cine.dcm": ("max_frames", 4, 5),
  "enhanced.dcm": ("max_frames", 2, 3),
  "a.mp4": ("max_frames", 5, 6),
  "a.avi": ("max_frames", 5, 6),
  "a.gif": ("max_frames", 5, 6),
  "a.webm": ("max_seconds", 0.4, 0.7),
  "a.mpeg": ("max_bytes", 2047, 2048),
}


@pytest.mark.parametrize("name", LIMITED)
def test_every_limit_is_kept_to_the_unit(reader, tmp_path, name):
  field, under, enough = LIMITED[name]
  path = tmp_path / name
  path.write_bytes(tiny.MADE[name]())
  with pytest.raises(BadRecord) as error:
    reader.read(path, limits=Limits(**{field: under}))
  assert error.value.kind == "limit", error.value
  assert reader.read(path, limits=Limits(**{field: enough})).frames.size
