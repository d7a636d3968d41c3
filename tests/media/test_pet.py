"""SUV by body weight from made PET headers, computed by hand; midnights; what stays activity."""

import numpy as np
import pydicom
from pydicom.dataset import Dataset
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media.dicom import pet
from hulu_jax.media.dicom import picture
from hulu_jax.media.dicom import values as values_lib
from tests.media.made import dicom_dataset

F18 = 6586.2  # seconds of half-life
HOUR = 3600.0


def injection(**elements) -> Dataset:
  item = Dataset()
  defaults = {
    "RadionuclideTotalDose": 300e6,
    "RadionuclideHalfLife": F18,
    "RadiopharmaceuticalStartTime": "100000",
  }
  for keyword, value in (defaults | elements).items():
    if value is not None:
      setattr(item, keyword, value)
  return item


def slice_of(injected: Dataset | None = None, **elements) -> pydicom.FileDataset:
  """12 activities from 0 to 11 kBq/ml in a patient of 75 kg, one hour after 300 MBq of 18F."""
  defaults = {
    "Modality": "PT",
    "Units": "BQML",
    "CorrectedImage": ["DECY", "ATTN", "SCAT"],
    "DecayCorrection": "START",
    "PatientWeight": "75",
    "SeriesDate": "20200301",
    "SeriesTime": "110000",
    "AcquisitionDate": "20200301",
    "AcquisitionTime": "110500",
    "RescaleSlope": 500,
    "RescaleIntercept": 0,
    "RadiopharmaceuticalInformationSequence": [injected or injection()],
  }
  kept = {k: v for k, v in (defaults | elements).items() if v is not None}
  return dicom_dataset(np.arange(0, 24, 2, dtype=np.uint16).reshape(3, 4), **kept)


def factor(hours: float, dose: float = 300e6) -> float:
  """SUV of 1 Bq/ml in 75 kg so long after the injection."""
  return 75_000 / (dose * 0.5 ** (hours * HOUR / F18))


def check_suv(dataset, hours: float, dose: float = 300e6):
  values, padding = values_lib.measured(dataset.pixel_array, dataset, dataset)
  look = values_lib.look(dataset, dataset)
  assert look.units == "SUVbw" and padding is None, look.notes
  expected = dataset.pixel_array * 500.0 * factor(hours, dose)
  np.testing.assert_allclose(values, expected, rtol=1e-5)
  return look


def check_activity(dataset, reason: str):
  values, _ = values_lib.measured(dataset.pixel_array, dataset, dataset)
  look = values_lib.look(dataset, dataset)
  assert look.units == "Bq/ml" and look.value_range is None
  assert any(reason in note and "activity in Bq/ml" in note for note in look.notes), look.notes
  np.testing.assert_allclose(values, dataset.pixel_array * 500.0)


def test_by_hand_after_one_half_life():
  """100 MBq, of which 50 are left, in 50 kg: 1 kBq/ml is an SUV of exactly 1."""
  late = injection(RadionuclideTotalDose=100e6, RadionuclideHalfLife=7200)
  dataset = slice_of(late, PatientWeight="50", SeriesTime="120000", AcquisitionTime="120000")
  values, _ = values_lib.measured(dataset.pixel_array, dataset, dataset)
  np.testing.assert_allclose(values.ravel(), np.arange(12), rtol=1e-6)
  assert values.dtype == np.float32


def test_decay_is_counted_to_the_start_of_the_series():
  check_suv(slice_of(), 1)
  check_suv(slice_of(AcquisitionTime="114500.25"), 1)
  check_suv(slice_of(injection(RadiopharmaceuticalStartTime="10:00:00.00")), 1)
  check_suv(slice_of(injection(RadiopharmaceuticalStartTime="1000")), 1)


def test_decay_corrected_to_administration_or_not_at_all():
  check_suv(slice_of(DecayCorrection="ADMIN"), 0)
  uncorrected = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"]}
  check_suv(slice_of(AcquisitionTime="113000", **uncorrected), 1.5)
  # Over a frame of one half-life the mean activity is 1 / (2 ln 2) of that at its start.
  long = slice_of(AcquisitionTime="113000", ActualFrameDuration=round(F18 * 1000), **uncorrected)
  check_suv(long, 1.5, 300e6 / (2 * np.log(2)))


def test_midnight_between_injection_and_scan():
  late = {"RadiopharmaceuticalStartTime": "233000"}
  after = {"SeriesTime": "003000", "AcquisitionTime": "003500"}
  check_suv(slice_of(injection(**late), **after), 1)
  check_suv(slice_of(injection(**late), SeriesDate=None, AcquisitionDate=None, **after), 1)
  dated = injection(RadiopharmaceuticalStartDateTime="20200229233000.00", **late)
  check_suv(slice_of(dated, **after), 1)


def test_midnight_between_series_and_acquisition():
  times = {"SeriesTime": "235900", "AcquisitionTime": "000500"}
  start = injection(RadiopharmaceuticalStartTime="225900")
  check_suv(slice_of(start, AcquisitionDate="20200302", **times), 1)
  check_suv(slice_of(start, SeriesDate=None, AcquisitionDate=None, **times), 1)


def test_a_date_of_injection_counts_for_long_lived_tracers():
  zirconium = {"RadionuclideHalfLife": 78.41 * HOUR}
  check_activity(slice_of(injection(**zirconium)), "no injection date for a long-lived tracer")
  dated = injection(RadiopharmaceuticalStartDateTime="20200226110000", **zirconium)
  values, _ = values_lib.measured(slice_of(dated).pixel_array, slice_of(dated), slice_of(dated))
  expected = 500 * 75_000 / (300e6 * 0.5 ** (96 / 78.41))
  assert values.ravel()[1] / 2 == pytest.approx(expected, rel=1e-6)


def test_time_zones_of_the_injection():
  universal = "20200301090000.000000+0000"
  local = injection(RadiopharmaceuticalStartDateTime=universal, RadiopharmaceuticalStartTime=None)
  check_suv(slice_of(local, TimezoneOffsetFromUTC="+0100"), 1)
  check_activity(slice_of(local), "no injection time")
  both = injection(RadiopharmaceuticalStartDateTime=universal)
  check_suv(slice_of(both), 1)  # by the local time beside it


def test_a_dynamic_scan_may_start_before_the_injection():
  check_suv(slice_of(injection(RadiopharmaceuticalStartTime="110030")), -30 / HOUR)


def test_a_series_made_afterwards():
  """Its time lies after the acquisition: the scanner's own, or what frame times count from."""
  made_later = {"SeriesTime": "170000", "AcquisitionTime": "111000"}
  check_activity(slice_of(**made_later), "the series time lies after the acquisition")
  private = slice_of(**made_later)
  private.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200301110000.0")
  check_suv(private, 1)
  # A frame of 2 minutes that starts 10 after the reference; its mean is reached just before half.
  x = np.log(2) / F18 * 120
  within = -np.log((1 - np.exp(-x)) / x) / np.log(2) * F18
  assert 59.5 < within < 60
  frame = {"ActualFrameDuration": 120_000, "FrameReferenceTime": 600_000 + 1000 * within}
  check_suv(slice_of(**made_later, **frame), 1)
  # Times that contradict each other by half an hour are said.
  look = check_suv(slice_of(AcquisitionTime="114000", **frame), 1)
  assert any("frame reference time disagree" in note for note in look.notes)
  assert not any(
    "disagree" in note for note in check_suv(slice_of(AcquisitionTime="111000", **frame), 1).notes
  )


def philips(**numbers) -> pydicom.FileDataset:
  dataset = slice_of(Units="CNTS")
  block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
  for name, value in numbers.items():
    block.add_new({"suv": 0x00, "activity": 0x09}[name], "DS", value)
  return dataset


def test_counts_of_philips():
  dataset = philips(suv="0.0005", activity="2.5")
  values, _ = values_lib.measured(dataset.pixel_array, dataset, dataset)
  np.testing.assert_allclose(values, dataset.pixel_array * 500 * 0.0005, rtol=1e-6)
  assert values_lib.look(dataset, dataset).units == "SUVbw"
  dataset = philips(suv="0", activity="2.5")
  values, _ = values_lib.measured(dataset.pixel_array, dataset, dataset)
  np.testing.assert_allclose(values, dataset.pixel_array * 500 * 2.5 * factor(1), rtol=1e-5)
  look = values_lib.look(philips(), philips())
  assert look.units is None and "cannot be taken to SUV" in look.notes[0] and not look.inverted


@pytest.mark.parametrize(
  ("units", "kind", "expected"),
  [
    *(("GML", None, "SUVbw"), ("GML", "BW", "SUVbw"), ("GML", "LBM", "SUVlbm")),
    *(("GML", "BSA", "SUVbsa"), ("CM2ML", None, "SUVbsa"), ("GML", "CANARY", None)),
    *(("PROPCPS", None, None), (None, None, None)),
  ],
)
def test_values_divided_by_the_scanner(units, kind, expected):
  dataset = slice_of(Units=units, SUVType=kind, RescaleSlope=0.5, PatientWeight=None)
  look = values_lib.look(dataset, dataset)
  assert look.units == expected and "CANARY" not in " ".join(look.notes)
  assert look.value_range == ((0, 10) if expected == "SUVbw" else None)
  values, _ = values_lib.measured(dataset.pixel_array, dataset, dataset)
  np.testing.assert_allclose(values.ravel(), np.arange(12))


@pytest.mark.parametrize(
  ("injected", "elements", "reason"),
  [
    ({}, {"PatientWeight": None}, "no plausible weight"),
    ({}, {"PatientWeight": "75000"}, "no plausible weight"),  # grams
    ({}, {"PatientWeight": "0"}, "no plausible weight"),
    ({"RadionuclideTotalDose": 300}, {}, "no plausible dose"),  # MBq
    ({"RadionuclideTotalDose": None}, {}, "no plausible dose"),
    ({"RadionuclideHalfLife": None}, {}, "no half-life"),
    ({"RadiopharmaceuticalStartTime": None}, {}, "no injection time"),
    ({"RadiopharmaceuticalStartTime": "noon"}, {}, "no injection time"),
    ({"RadiopharmaceuticalStartTime": "113000"}, {}, "implausibly far apart"),
    ({"RadiopharmaceuticalStartDateTime": "19900101100000"}, {}, "implausibly far apart"),
    ({}, {"DecayCorrection": None}, "decay correction is not told"),
    ({}, {"CorrectedImage": ["DECY", "SCAT"]}, "not corrected for attenuation"),
    ({}, {"CorrectedImage": ["ATTN"]}, "contradicts itself"),
    ({}, {"RadiopharmaceuticalInformationSequence": []}, "0 radiopharmaceuticals"),
  ],
)
def test_what_stays_activity(injected, elements, reason):
  check_activity(slice_of(injection(**injected), **elements), reason)


def test_nothing_about_the_patient_is_in_a_note():
  """Weight, dose and times of these headers are numbers that no note may contain."""
  times = {"SeriesTime": "173344", "AcquisitionTime": "113355"}
  injected = injection(RadionuclideTotalDose=311e6, RadiopharmaceuticalStartTime="103322")
  for elements in ({}, times, {"DecayCorrection": "NONE"}, {"PatientWeight": "77777"}):
    dataset = slice_of(injected, **({"PatientWeight": "71.7"} | elements))
    notes = " ".join(values_lib.look(dataset, dataset).notes)
    for canary in ("71.7", "77777", "311", "1733", "1133", "1033", "2020", "CANARY"):
      assert canary not in notes


def test_a_real_world_mapping_to_suv():
  item, unit = Dataset(), Dataset()
  unit.CodeValue = "{SUVbw}g/ml"
  item.RealWorldValueSlope, item.RealWorldValueIntercept = 0.25, 0.0
  item.MeasurementUnitsCodeSequence = [unit]
  dataset = slice_of(PatientWeight=None, RealWorldValueMappingSequence=[item])
  assert values_lib.look(dataset, dataset).units == "SUVbw"
  values, _ = values_lib.measured(dataset.pixel_array, dataset, dataset)
  np.testing.assert_allclose(values, dataset.pixel_array * 0.25)


def test_suv_is_shown_from_0_to_10_with_uptake_dark(tmp_path):
  dataset = slice_of(Units="GML", RescaleSlope=0.5, WindowCenter=1, WindowWidth=1)
  dataset.save_as(tmp_path / "a", enforce_file_format=True)
  media = picture.read(tmp_path / "a", "radiology", Options())
  assert media.units == "SUVbw" and media.value_range == (10, 0)  # black, white
  expected = np.floor(255 - np.clip(np.arange(12) / 10, 0, 1) * 255)
  np.testing.assert_allclose(media.frames.ravel(), expected, atol=1)
  assert "PET is shown inverted, high uptake dark" in media.notes
  wider = picture.read(tmp_path / "a", "radiology", Options(value_range=(0, 5)))
  assert wider.value_range == (5, 0)
  with pytest.raises(BadRecord, match="not known to be HU"):
    picture.read(tmp_path / "a", "radiology", Options(window="brain"))


def test_activity_is_shown_over_percentiles(tmp_path):
  slice_of(PatientWeight=None).save_as(tmp_path / "a", enforce_file_format=True)
  media = picture.read(tmp_path / "a", "radiology", Options())
  assert media.units == "Bq/ml" and not any("SUVbw" in note for note in media.notes)
  black, white = media.value_range
  assert 10_000 < black <= 11_000 and 900 < white <= 1100


def test_scale_needs_no_pixels():
  assert pet.scale(slice_of()).factor == pytest.approx(factor(1))
