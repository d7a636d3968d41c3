"""Several volumes in one series: named by what tells them apart."""

from pathlib import Path

from nibabel import nicom
import numpy as np
import pydicom
import pytest

from hulu_jax import media
from hulu_jax.media import DEFAULT
from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media.dicom.reader import phases
from tests.media.made import dicom_dataset
from tests.media.made import dicom_slices
from tests.media.made import dicom_voxels
from tests.media.made import phantom
from tests.media.made import write_files

AXIAL = np.eye(4)[:, [1, 0, 2, 3]]  # LPS of (row, column, slice), 1 mm each
NICOM = Path(nicom.__file__).parent / "tests" / "data"


def slices_of(number: int, positions=slice(None), **elements) -> list[pydicom.FileDataset]:
  """Phantom volume `number`: the phantom, brighter by 1,000 times its number."""
  return dicom_slices(phantom() + 1000 * number, AXIAL, **elements)[positions]


def check(folder: Path, names: tuple[str, ...]) -> None:
  """Volume k of `names` is phantom volume k."""
  assert phases(folder, DEFAULT) == names
  for number, name in enumerate(names):
    values = dicom_voxels(folder, name).values
    np.testing.assert_array_equal(values, phantom() + 1000 * number)


DIRECTIONS = ([1, 0, 0], [0, 1, 0], [0, 0, 1])
CASES = {
  "acquisition": ([{"AcquisitionNumber": n} for n in (1, 2, 3)], "acquisition-{1,2,3}"),
  "many acquisitions": (
    [{"AcquisitionNumber": n} for n in (9, 1000001)],
    "acquisition-{9,1000001}",
  ),
  "temporal": ([{"TemporalPositionIdentifier": n} for n in (1, 2)], "temporal-{1,2}"),
  "trigger": ([{"TriggerTime": t} for t in (0, 40, 80.4)], "trigger-{0ms,40ms,80ms}"),
  "echo": ([{"EchoTime": t} for t in (4.6, 30.1)], "echo-{1,2}"),
  "echo number": ([{"EchoTime": 9, "EchoNumbers": n} for n in (2, 3)], "echo-{2,3}"),
  "b-value": ([{"DiffusionBValue": b} for b in (0.0, 50.0, 1000.0)], "b-{0,50,1000}"),
  "no b-value": ([{}, {"DiffusionBValue": 800.0}], "b-{none,800}"),
  "phase": (
    [{"ImageType": ["ORIGINAL", "PRIMARY", t, "ND"]} for t in ("M", "P")],
    "type-{MAGNITUDE,PHASE}",
  ),
  "Dixon": (
    [{"ImageType": ["DERIVED", "PRIMARY", "DIXON", t]} for t in ("FAT", "IN_PHASE", "W")],
    "type-{FAT,IN_PHASE,WATER}",
  ),
  "unknown types": ([{"ImageType": ["DERIVED", t]} for t in ("AAA", "BBB")], "type-{1,2}"),
  "dual energy": ([{"KVP": v} for v in (80, 140)], "kvp-{80,140}"),
  "monochromatic": (
    [{"MonoenergeticEnergyEquivalent": v} for v in (40.0, 70.5)],
    "mono-{40keV,70.5keV}",
  ),
  "PET frames": ([{"FrameReferenceTime": v} for v in (5000, 15000)], "time-{1,2}"),
  "directions": (
    [{"DiffusionBValue": 900.0, "DiffusionGradientOrientation": d} for d in DIRECTIONS],
    "direction-{0,1,2}",
  ),
  "what over when": (
    [{"DiffusionBValue": b, "AcquisitionNumber": n} for n, b in ((1, 0.0), (2, 700.0))],
    "b-{0,700}",
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_volumes_are_named_by_what_tells_them_apart(case, tmp_path):
  differing, pattern = CASES[case]
  word, values = pattern[:-1].split("{")
  slices = [s for n, elements in enumerate(differing) for s in slices_of(n, **elements)]
  names = sorted(f"{word}{value}" for value in values.split(","))
  folder = write_files(tmp_path / "s", slices)
  assert sorted(phases(folder, DEFAULT)) == names
  found = [dicom_voxels(folder, name) for name in phases(folder, DEFAULT)]
  firsts = [int(voxels.values[0, 0, 0]) // 1000 for voxels in found]
  # Directions and unknown types are numbered by their values, which have no order to speak of.
  assert firsts == sorted(firsts) or case == "directions"
  for voxels in found:
    volume = phantom() + 1000 * (int(voxels.values[0, 0, 0]) // 1000)
    np.testing.assert_array_equal(voxels.values, volume)


def test_two_criteria_are_joined_only_where_both_are_needed(tmp_path):
  slices = []
  for number, (b, kind) in enumerate([(0.0, "M"), (0.0, "P"), (500.0, "M"), (500.0, "P")]):
    slices += slices_of(number, DiffusionBValue=b, ImageType=["ORIGINAL", "PRIMARY", kind])
  folder = write_files(tmp_path / "s", slices)
  check(
    folder, ("b-0/type-MAGNITUDE", "b-0/type-PHASE", "b-500/type-MAGNITUDE", "b-500/type-PHASE")
  )


def test_numbers_that_each_slice_has_to_itself_split_nothing(tmp_path):
  """A step-and-shoot CT counts an acquisition per slice; heart phases are told by trigger time."""
  slices = []
  for number in range(3):
    for k, dataset in enumerate(slices_of(number)):
      dataset.AcquisitionNumber = 10 * number + k
      dataset.TriggerTime = f"{number * (40 + k / 10) + k:.1f}"  # drifts with the heart rate
      slices.append(dataset)
  folder = write_files(tmp_path / "s", slices)
  check(folder, ("trigger-4ms", "trigger-44ms", "trigger-84ms"))
  alone = slices_of(0)
  for k, dataset in enumerate(alone):
    dataset.AcquisitionNumber = k
  assert phases(write_files(tmp_path / "alone", alone), DEFAULT) == ()


def test_phases_may_cover_different_parts(tmp_path):
  """A liver scanned in the arterial phase, the whole abdomen in the venous one."""
  arterial = slices_of(0, slice(2, 6), AcquisitionNumber=3)
  venous = slices_of(1, AcquisitionNumber=4)
  folder = write_files(tmp_path / "s", [*arterial, *venous])
  assert phases(folder, DEFAULT) == ("acquisition-3", "acquisition-4")
  np.testing.assert_array_equal(dicom_voxels(folder, "acquisition-3").values, phantom()[:, :, 2:6])
  assert dicom_voxels(folder, "acquisition-4").values.shape == (12, 10, 8)


def test_phases_between_each_others_slices_are_split(tmp_path):
  second = AXIAL.copy()
  second[2, 3] = 0.3
  slices = slices_of(0, AcquisitionNumber=1)
  slices += dicom_slices(phantom() + 1000, second, AcquisitionNumber=2)
  check(write_files(tmp_path / "s", slices), ("acquisition-1", "acquisition-2"))


def test_an_empty_slice_of_each_phase_is_no_copy(tmp_path):
  slices = slices_of(0, AcquisitionNumber=1) + slices_of(1, AcquisitionNumber=2)
  for dataset in slices:
    if dataset.ImagePositionPatient[2] == 0:
      dataset.PixelData = bytes(len(dataset.PixelData))
  folder = write_files(tmp_path / "s", slices)
  for name in ("acquisition-1", "acquisition-2"):
    voxels = dicom_voxels(folder, name)
    assert voxels.values.shape == (12, 10, 8) and not voxels.values[:, :, 0].any()


def test_copies_are_dropped_before_phases_of_unlike_length_are_tried(tmp_path):
  slices = slices_of(0, AcquisitionNumber=1)
  again = slices_of(0, slice(0, 3), AcquisitionNumber=2)
  voxels = dicom_voxels(write_files(tmp_path / "s", [*slices, *again]))
  np.testing.assert_array_equal(voxels.values, phantom())
  assert voxels.notes[0].startswith("duplicate_slices: 3")


def test_a_phase_must_be_named_and_is_said(tmp_path):
  slices = slices_of(0, AcquisitionNumber=1) + slices_of(1, AcquisitionNumber=2)
  folder = write_files(tmp_path / "s", slices)
  message = "2 volumes in the series; expected phase= one of: acquisition-1, acquisition-2"
  with pytest.raises(BadRecord, match=message) as error:
    read(folder)
  assert error.value.kind == "options"
  with pytest.raises(BadRecord, match="none of the name given; expected phase= one of"):
    read(folder, Options(phase="arterial"))
  media = read(folder, Options(phase="acquisition-2", value_range=(1000, 1700)))
  assert len(media.frames) == 8
  assert any(note.startswith("phase: acquisition-2, one of 2 volumes") for note in media.notes)
  lone = write_files(tmp_path / "lone", slices_of(0))
  with pytest.raises(BadRecord, match="a phase was named, but the series holds one volume"):
    read(lone, Options(phase="acquisition-1"))
  picture = dicom_dataset(np.zeros((20, 20), np.uint8), Modality="DX")
  picture.save_as(tmp_path / "a", enforce_file_format=True)
  for options in (Options(phase="b-0"), Options(series=1)):
    with pytest.raises(BadRecord, match="is for"):
      read(tmp_path / "a", options)


def test_nothing_that_tells_apart_is_refused(tmp_path):
  folder = write_files(tmp_path / "s", slices_of(0) + slices_of(1))
  with pytest.raises(BadRecord, match="8 slices share a position") as error:
    phases(folder, DEFAULT)
  assert error.value.kind == "geometry"


def test_makers_own_b_values_are_understood(tmp_path):
  makers = (
    ("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", ("0", "1000"), ("b-0", "b-1000")),
    ("Philips Imaging DD 001", 0x2001, 0x03, "FL", (0.0, 600.0), ("b-0", "b-600")),
    ("GEMS_PARM_01", 0x0043, 0x39, "IS", (["0", "8"], ["1000000800", "8"]), ("b-0", "b-800")),
  )
  for creator, group, element, vr, values, names in makers:
    slices = []
    for number, value in enumerate(values):
      for dataset in slices_of(number):
        dataset.private_block(group, creator, create=True).add_new(element, vr, value)
        slices.append(dataset)
    check(write_files(tmp_path / creator, slices), names)


def test_phases_are_listed_for_users(tmp_path):
  """`media.phases` is guarded as `read` is: no path in an error, nothing where no choice is."""
  series = slices_of(0, AcquisitionNumber=1) + slices_of(1, AcquisitionNumber=2)
  folder = write_files(tmp_path / "s", series)
  assert media.phases(folder) == ("acquisition-1", "acquisition-2")
  assert media.phases(write_files(tmp_path / "one", slices_of(0))) == ()
  with pytest.raises(BadRecord, match=r"missing: .*\(file [0-9a-f]{16}\)"):
    media.phases(tmp_path / "Jane_Doe")
