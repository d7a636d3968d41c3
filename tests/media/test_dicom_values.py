"""Stored numbers to measured ones and their display, against pydicom's functions and by hand."""

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.pixels import apply_rescale
from pydicom.pixels import apply_voi_lut
from pydicom.pixels import apply_windowing
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import windows
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import picture
from hulu_jax.media.dicom import values as values_lib
from hulu_jax.media.limits import DEFAULT
from tests.media.made import CANARY
from tests.media.made import dicom_dataset


def made(stored: np.ndarray, **elements) -> pydicom.FileDataset:
  return dicom_dataset(stored, **elements)


def show(tmp_path, dataset, options=None, preset="radiology"):
  path = tmp_path / "file.dcm"
  dataset.save_as(path, enforce_file_format=True)
  return picture.read(path, preset, options or Options())


def table_item(first, entries, bits=16, vr="US", first_vr="US", **elements) -> Dataset:
  item = Dataset()
  item.add_new(0x00283002, first_vr, [len(entries) % 65536, first, bits])
  data = np.asarray(entries, np.uint16)
  item.add_new(0x00283006, vr, data.tobytes() if vr == "OW" else data.tolist())
  for keyword, value in elements.items():
    setattr(item, keyword, value)
  return item


def ramp(low: int, high: int, dtype) -> np.ndarray:
  return np.linspace(low, high, 48).round().astype(dtype).reshape(6, 8)


@pytest.mark.parametrize(
  ("slope", "intercept"),
  [(1, -1024), (1, 0), (2, -7), (-1, 100), (0.5, 0), (1.5e-3, 2), (70000, 1), (1, 40000)],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32])
def test_rescale_in_the_smallest_type_that_holds_it(slope, intercept, dtype):
  limits = np.iinfo(dtype)
  stored = ramp(max(limits.min, -40000), min(limits.max, 70000), dtype)
  dataset = made(stored, Modality="MR", RescaleSlope=slope, RescaleIntercept=intercept)
  values, padding = values_lib.measured(stored, dataset, dataset)
  assert padding is None and values.dtype in (np.int16, np.int32, np.int64, np.float32)
  exact = apply_rescale(stored, dataset)
  np.testing.assert_allclose(values, exact, rtol=1e-6, atol=1e-6)
  if np.abs(exact).max() < 32768 and slope == int(slope):
    assert values.dtype == np.int16


@pytest.mark.parametrize("slope", [0, float("nan"), float("inf")])
def test_a_slope_that_says_nothing_is_refused(slope):
  with pytest.raises(BadRecord, match="expected numbers, not 0"):
    values_lib.rescale(np.ones((2, 2), np.int16), slope, 0)


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize(("dtype", "first"), [(np.uint16, 10), (np.int16, -5), (np.uint8, 0)])
def test_modality_table_as_pydicom(vr, dtype, first):
  stored = ramp(max(np.iinfo(dtype).min, -20), 60, dtype)
  entries = np.arange(40) ** 2 + 3
  item = table_item(first, entries, vr=vr, first_vr="SS" if first < 0 else "US")
  dataset = made(stored, Modality="CR", ModalityLUTSequence=[item], RescaleIntercept=-9)
  values, _ = values_lib.measured(stored, dataset, dataset)
  np.testing.assert_array_equal(values, apply_modality_lut(stored, dataset))


def test_a_table_in_the_units_of_ct():
  stored = ramp(0, 30, np.uint16)
  item = table_item(0, np.arange(31), ModalityLUTType="HU")
  dataset = made(stored, Modality="CT", ModalityLUTSequence=[item])
  assert values_lib.look(dataset, dataset).units == "HU"
  item.ModalityLUTType = "OD"
  assert values_lib.look(dataset, dataset).units == "1e-3 OD"


def test_tables_that_are_shorter_than_they_say_are_refused(tmp_path):
  item = table_item(0, np.arange(31))
  item.LUTDescriptor = [32, 0, 16]
  with pytest.raises(BadRecord, match="of 31 entries; expected 32"):
    show(tmp_path, made(ramp(0, 30, np.uint16), Modality="CR", ModalityLUTSequence=[item]))


@pytest.mark.parametrize(
  ("stored", "value", "limit", "vr", "expected"),
  [
    ([[-2000, 0, 5]], 63536, None, "US", [[True, False, False]]),  # -2000 written as unsigned
    ([[-2000, 0, 5]], -2000, None, "SS", [[True, False, False]]),
    ([[-2000, -1999, -1990, 5]], -2000, -1990, "SS", [[True, True, True, False]]),
    ([[-2000, -1999, -1990, 5]], -1990, -2000, "SS", [[True, True, True, False]]),
    ([[0, 5, 7]], 9, None, "SS", None),
  ],
)
def test_padding_is_compared_as_stored(stored, value, limit, vr, expected):
  stored = np.array(stored, np.int16)
  dataset = made(stored, Modality="CT", RescaleSlope=2, RescaleIntercept=-24)
  dataset.add_new(0x00280120, vr, value)
  if limit is not None:
    dataset.add_new(0x00280121, vr, limit)
  _, padding = values_lib.measured(stored, dataset, dataset)
  assert padding is None if expected is None else padding.tolist() == expected


def test_padding_of_unsigned_pixels():
  stored = np.array([[65535, 0, 63536]], np.uint16)
  dataset = made(stored, Modality="CR")
  dataset.add_new(0x00280120, "SS", -2000)
  assert values_lib.measured(stored, dataset, dataset)[1].tolist() == [[False, False, True]]


def test_padding_is_black_in_either_polarity(tmp_path):
  stored = ramp(0, 4000, np.uint16)
  stored[0] = 4095
  for photometric in ("MONOCHROME1", "MONOCHROME2"):
    elements = {"PhotometricInterpretation": photometric, "WindowCenter": 2000}
    dataset = made(stored, Modality="DX", WindowWidth=4000, PixelPaddingValue=4095, **elements)
    frames = show(tmp_path, dataset).frames[0, ..., 0]
    assert not frames[0].any() and frames[1:].max() > 200


@pytest.mark.parametrize("first", [-100, 20])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_display_table_as_pydicom(tmp_path, first, bits):
  """PS3.3 C.11.2.1.1; entries fall so that a mistaken polarity would show."""
  stored = ramp(0, 300, np.uint16)
  entries = np.linspace(2**bits - 1, 0, 120).round()
  item = table_item(first, entries, bits, first_vr="SS" if first < 0 else "US")
  elements = {"RescaleSlope": 1, "RescaleIntercept": -110, "WindowCenter": 1, "WindowWidth": 9}
  dataset = made(stored, Modality="CR", VOILUTSequence=[item], **elements)
  media = show(tmp_path, dataset)
  # Clipped before, which by the standard changes nothing: pydicom's 8-bit indices wrap at 256.
  hu = apply_modality_lut(stored, dataset).clip(first, first + 119)
  theirs = apply_voi_lut(hu.astype(np.int32), dataset).astype(float) / (2**bits - 1) * 255
  np.testing.assert_array_equal(media.frames[0, ..., 0], np.floor(theirs + 0.5))
  assert media.value_range == (first + 119, first)  # the first entry is white
  assert "the file's own table for display (VOI LUT) was used" in " ".join(media.notes)
  assert "the file offers 2 windows or tables: the first was used" in media.notes


def test_a_negative_start_written_as_unsigned():
  item = table_item(65536 - 100, np.arange(200), 8)
  dataset = made(ramp(0, 9, np.int16), Modality="CT", VOILUTSequence=[item], RescaleIntercept=-1024)
  assert values_lib.look(dataset, dataset).voi.first == -100
  dataset.PixelRepresentation, dataset.RescaleIntercept = 0, 0
  assert values_lib.look(dataset, dataset).voi.first == 65536 - 100


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
def test_the_files_window_as_pydicom(tmp_path, function):
  stored = ramp(0, 4095, np.uint16)
  elements = {"RescaleSlope": 1, "RescaleIntercept": 0, "BitsStored": 12, "HighBit": 11}
  if function:
    elements["VOILUTFunction"] = function
  dataset = made(stored, Modality="DX", WindowCenter=2000, WindowWidth=1500, **elements)
  theirs = apply_windowing(stored, dataset) / 4095 * 255
  media = show(tmp_path, dataset)
  np.testing.assert_array_equal(media.frames[0, ..., 0], np.floor(theirs + 0.5))
  assert media.window is None
  assert media.value_range == (1250, 2749 if function in (None, "LINEAR") else 2750)


def test_the_caller_may_choose_the_function(tmp_path):
  stored = ramp(0, 4095, np.uint16)
  dataset = made(stored, Modality="CT", RescaleIntercept=-1024, RescaleSlope=1)
  media = show(tmp_path, dataset, Options(window="lung", function="sigmoid"))
  expected = 255 / (1 + np.exp(-4 * (stored.astype(float) - 1024 + 600) / 1500))
  np.testing.assert_array_equal(media.frames[0, ..., 0], np.floor(expected + 0.5))


def test_several_windows_are_counted_and_their_names_kept_out(tmp_path):
  dataset = made(
    ramp(0, 4095, np.uint16),
    Modality="CT",
    RescaleSlope=1,
    RescaleIntercept=-1024,
    WindowCenter=[300, 40, -600],
    WindowWidth=[2000, 400, 1500],
    WindowCenterWidthExplanation=[CANARY, "LUNG", "X"],
  )
  media = show(tmp_path, dataset)
  assert media.window == (300, 2000) and media.units == "HU"
  assert "the file offers 3 windows or tables: the first was used" in media.notes
  assert "CANARY" not in " ".join(media.notes)


@pytest.mark.parametrize("width", [0, -5, 0.5, float("nan")])
def test_a_window_that_is_none_is_not_used(tmp_path, width):
  elements = {"RescaleSlope": 1, "RescaleIntercept": -1024}
  dataset = made(ramp(0, 4095, np.uint16), Modality="CT", **elements)
  dataset.WindowCenter, dataset.WindowWidth = 40, pydicom.valuerep.DSfloat(width)
  look = values_lib.look(dataset, dataset)
  assert look.window is None and "the file's own window is not valid" in look.notes


@pytest.mark.parametrize(
  ("photometric", "shape", "inverted"),
  [
    ("MONOCHROME2", None, False),
    ("MONOCHROME2", "IDENTITY", False),
    ("MONOCHROME2", "INVERSE", True),
    ("MONOCHROME1", None, True),
    ("MONOCHROME1", "INVERSE", True),
  ],
)
def test_inversion_comes_once_and_last(tmp_path, photometric, shape, inverted):
  stored = ramp(0, 4095, np.uint16)
  elements = {"Modality": "DX", "WindowCenter": 1000, "WindowWidth": 900}
  plain = show(tmp_path, made(stored, **elements))
  if shape is not None:
    elements["PresentationLUTShape"] = shape
  media = show(tmp_path, made(stored, PhotometricInterpretation=photometric, **elements))
  expected = 255 - plain.frames if inverted else plain.frames
  np.testing.assert_array_equal(media.frames, expected)
  assert media.value_range == (plain.value_range[::-1] if inverted else plain.value_range)


@pytest.mark.parametrize(
  ("modality", "kind", "intercept", "units"),
  [
    ("CT", None, -1024, "HU"),
    ("CT", "HU", -1024, "HU"),
    ("CT", "HU", None, "HU"),
    ("CT", None, None, None),
    ("CT", "US", -1024, None),
    ("CT", "HU_MOD", -1024, "modified HU"),
    ("CT", "MGML", 0, "mg/ml"),
    ("CT", "Z_EFF", 0, "effective atomic number"),
    ("CT", CANARY, 0, None),
    ("MR", None, 0, None),
    ("MR", "HU", 0, None),
    ("CR", "OD", 0, "1e-3 OD"),
  ],
)
def test_only_ct_in_hu_is_in_hu(tmp_path, modality, kind, intercept, units):
  elements = {"RescaleType": kind, "RescaleIntercept": intercept, "RescaleSlope": 1}
  given = {k: v for k, v in elements.items() if v is not None}
  dataset = made(ramp(0, 4095, np.uint16), Modality=modality, **given)
  look = values_lib.look(dataset, dataset)
  assert look.units == units and "CANARY" not in " ".join(look.notes)
  assert bool(look.notes) == (modality == "CT" and units != "HU")
  if units != "HU":
    with pytest.raises(BadRecord, match="not known to be HU"):
      show(tmp_path, dataset, Options(window="brain"))


def map_of(kind: str, stored: np.ndarray, **elements) -> pydicom.FileDataset:
  return made(stored, Modality="MR", ImageType=["DERIVED", "PRIMARY", kind, "NORM"], **elements)


@pytest.mark.parametrize(
  ("kind", "quantity"),
  [
    *(("ADC", "ADC"), ("T1 MAP", "T1"), ("T1_MAP", "T1"), ("T2 MAP", "T2"), ("FA", "FA")),
    *(("T2_STAR MAP", "T2STAR"), ("T2* MAP", "T2STAR"), ("R2_STAR MAP", "R2STAR"), ("M", None)),
    *(("EADC", None), ("T1", None), (CANARY, None)),
  ],
)
def test_image_type_names_a_quantity(kind, quantity):
  dataset = map_of(kind, ramp(0, 9, np.uint16))
  assert values_lib.look(dataset, dataset).quantity == quantity
  dataset.Modality = "CT"
  assert values_lib.look(dataset, dataset).quantity is None


def test_an_adc_map_is_shown_in_its_fixed_range(tmp_path):
  stored = ramp(0, 2500, np.uint16)
  media = show(tmp_path, map_of("ADC", stored, WindowCenter=7, WindowWidth=9))
  assert media.value_range == (0, 3000) and media.units == "1e-6 mm2/s"
  expected = np.floor(stored / 3000 * 255 + 0.5)
  np.testing.assert_array_equal(media.frames[0, ..., 0], expected)
  fractions = show(tmp_path, map_of("ADC", stored, RescaleSlope=1e-3, RescaleIntercept=0))
  assert fractions.value_range == (0, 3) and fractions.units == "1e-3 mm2/s"
  np.testing.assert_allclose(fractions.frames, media.frames, atol=1)


@pytest.mark.parametrize(("code", "slope"), [("mm2/s", 1e-6), ("um2/s", 1.0)])
def test_a_real_world_mapping_states_the_unit(tmp_path, code, slope):
  """The mapping applies to stored values, whatever the rescale says."""
  item, unit = Dataset(), Dataset()
  unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = code, "UCUM", CANARY
  item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, 0.0
  item.MeasurementUnitsCodeSequence = [unit]
  stored = ramp(0, 90, np.uint16)  # too low to be told by its size
  dataset = map_of("ADC", stored, RescaleSlope=77, RealWorldValueMappingSequence=[item])
  media = show(tmp_path, dataset)
  top = 3000 if code == "um2/s" else 3e-3
  assert media.value_range == pytest.approx((0, top))
  np.testing.assert_allclose(media.frames[0, ..., 0], stored / 3000 * 255, atol=0.51)
  assert CANARY not in " ".join(media.notes)


def test_mr_ignores_the_scanners_window(tmp_path):
  stored = ramp(0, 1000, np.uint16)
  media = show(tmp_path, made(stored, Modality="MR", WindowCenter=10, WindowWidth=20))
  low, high = media.value_range
  assert 50 < low < 80 and high > 950 and media.window is None


def test_eight_bit_pictures_stay_as_they_are(tmp_path):
  stored = ramp(0, 200, np.uint8)
  for modality in ("US", "OT"):
    media = show(tmp_path, made(stored, Modality=modality))
    np.testing.assert_array_equal(media.frames[0, ..., 0], stored)
  signed = show(tmp_path, made(ramp(-128, 127, np.int8), Modality="OT"))
  np.testing.assert_array_equal(signed.frames[0, ..., 0], ramp(-128, 127, np.int8) + 128.0)


@pytest.mark.parametrize(
  "options",
  [
    Options(window="brain", function="sigmoid"),
    Options(window="brain+bone+lung"),
    Options(value_range=(0, 1)),
    Options(quantity="ADC"),
  ],
)
def test_hulumed_knows_nothing_of_these(tmp_path, options):
  dataset = made(ramp(0, 4095, np.uint16), Modality="CT", RescaleIntercept=-1024, RescaleSlope=1)
  with pytest.raises(BadRecord, match='with the preset hulumed; expected the preset "radiology"'):
    show(tmp_path, dataset, options, "hulumed")


def test_hulumed_stretches_each_frame(tmp_path):
  stored = ramp(7, 3000, np.uint16)
  dataset = made(stored, Modality="CT", RescaleIntercept=-1024, RescaleSlope=1)
  frames = show(tmp_path, dataset, preset="hulumed").frames[0, ..., 0]
  np.testing.assert_array_equal(frames, ((stored - 7.0) / (3000 - 7) * 255).astype(np.uint8))


def test_a_grey_loop_is_windowed_as_a_whole(tmp_path):
  stored = np.stack([ramp(0, 1000 * k, np.uint16) for k in (1, 2, 4)])
  elements = {"PhotometricInterpretation": "MONOCHROME1", "FrameTime": 40}
  dataset = made(stored, Modality="XA", WindowCenter=2000, WindowWidth=4000, **elements)
  dataset.save_as(tmp_path / "a", enforce_file_format=True)
  media = picture.read_clip(tmp_path / "a", dataset, "radiology", Options(), DEFAULT)
  assert media.value_range == (3999, 0) and media.frames.shape == (3, 6, 8, 1)
  expected = 255 - np.floor(np.clip(stored / 3999, 0, 1) * 255 + 0.5)
  np.testing.assert_array_equal(media.frames[..., 0], expected)


def test_for_processing_is_refused():
  dataset = made(ramp(0, 9, np.uint16), Modality="MG", PresentationIntentType="FOR PROCESSING")
  assert "for processing" in header.why_not_picture(dataset)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_J2KI.dcm"])
def test_files_of_pydicom(name):
  dataset = pydicom.dcmread(get_testdata_file(name))
  stored = dataset.pixel_array
  values, padding = values_lib.measured(stored, dataset, dataset)
  np.testing.assert_array_equal(values, apply_modality_lut(stored, dataset))
  assert values.dtype == np.int16
  outside = None if "PixelPaddingValue" not in dataset else stored == dataset.PixelPaddingValue
  if outside is None or not outside.any():
    assert padding is None
  else:
    np.testing.assert_array_equal(padding, outside)
  look = values_lib.look(dataset, dataset)
  assert look.units == ("HU" if dataset.Modality == "CT" else None)


def test_a_real_ct_slice_equals_its_tags():
  dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
  media = picture.read(
    get_testdata_file("CT_small.dcm"), "radiology", Options(window=[40.0, 400.0])
  )
  hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
  expected = windows.linear(hu, 40, 400)
  expected[dataset.pixel_array == -2000] = 0
  np.testing.assert_array_equal(media.frames[0, ..., 0], expected)
