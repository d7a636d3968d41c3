"""Folders of several series, of what is no picture, of too much: listed, skipped, counted."""

from pathlib import Path
import random

import numpy as np
from pydicom.data import get_testdata_file
import pytest

from hulu_jax.media import DEFAULT
from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media.dicom import header
from tests.media.made import CANARY
from tests.media.made import dicom_dataset
from tests.media.made import dicom_slices
from tests.media.made import dicom_voxels
from tests.media.made import phantom
from tests.media.made import write_files

# LPS of (row, column, slice), 1 mm each: rows run to posterior, or to inferior.
AXIAL = np.eye(4)[:, [1, 0, 2, 3]]
CORONAL = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 0], [0, 0, 0, 1.0]])
ANY = Options(value_range=(0, 700))


def test_series_are_listed_by_number_and_picked(tmp_path):
  axial = dicom_slices(phantom(), AXIAL, SeriesInstanceUID="1.9", SeriesNumber=2)
  for one in axial:
    one.SeriesDescription = CANARY
  ct = dicom_slices(
    phantom()[:, :, :3], CORONAL, Modality="CT", SeriesInstanceUID="1.2", SeriesNumber=10
  )
  unnumbered = dicom_slices(phantom()[:, :, :1], AXIAL, SeriesInstanceUID="1.1")
  folder = write_files(tmp_path / "s", [*axial, *ct, *unnumbered])
  with pytest.raises(BadRecord) as error:
    read(folder, ANY)
  assert error.value.kind == "options" and "CANARY" not in str(error.value)
  assert error.value.reason.splitlines()[1:] == [
    "1: MR, 8 slices, axial",
    "2: CT, 3 slices, coronal",
    "3: MR, 1 slice, axial",
  ]
  assert dicom_voxels(folder, number=2).values.shape == (12, 10, 3)
  picked = read(folder, Options(series=1, value_range=(0, 700)))
  assert picked.modality == "MR" and len(picked.frames) == 8
  with pytest.raises(BadRecord, match="none of number 4"):
    read(folder, Options(series=4))


def test_folders_below_are_walked_and_indexes_and_hidden_files_left(tmp_path):
  slices = dicom_slices(phantom(), AXIAL)
  write_files(tmp_path / "s" / "PAT0" / "STU0", slices[:4])
  write_files(tmp_path / "s" / "PAT0" / "STU1", slices[4:])
  write_files(tmp_path / "s" / ".trash", slices[:1], seed=1)
  (tmp_path / "s" / ".DS_Store").write_bytes(b"x" * 300)
  index = Path(get_testdata_file("DICOMDIR"))
  (tmp_path / "s" / "DICOMDIR").write_bytes(index.read_bytes())
  voxels = dicom_voxels(tmp_path / "s")
  np.testing.assert_array_equal(voxels.values, phantom())
  media = read(tmp_path / "s", ANY)
  assert not any("skipped" in note for note in media.notes)
  deep = tmp_path.joinpath("deep", *"abcdefghij")
  write_files(deep, slices)
  with pytest.raises(BadRecord, match="folders more than 8 deep"):
    read(tmp_path / "deep", ANY)


def test_limits_hold_for_a_folder(tmp_path):
  folder = write_files(tmp_path / "s", dicom_slices(phantom(), AXIAL))
  cases = {
    "8 slices; the limit is 7|files in a folder": Limits(max_frames=7, max_files=7),
    "960 voxels": Limits(max_voxels=900),
    "bytes; the limit is": Limits(max_bytes=4000),
  }
  for message, limits in cases.items():
    with pytest.raises(BadRecord, match=message) as error:
      read(folder, ANY, limits=limits)
    assert error.value.kind == "limit"


def test_several_x_rays_are_no_volume(tmp_path):
  def x_rays(count):
    return [
      dicom_dataset(phantom()[:, :, k].astype(np.uint16), Modality="DX") for k in range(count)
    ]

  folder = write_files(tmp_path / "two", x_rays(2))
  with pytest.raises(BadRecord, match=r"2 separate pictures \(DX\).*read the files one by one"):
    read(folder)
  assert read(write_files(tmp_path / "one", x_rays(1))).kind == "image"
  mixed = write_files(tmp_path / "mixed", x_rays(2))
  for one in dicom_slices(phantom(), AXIAL, SeriesInstanceUID="1.7", SeriesNumber=1):
    one.save_as(mixed / f"s{one.InstanceNumber}", enforce_file_format=True)
  with pytest.raises(BadRecord, match="1: MR, 8 slices, axial\n2: DX, 2 pictures"):
    read(mixed)


CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
NOT_PICTURES = [
  ({"Modality": "RTDOSE"}, "a RTDOSE object"),
  ({"Modality": "RTSTRUCT"}, "a RTSTRUCT object"),
  ({"Modality": "SEG"}, "a SEG object"),
  ({"Modality": "KO"}, "a KO object"),
  ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "an object of class raw data"),
  ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "an object of class SR"),
  ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "an object of class encapsulated document"),
  ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "an object of class PR"),
  ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.5"}, "an object of class RTPLAN"),
  ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]}, "a localizer"),
  ({"ImageType": ["ORIGINAL", "PRIMARY", "SCOUT"]}, "a localizer"),
  ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "a dose sheet"),
  ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "a screenshot"),
  ({"Modality": "CT", "SOPClassUID": CAPTURE}, "a secondary capture"),
  ({"Modality": "SM", "ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, "a slide label"),
  ({"Modality": "SM", "ImageType": ["ORIGINAL", "PRIMARY", "OVERVIEW"]}, "a slide overview"),
]


@pytest.mark.parametrize(("elements", "reason"), NOT_PICTURES)
def test_what_is_no_picture_is_counted_in_a_folder_and_refused_alone(elements, reason, tmp_path):
  sheet = dicom_dataset(np.zeros((20, 20), np.uint8), **({"Modality": "CT"} | elements))
  folder = write_files(tmp_path / "s", dicom_slices(phantom(), AXIAL))
  sheet.save_as(folder / "sheet", enforce_file_format=True)
  sheet.save_as(folder / "again", enforce_file_format=True)
  media = read(folder, ANY)
  assert len(media.frames) == 8
  assert any(note.startswith(f"skipped 2 x {reason}") for note in media.notes)
  with pytest.raises(BadRecord, match=reason):
    read(folder / "sheet")


def test_the_standard_objects_of_pydicom_are_no_pictures():
  for name in ("rtdose.dcm", "rtstruct.dcm", "rtplan.dcm", "liver_1frame.dcm", "test-SR.dcm"):
    path = Path(get_testdata_file(name))
    assert header.why_not_picture(header.read(path, DEFAULT)) is not None


def test_a_secondary_capture_beside_slices_is_skipped_and_alone_is_a_picture(tmp_path):
  capture = dicom_dataset(np.zeros((20, 20), np.uint8), Modality="OT", SOPClassUID=CAPTURE)
  capture.SeriesInstanceUID = "1.8"
  folder = write_files(tmp_path / "s", dicom_slices(phantom(), AXIAL))
  capture.save_as(folder / "capture", enforce_file_format=True)
  assert "skipped 1 x a secondary capture" in read(folder, ANY).notes
  assert read(folder / "capture").kind == "image"


def test_lossy_compression_and_the_body_part_are_carried(tmp_path):
  told = {"LossyImageCompression": "01", "BodyPartExamined": "HEAD"}
  voxels = dicom_voxels(write_files(tmp_path / "a", dicom_slices(phantom(), AXIAL, **told)))
  assert voxels.body_part == "HEAD"
  assert [note.split(":")[0] for note in voxels.notes] == ["lossy"]
  for free_text in (CANARY, "Head of Jane", "X" * 17, ""):
    slices = dicom_slices(phantom(), AXIAL, BodyPartExamined=free_text)
    folder = write_files(tmp_path / f"b{len(free_text)}", slices)
    assert dicom_voxels(folder).body_part is None


def test_nothing_about_the_patient_gets_out_of_a_folder(tmp_path, caplog, capfd):
  texts = {
    "SeriesDescription": CANARY,
    "ProtocolName": "CANARY protocol",
    "ImageComments": "CANARY comment",
    "ImageType": ["ORIGINAL", "PRIMARY", "CANARY TYPE"],
  }
  one = dicom_slices(phantom(), AXIAL, **texts)
  two = dicom_slices(phantom() + 1, AXIAL, **(texts | {"ImageType": ["ORIGINAL", "CANARY"]}))
  folder = write_files(tmp_path / "s", one)
  write_files(folder, two, seed=1)
  with pytest.raises(BadRecord, match="type-1, type-2") as error:
    read(folder, ANY)
  media = read(folder, Options(phase="type-2", value_range=(0, 700)))
  written = capfd.readouterr()
  said = f"{error.value} {media.notes} {media.provenance} {caplog.text} {written}"
  assert "CANARY" not in said and "1.2.3.4" not in said and str(folder) not in said


def test_damage_in_a_folder_is_bad_record(tmp_path):
  rng = random.Random(1)
  folder = write_files(tmp_path / "s", dicom_slices(phantom(), AXIAL))
  path = sorted(folder.iterdir())[3]
  whole = path.read_bytes()
  for trial in range(60):
    damaged = bytearray(whole[: rng.randrange(1, len(whole))] if trial % 2 else whole)
    for _ in range(3):
      damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    path.write_bytes(damaged)
    try:
      read(folder, ANY, limits=DEFAULT)
    except BadRecord as error:
      assert "CANARY" not in str(error)
