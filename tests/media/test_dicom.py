"""DICOM: order, HU, windows, inversion, cine times, regions; refusals; nothing about a patient."""

import logging
import random

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media import windows
from tests.media.made import CANARY
from tests.media.made import US_MULTI_CLASS
from tests.media.made import dicom_dataset
from tests.media.made import phantom

WIDE = Options(window=(350, 701))


def write(folder, name, dataset):
  path = folder / name
  dataset.save_as(path, enforce_file_format=True)
  return path


def ct_slice(z: int, **elements) -> pydicom.FileDataset:
  """Axial slice z of the phantom: rows run to posterior, columns to the left, 2.5 mm apart."""
  hu = phantom()[::-1, ::-1, z % 8].T
  defaults = {
    "Modality": "CT",
    "RescaleSlope": 1,
    "RescaleIntercept": -1024,
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "ImagePositionPatient": [-16.5, -13.5, 2.5 * z],
    "PixelSpacing": [1.5, 1.5],
    "InstanceNumber": 99 - z,
  }
  return dicom_dataset(np.ascontiguousarray(hu + 1024).astype(np.uint16), **(defaults | elements))


def write_series(folder, slices=range(8), **elements):
  folder.mkdir(exist_ok=True)
  names = [f"IM{n:03}" for n in range(len(slices))]
  random.Random(3).shuffle(names)
  for name, z in zip(names, slices, strict=True):
    write(folder, name, ct_slice(z, **elements))
  return folder


def expected_axial():
  return windows.linear(phantom().transpose(2, 1, 0)[::-1, ::-1, ::-1], 350, 701)


def test_a_shuffled_series_becomes_a_volume_in_hu(tmp_path):
  media = read(write_series(tmp_path / "s"), WIDE)
  assert (media.kind, media.modality, media.axis_codes) == ("volume", "CT", "IPL")
  assert media.spacing_mm == (2.5, 1.5, 1.5) and media.window == (350, 701)
  np.testing.assert_array_equal(media.frames[..., 0], expected_axial())


def test_dicom_and_nifti_of_one_volume_agree(tmp_path):
  """Same phantom, same world coordinates: LPS in DICOM, RAS in NIfTI."""
  ras = np.diag([1.5, 1.5, 2.5, 1.0])
  ras[:3, 3] = [0, 0, 0]
  nibabel.Nifti1Image(phantom(), ras).to_filename(tmp_path / "a.nii")
  nifti = read(tmp_path / "a.nii", Options(modality="CT", window=(350, 701)))
  dicom = read(write_series(tmp_path / "s"), WIDE)
  np.testing.assert_array_equal(nifti.frames, dicom.frames)
  np.testing.assert_allclose(nifti.affine, dicom.affine, atol=1e-5)


def test_missing_slices_and_tilt_are_said(tmp_path):
  media = read(write_series(tmp_path / "gap", [0, 1, 2, 3, 5, 6, 7]), WIDE)
  assert any(n.startswith("missing_slices: 1 at 1 of 6 gaps") for n in media.notes)
  folder = tmp_path / "tilt"
  folder.mkdir()
  for z in range(8):
    write(folder, f"{z}", ct_slice(z, ImagePositionPatient=[-16.5, -13.5 + z, 2.5 * z]))
  assert any(n.startswith("gantry_tilt: 21.8 degrees") for n in read(folder, WIDE).notes)


def test_what_is_not_one_stack_is_refused(tmp_path):
  two = write_series(tmp_path / "two")
  write(two, "other", ct_slice(3, SeriesInstanceUID="1.2.3.5"))
  with pytest.raises(BadRecord, match="2 DICOM series in the folder"):
    read(two, WIDE)
  same = write_series(tmp_path / "same")
  write(same, "again", ct_slice(3, RescaleIntercept=-1000))
  with pytest.raises(BadRecord, match="1 slices share a position"):
    read(same, WIDE)
  mixed = write_series(tmp_path / "mixed")
  write(mixed, "turned", ct_slice(9, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]))
  with pytest.raises(BadRecord, match="different orientation"):
    read(mixed, WIDE)
  (tmp_path / "none").mkdir()
  with pytest.raises(BadRecord, match="0 DICOM series"):
    read(tmp_path / "none", WIDE)


def test_localizers_and_strangers_are_counted_not_shown(tmp_path):
  folder = write_series(tmp_path / "s")
  scout = ct_slice(40, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesInstanceUID="1.9")
  write(folder, "scout", scout)
  (folder / "notes.txt").write_text("hello")
  media = read(folder, WIDE)
  assert len(media.frames) == 8
  assert {"skipped 1 x a localizer", "skipped 1 x a file that is not DICOM"} <= set(media.notes)


def test_one_slice_windows_and_monochrome1_inverts_last(tmp_path):
  plain = read(write(tmp_path, "a", ct_slice(6)), WIDE)
  inverted = read(write(tmp_path, "b", ct_slice(6, PhotometricInterpretation="MONOCHROME1")), WIDE)
  assert plain.kind == "image" and plain.spacing_mm == (0.0, 1.5, 1.5)
  np.testing.assert_array_equal(plain.frames[0, ..., 0], expected_axial()[1])
  np.testing.assert_array_equal(inverted.frames, 255 - plain.frames)
  own = read(write(tmp_path, "c", ct_slice(6, WindowCenter=[350, 40], WindowWidth=[701, 400])))
  np.testing.assert_array_equal(own.frames, plain.frames)


def test_a_window_needs_hounsfield_units(tmp_path):
  slice_ = ct_slice(6, Modality="MR")
  with pytest.raises(BadRecord, match="not known to be HU"):
    read(write(tmp_path, "mr", slice_), WIDE)
  with pytest.raises(BadRecord, match="modality CT was given; the file says MR"):
    read(tmp_path / "mr", Options(modality="CT"))


def cine(**elements) -> pydicom.FileDataset:
  frames = np.zeros((5, 20, 30, 3), np.uint8)
  frames += np.arange(5, dtype=np.uint8)[:, None, None, None] * 10
  frames[:, :6] = 255  # burned-in text
  defaults = {"Modality": "US", "SOPClassUID": US_MULTI_CLASS}
  return dicom_dataset(frames, **(defaults | elements))


def region(top, left, bottom, right):
  item = Dataset()
  item.RegionSpatialFormat = 1
  item.RegionLocationMinY0, item.RegionLocationMinX0 = top, left
  item.RegionLocationMaxY1, item.RegionLocationMaxX1 = bottom - 1, right - 1
  return item


def test_a_cine_is_a_video_with_times(tmp_path):
  media = read(write(tmp_path, "a", cine(FrameTime=40)))
  assert media.kind == "video" and media.frames.shape == (5, 20, 30, 3)
  assert media.timestamps == (0.0, 0.04, 0.08, 0.12, 0.16) and media.fps == 25
  uneven = read(write(tmp_path, "b", cine(FrameTimeVector=[0, 10, 20, 30, 40])))
  assert uneven.timestamps == (0.0, 0.01, 0.03, 0.06, 0.1)
  few = read(tmp_path / "b", Options(frames=2))
  assert few.timestamps == (0.0, 0.1) and few.frames[1, 10, 0, 0] == 40
  slow = read(tmp_path / "a", Options(fps=12.5))
  assert slow.timestamps == (0.0, 0.08, 0.16)
  with pytest.raises(BadRecord, match="FrameTimeVector of 3 times for 5 frames"):
    read(write(tmp_path, "c", cine(FrameTimeVector=[0, 10, 20])))
  with pytest.raises(BadRecord, match="fps needs frame times"):
    read(write(tmp_path, "d", cine()), Options(fps=1))


def test_cropping_to_the_ultrasound_region(tmp_path):
  crop = Options(crop="ultrasound_region")
  path = write(tmp_path, "a", cine(SequenceOfUltrasoundRegions=[region(6, 2, 20, 28)]))
  media = read(path, crop)
  assert media.frames.shape == (5, 14, 26, 3) and media.frames.max() == 40
  outside = write(tmp_path, "b", cine(SequenceOfUltrasoundRegions=[region(6, 2, 40, 28)]))
  with pytest.raises(BadRecord, match="the picture has 20 x 30"):
    read(outside, crop)
  with pytest.raises(BadRecord, match="no 2D ultrasound region"):
    read(write(tmp_path, "c", cine()), crop)


def test_an_enhanced_ct_is_a_volume(tmp_path):
  dataset = dicom_dataset(
    np.stack([ct_slice(z).pixel_array for z in (5, 0, 7, 2, 1, 6, 3, 4)]), Modality="CT"
  )
  shared, measures, turn, scale = Dataset(), Dataset(), Dataset(), Dataset()
  measures.PixelSpacing = [1.5, 1.5]
  turn.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
  scale.RescaleSlope, scale.RescaleIntercept = 1, -1024
  shared.PixelMeasuresSequence = [measures]
  shared.PlaneOrientationSequence = [turn]
  shared.PixelValueTransformationSequence = [scale]
  dataset.SharedFunctionalGroupsSequence = [shared]
  frames = []
  for z in (5, 0, 7, 2, 1, 6, 3, 4):
    place, group = Dataset(), Dataset()
    place.ImagePositionPatient = [-16.5, -13.5, 2.5 * z]
    group.PlanePositionSequence = [place]
    frames.append(group)
  dataset.PerFrameFunctionalGroupsSequence = frames
  media = read(write(tmp_path, "a", dataset), WIDE)
  assert media.kind == "volume" and media.spacing_mm == (2.5, 1.5, 1.5)
  np.testing.assert_array_equal(media.frames[..., 0], expected_axial())


def test_refusals_say_what_was_found(tmp_path):
  deflated = ct_slice(0)
  deflated.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
  with pytest.raises(BadRecord, match="deflated transfer syntax"):
    read(write(tmp_path, "a", deflated))
  with pytest.raises(BadRecord, match="a SEG object"):
    read(write(tmp_path, "b", ct_slice(0, Modality="SEG")))
  with pytest.raises(BadRecord, match="for processing"):
    mammogram = ct_slice(0, Modality="MG", PresentationIntentType="FOR PROCESSING")
    read(write(tmp_path, "c", mammogram))
  bomb = ct_slice(0)
  bomb.Rows = bomb.Columns = 30000
  with pytest.raises(BadRecord, match="900,000,000 pixels in a frame"):
    read(write(tmp_path, "d", bomb))


def test_damage_is_bad_record_and_never_names_the_patient(tmp_path, caplog, capfd):
  """Truncations and flips over the whole file; messages, logs and stderr stay free of canaries."""
  caplog.set_level(logging.DEBUG)
  data = write(tmp_path, "a", ct_slice(3)).read_bytes()
  rng = random.Random(0)
  for trial in range(120):
    damaged = bytearray(data[: rng.randrange(200, len(data))] if trial % 2 else data)
    for _ in range(trial % 5):
      damaged[rng.randrange(132, len(damaged))] ^= 1 << rng.randrange(8)
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    try:
      read(path)
    except BadRecord as error:
      assert "CANARY" not in str(error) and "1999" not in str(error)
      assert error.__cause__ is None
  written = capfd.readouterr()
  assert CANARY not in caplog.text + written.out + written.err


def test_a_real_series_equals_its_tags(real):
  folder = real("vol_totalsegmentator/public/example_ct_dicom")
  media = read(folder, Options(window=(0, 2001)))
  slices = [pydicom.dcmread(p) for p in folder.iterdir()]
  slices.sort(key=lambda d: -float(d.ImagePositionPatient[2]))
  assert len(media.frames) == len(slices) == 20
  for frame, dataset in zip(media.frames[[0, 11]], (slices[0], slices[11]), strict=True):
    hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_array_equal(frame[..., 0], windows.linear(hu, 0, 2001))
