"""Every DICOM file that pydicom and nibabel ship, in both presets: what comes out, line by line."""

from pathlib import Path
import time

import nibabel
import pydicom
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import read

PYDICOM = Path(pydicom.__file__).parent / "data"
NIBABEL = Path(nibabel.__file__).parent / "nicom/tests/data"
SECONDS = 5

# Pictures and clips that are shown: kind, rows, columns, channels, modality.  Looked at, all of
# them; pixels are held against the tags in test_dicom_pixels.py and test_dicom_compressed.py.
SHOWN = {
  "693_J2KI": ("image", 512, 512, 1, "CT"),
  "CT_small": ("image", 128, 128, 1, "CT"),
  "ExplVR_BigEnd": ("image", 60, 80, 3, "US"),
  "GDCMJ2K_TextGBR": ("image", 400, 400, 3, None),  # JP2, not a bare codestream
  "J2K_pixelrep_mismatch": ("image", 512, 512, 1, "CT"),
  "JPEG2000": ("image", 1024, 256, 1, "NM"),
  "JPEGLSNearLossless_08": ("image", 45, 10, 1, None),
  "JPEGLSNearLossless_16": ("image", 50, 10, 1, None),
  "MR_small": ("image", 64, 64, 1, "MR"),
  "MR_small_RLE": ("image", 64, 64, 1, "MR"),
  "MR_small_bigendian": ("image", 64, 64, 1, "MR"),
  "MR_small_expb": ("image", 64, 64, 1, "MR"),
  "MR_small_implicit": ("image", 64, 64, 1, "MR"),
  "MR_small_jp2klossless": ("image", 64, 64, 1, "MR"),
  "MR_small_jpeg_ls_lossless": ("image", 64, 64, 1, "MR"),
  "MR_small_padded": ("image", 64, 64, 1, "MR"),  # less than a frame of padding
  "SC_jpeg_no_color_transform": ("image", 256, 256, 3, None),
  "SC_jpeg_no_color_transform_2": ("image", 256, 256, 3, None),
  "SC_rgb_dcmtk_+eb+cr": ("image", 100, 100, 3, "OT"),
  "SC_rgb_dcmtk_+eb+cy+n1": ("image", 100, 100, 3, "OT"),
  "SC_rgb_dcmtk_+eb+cy+n2": ("image", 100, 100, 3, "OT"),
  "SC_rgb_dcmtk_+eb+cy+np": ("image", 100, 100, 3, "OT"),
  "SC_rgb_dcmtk_+eb+cy+s2": ("image", 100, 100, 3, "OT"),
  "SC_rgb_dcmtk_+eb+cy+s4": ("image", 100, 100, 3, "OT"),
  "SC_rgb_gdcm_KY": ("image", 100, 100, 3, "OT"),
  "SC_rgb_jls_lossy_line": ("image", 100, 100, 3, None),
  "SC_rgb_jls_lossy_sample": ("image", 100, 100, 3, None),
  "SC_rgb_jpeg": ("image", 256, 256, 3, "OT"),  # implicit against its transfer syntax
  "SC_rgb_jpeg_app14_dcmd": ("image", 256, 256, 3, None),
  "SC_rgb_jpeg_dcmd": ("image", 256, 256, 3, "OT"),
  "SC_rgb_jpeg_dcmtk": ("image", 100, 100, 3, "OT"),
  "SC_rgb_jpeg_lossy_gdcm": ("image", 100, 100, 3, "OT"),
  "SC_rgb_rle": ("image", 100, 100, 3, "OT"),
  "SC_rgb_rle_16bit": ("image", 100, 100, 3, "OT"),
  "SC_rgb_rle_32bit": ("image", 100, 100, 3, "OT"),
  "SC_rgb_small_odd": ("image", 3, 3, 3, "OT"),
  "SC_rgb_small_odd_big_endian": ("image", 3, 3, 3, "OT"),
  "SC_rgb_small_odd_jpeg": ("image", 3, 3, 3, "OT"),
  "SC_ybr_full_422_uncompressed": ("image", 100, 100, 3, "OT"),
  "examples_jpeg2k": ("image", 480, 640, 3, "US"),
  "examples_overlay": ("image", 300, 484, 1, "MR"),
  "examples_palette": ("image", 350, 800, 3, "US"),
  "examples_rgb_color": ("image", 240, 320, 3, "US"),
}
CLIPS = {  # frames
  "SC_rgb_rle_2frame": (2, 100, 100, 3),
  "SC_rgb_rle_16bit_2frame": (2, 100, 100, 3),
  "SC_rgb_rle_32bit_2frame": (2, 100, 100, 3),
  "examples_ybr_color": (30, 240, 320, 3),
}
_NO_PICTURE = "an object without a picture"
_CODEC = "hulu_jax[gpl-codecs]"
_DEFLATED = "a deflated transfer syntax"
_UNKNOWN = "a file of an unknown kind"
# Files that are refused, and why.
REFUSED = {
  "ExplVR_BigEndNoMeta": "a RTPLAN object",
  "ExplVR_LitEndNoMeta": "a RTPLAN object",
  "JPEG-lossy": _CODEC,  # 12 bits
  "JPGExtended": _CODEC,
  "JPEG2000-embedded-sequence-delimiter": "the header says 1024 x 256 x 1",
  "MR_truncated": "8,130 bytes of pixels where 1 frames need 8,192",
  "SC_rgb_jpeg_gdcm": _CODEC,  # lossless JPEG
  "UN_sequence": _NO_PICTURE,
  "badVR": "a RTDOSE object",
  "empty_charset_LEI": _NO_PICTURE,
  "image_dfl": _DEFLATED,
  "liver_1frame": "a SEG object",
  "liver_expb_1frame": "a SEG object",
  "meta_missing_tsyntax": _NO_PICTURE,
  "nested_priv_SQ": _NO_PICTURE,
  "no_meta": _UNKNOWN,  # starts with a stray byte, so that no element can be found
  "no_meta_group_length": _NO_PICTURE,
  "priv_SQ": _NO_PICTURE,
  "reportsi": "a SR object",
  "reportsi_with_empty_number_tags": "a SR object",
  "rtdose": "a RTDOSE object",
  "rtdose_1frame": "a RTDOSE object",
  "rtdose_expb": "a RTDOSE object",
  "rtdose_expb_1frame": "a RTDOSE object",
  "rtdose_rle": "a RTDOSE object",
  "rtdose_rle_1frame": "a RTDOSE object",
  "rtplan": "a RTPLAN object",
  "rtplan_truncated": "a RTPLAN object",
  "rtstruct": "a RTSTRUCT object",
  "test-SR": "a SR object",
  "waveform_ecg": "a ECG object",
}
# Others, by their place under pydicom's data or nibabel's: shown with this shape, or refused.
_TINY = (1, 16, 16, 1)
OTHERS = {
  "charset_files/chrSQEncoding*.dcm": _NO_PICTURE,
  "charset_files/chrJap*.dcm": "a DICOM file without PixelData",
  "charset_files/chrKorean*.dcm": "a DICOM file without PixelData",
  "charset_files/chr[AFGHIRX]*.dcm": (1, 32, 32, 1),
  "palettes/*.dcm": _NO_PICTURE,
  "test_files/dicomdirtests/DICOMDIR*": _NO_PICTURE,
  "test_files/dicomdirtests/77654033/*/*": _TINY,
  "test_files/dicomdirtests/98892001/CT2N/*": "a localizer",
  "test_files/dicomdirtests/98892001/CT5N/*": _TINY,
  "test_files/dicomdirtests/98892003/*/*": _TINY,
  "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR": _NO_PICTURE,
  "test_files/dicomdirtests/TINY_ALPHA/PT*/ST*/SE*/*": _NO_PICTURE,
  "test_files/dicomdirtests/**/README*": _UNKNOWN,
  "test_files/*.json": _UNKNOWN,
  "test_files/*.dump": _UNKNOWN,
}
SIEMENS = {  # nibabel's, the .gz among them packed as a whole
  "0.dcm": "a mosaic of 256 x 256 for 48 slices",
  "1.dcm": "a mosaic of 256 x 256 for 48 slices",
  "csa_slice_norm.dcm": "a DICOM file without PixelData",
  "decimal_rescale.dcm": (1, 96, 128, 1),
  "slicethickness_empty_string.dcm": (1, 384, 384, 1),
  "philips_mprage.dcm.gz": _UNKNOWN,
  "siemens_dwi_0.dcm.gz": _UNKNOWN,
  "siemens_dwi_1000.dcm.gz": _UNKNOWN,
  "csa2_b0.bin": _UNKNOWN,
  "csa2_b1000.bin": _UNKNOWN,
  "csa_str_valid.bin": _UNKNOWN,
}


def expected_of(name: str):
  """What `SHOWN`, `CLIPS` or `REFUSED` say of a file of pydicom's."""
  if name in SHOWN:
    return (1, *SHOWN[name][1:4])
  return CLIPS.get(name) or REFUSED[name]


def outcome(path: Path, preset: str):
  """Shape of the frames, or what was said; anything but Media and BadRecord gets out."""
  start = time.monotonic()
  try:
    media = read(path, preset=preset)
    result, kind, modality = media.frames.shape, media.kind, media.modality
    assert result[0] == 1 or kind == "video"
  except BadRecord as error:
    assert error.kind in ("format", "geometry") and len(error.reason) > 15
    result, modality = str(error), None
  assert time.monotonic() - start < SECONDS
  return result, modality


def check(path: Path, expected, preset: str) -> str | None:
  found, modality = outcome(path, preset)
  if isinstance(expected, str):
    assert isinstance(found, str) and expected in found, f"{path.name}: {found}"
  else:
    assert found == expected, f"{path.name}: {found}"
  return modality


def test_the_tables_name_every_file():
  there = {p.stem for p in PYDICOM.glob("test_files/*.dcm")}
  assert there == set(SHOWN) | set(CLIPS) | set(REFUSED)
  listed = [p for pattern in OTHERS for p in PYDICOM.glob(pattern) if p.is_file()]
  assert len(listed) == len(set(listed))
  files = {p for p in PYDICOM.rglob("*") if p.is_file()}
  missing = {p.relative_to(PYDICOM) for p in files - set(listed) if p.suffix in ("", ".dcm")}
  assert {p.name for p in missing if p.parent.name != "test_files"} == set()


@pytest.mark.parametrize("preset", ["radiology", "hulumed"])
@pytest.mark.parametrize("name", [*SHOWN, *CLIPS, *REFUSED])
def test_each_example_of_pydicom(name, preset):
  modality = check(PYDICOM / f"test_files/{name}.dcm", expected_of(name), preset)
  if name in SHOWN:
    assert modality == SHOWN[name][4]


@pytest.mark.parametrize("preset", ["radiology", "hulumed"])
@pytest.mark.parametrize("pattern", list(OTHERS))
def test_other_files_of_pydicom(pattern, preset):
  paths = [p for p in PYDICOM.glob(pattern) if p.is_file()]
  assert paths
  for path in paths:
    check(path, OTHERS[pattern], preset)


@pytest.mark.parametrize("preset", ["radiology", "hulumed"])
@pytest.mark.parametrize("name", list(SIEMENS))
def test_examples_of_nibabel(name, preset):
  check(NIBABEL / name, SIEMENS[name], preset)
