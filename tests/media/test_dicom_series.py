"""Series folders as volumes: every storage order; values and places as SimpleITK and tags say."""

import itertools
from pathlib import Path
import tracemalloc

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import read
from tests.media.made import dicom_slices
from tests.media.made import dicom_voxels
from tests.media.made import phantom
from tests.media.made import write_files

CT_DICOM = "vol_totalsegmentator/public/example_ct_dicom"
CT_MASK = "vol_totalsegmentator/public/example_ct_dicom_seg.nii.gz"
MR_DICOM = "vol_studyforrest_dicom/public/dicoms"
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SPACING = (1.5, 1.25, 2.5)
# LPS of (row, column, slice), 1 mm each: rows run to posterior.
AXIAL = np.eye(4)[:, [1, 0, 2, 3]]
ANY = Options(value_range=(0, 700))


def ras_affine() -> np.ndarray:
  """Of `phantom()`: its axes grow to the right, front and top."""
  affine = np.diag([*SPACING, 1.0])
  affine[:3, 3] = [-20, 7, 33]
  return affine


def stored_as(order, flips, turn=None):
  """The phantom with its axes permuted and flipped, as DICOM slices of (row, column, slice)."""
  image = nibabel.Nifti1Image(phantom(), ras_affine() if turn is None else turn @ ras_affine())
  image = image.as_reoriented(np.stack([order, flips], axis=1))
  return dicom_slices(np.asarray(image.dataobj), RAS_TO_LPS @ image.affine)


def itk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
  """SimpleITK's reading: values [row, column, slice] and their affine in RAS."""
  reader = SimpleITK.ImageSeriesReader()
  reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
  image = reader.Execute()
  affine = np.eye(4)
  directions = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
  affine[:3, :3] = directions[:, [1, 0, 2]]
  affine[:3, 3] = image.GetOrigin()
  return SimpleITK.GetArrayFromImage(image).transpose(1, 2, 0), RAS_TO_LPS @ affine


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_storage_order_leads_to_the_same_patient(order, tmp_path):
  for flips in itertools.product((1, -1), repeat=3):
    folder = tmp_path / "".join("+-"[f < 0] for f in flips)
    voxels = dicom_voxels(write_files(folder, stored_as(order, flips)))
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels.values, voxels.affine))
    np.testing.assert_array_equal(image.get_fdata(), phantom())
    np.testing.assert_allclose(image.affine, ras_affine(), atol=1e-6)
    # The axis that became slices names the plane.
    assert voxels.plane == ("sagittal", "coronal", "axial")[order.index(2)]


def test_a_series_is_shown_as_the_nifti_of_the_same_phantom(tmp_path):
  nibabel.Nifti1Image(phantom(), ras_affine()).to_filename(tmp_path / "a.nii")
  nifti = read(tmp_path / "a.nii", Options(modality="MR", value_range=(0, 700), plane="sagittal"))
  dicom = read(write_files(tmp_path / "s", stored_as((1, 2, 0), (1, -1, 1))), ANY)
  dicom_sagittal = read(tmp_path / "s", Options(value_range=(0, 700), plane="sagittal"))
  assert dicom.plane == "coronal" and dicom_sagittal.axis_codes == nifti.axis_codes
  np.testing.assert_array_equal(dicom_sagittal.frames, nifti.frames)
  np.testing.assert_allclose(dicom_sagittal.affine, nifti.affine, atol=1e-5)


@pytest.mark.parametrize("degrees", [(10, 0, 0), (0, -25, 0), (20, 15, -35)])
def test_oblique_slices_lie_where_simpleitk_puts_them(degrees, tmp_path):
  turn = np.eye(4)
  for axis, angle in enumerate(np.radians(degrees)):
    one, (a, b) = np.eye(4), [k for k in range(3) if k != axis]
    one[a, a] = one[b, b] = np.cos(angle)
    one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
    turn = one @ turn
  folder = write_files(tmp_path / "s", stored_as((1, 0, 2), (1, -1, 1), turn))
  values, affine = itk(folder)
  voxels = dicom_voxels(folder)
  np.testing.assert_array_equal(voxels.values, values)
  np.testing.assert_allclose(voxels.affine, affine, atol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(voxels.affine[:3, :3], axis=0), [1.25, 1.5, 2.5])


@pytest.mark.parametrize("name", [CT_DICOM, MR_DICOM])
def test_real_series_agree_with_simpleitk(name, real):
  values, affine = itk(real(name))
  voxels = dicom_voxels(real(name))
  np.testing.assert_array_equal(voxels.values, values)
  np.testing.assert_allclose(voxels.affine, affine, atol=1e-4)


def test_hounsfield_units_of_a_real_series_equal_its_tags(real):
  voxels = dicom_voxels(real(CT_DICOM))
  slices = [pydicom.dcmread(path) for path in real(CT_DICOM).iterdir()]
  slices.sort(key=lambda d: float(d.ImagePositionPatient[2]))
  assert voxels.look.units == "HU" and voxels.values.dtype == np.int16
  assert voxels.values.shape[2] == len(slices) == 20
  for k, dataset in enumerate(slices):
    hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_array_equal(voxels.values[:, :, k], hu)


def test_a_real_series_agrees_with_nifti_in_ras(real, tmp_path):
  """The shared NIfTI of this series is a mask by others on its grid: it fixes geometry.  For values
  the series is written as NIfTI, straight from its tags, and read back."""
  voxels = dicom_voxels(real(CT_DICOM))
  ours = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels.values, voxels.affine))
  mask = nibabel.as_closest_canonical(nibabel.load(real(CT_MASK)))
  assert ours.shape == mask.shape
  np.testing.assert_allclose(ours.affine, mask.affine, atol=1e-4)
  labels, hu = np.asarray(mask.dataobj), ours.get_fdata()
  assert np.mean(hu[labels > 0] > -200) > 0.9  # organs of the trunk, not the air around it
  slices = [pydicom.dcmread(path) for path in real(CT_DICOM).iterdir()]
  slices.sort(key=lambda d: float(d.ImagePositionPatient[2]))
  x, y, z = (float(v) for v in slices[0].ImagePositionPatient)
  row, column = (float(v) for v in slices[0].PixelSpacing)
  step = float(slices[1].ImagePositionPatient[2]) - z
  affine = np.array([[-column, 0, 0, -x], [0, -row, 0, -y], [0, 0, step, z], [0, 0, 0, 1]])
  stored = np.stack([d.pixel_array.T.astype(np.int16) - 1024 for d in slices], axis=2)
  nibabel.Nifti1Image(stored, affine).to_filename(tmp_path / "ct.nii")
  nifti = nibabel.as_closest_canonical(nibabel.load(tmp_path / "ct.nii"))
  np.testing.assert_array_equal(hu, nifti.get_fdata())
  window = (40, 400)
  np.testing.assert_array_equal(
    read(real(CT_DICOM), Options(window=window)).frames,
    read(tmp_path / "ct.nii", Options(modality="CT", window=window)).frames,
  )


def test_slope_and_intercept_are_those_of_each_slice(tmp_path):
  slices = stored_as((1, 0, 2), (1, 1, 1))
  for k, dataset in enumerate(slices):
    dataset.Modality, dataset.RescaleType = "PT", "US"
    dataset.RescaleSlope, dataset.RescaleIntercept = f"{0.5 + k}", "0"
  values = dicom_voxels(write_files(tmp_path / "s", slices)).values
  expected = phantom().transpose(1, 0, 2) * (0.5 + np.arange(8))
  np.testing.assert_allclose(np.sort(values.ravel()), np.sort(expected.ravel()))


def test_memory_holds_a_series_once(tmp_path):
  picture = np.random.default_rng(0).integers(0, 4000, (256, 256, 48)).astype(np.uint16)
  slices = dicom_slices(picture, AXIAL, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)
  folder = write_files(tmp_path / "s", slices)
  del slices
  tracemalloc.start()
  voxels = dicom_voxels(folder)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert voxels.values.dtype == np.int16
  assert peak < 1.5 * picture.nbytes


# --- what is odd about a stack


def notes_of(folder: Path, word: str) -> list[str]:
  return [note for note in dicom_voxels(folder).notes if note.startswith(f"{word}:")]


def test_missing_and_uneven_slices_are_named(tmp_path):
  slices = dicom_slices(phantom(), AXIAL)
  assert dicom_voxels(write_files(tmp_path / "whole", slices)).notes == ()
  write_files(tmp_path / "gap", [*slices[:3], *slices[5:]])
  (missing,) = notes_of(tmp_path / "gap", "missing_slices")
  assert "2 at 1 of 5 gaps" in missing
  assert notes_of(tmp_path / "gap", "uneven_spacing") == []
  slices[4].ImagePositionPatient = [0, 0, 4.4]
  (uneven,) = notes_of(write_files(tmp_path / "uneven", slices), "uneven_spacing")
  assert "2 of 7 gaps are 0.60 to 1.40 mm" in uneven


def test_a_gantry_tilt_shears_the_affine_and_is_named(tmp_path):
  affine = AXIAL.copy()
  affine[:3, 2] = [0, np.tan(np.radians(15)) * 3, 3]
  folder = write_files(tmp_path / "s", dicom_slices(phantom(), affine))
  (tilt,) = notes_of(folder, "gantry_tilt")
  assert "15.0 degrees" in tilt
  np.testing.assert_allclose(dicom_voxels(folder).affine, RAS_TO_LPS @ affine, atol=1e-9)


def test_slices_off_their_line_are_named(tmp_path):
  slices = dicom_slices(phantom(), AXIAL)
  slices[3].ImagePositionPatient = [4, 0, 3]
  (shifted,) = notes_of(write_files(tmp_path / "s", slices), "shifted_slices")
  assert "4.0 mm" in shifted


def test_exact_copies_are_dropped_and_others_refused(tmp_path):
  slices = dicom_slices(phantom(), AXIAL)
  folder = write_files(tmp_path / "s", slices)
  write_files(folder, slices[2:5], seed=1)
  (note,) = notes_of(folder, "duplicate_slices")
  assert "3 exact copies" in note
  np.testing.assert_array_equal(dicom_voxels(folder).values, phantom())
  other = dicom_slices(phantom() + 1, AXIAL)[:1]
  write_files(folder, other, seed=2)
  with pytest.raises(BadRecord, match="1 slices share a position .*neither echo") as error:
    read(folder, ANY)
  assert error.value.kind == "geometry"


@pytest.mark.parametrize(
  ("elements", "message"),
  [
    ({"ImageOrientationPatient": [1, 0, 0, 0, 0.5, 0]}, "lengths 1 and 0.5; expected 1 and 1"),
    ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "lengths 0 and 0"),
    ({"ImageOrientationPatient": [1, 0, 0, 0.6, 0.8, 0]}, "rows at 53.1 degrees to columns"),
    ({"ImageOrientationPatient": [1, 0, 0, 0, 1]}, "is not valid"),
    ({"PixelSpacing": [0, 1]}, "is not valid"),
    ({"ImagePositionPatient": None}, "without position, orientation or spacing"),
  ],
)
def test_geometry_that_cannot_be_is_refused(elements, message, tmp_path):
  slices = dicom_slices(phantom(), AXIAL)
  for keyword, value in elements.items():
    setattr(slices[3], keyword, value)
  folder = write_files(tmp_path / "s", slices)
  with pytest.raises(BadRecord, match=message) as error:
    read(folder, ANY)
  assert error.value.kind == "geometry"


def test_cosines_of_few_digits_are_made_unit(tmp_path):
  rounded = [0.866, 0.5, 0, -0.5, 0.866, 0]
  slices = dicom_slices(phantom(), AXIAL, ImageOrientationPatient=rounded)
  affine = dicom_voxels(write_files(tmp_path / "s", slices)).affine
  np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), 1, atol=1e-12)


def test_slices_of_two_sizes_or_orientations_are_refused(tmp_path):
  slices = dicom_slices(phantom(), AXIAL)
  turned = AXIAL[[1, 2, 0, 3]]
  folder = write_files(tmp_path / "turned", slices)
  write_files(folder, dicom_slices(phantom()[:, :, :1], turned), seed=1)
  with pytest.raises(BadRecord, match="2 different orientations"):
    read(folder, ANY)
  folder = write_files(tmp_path / "small", slices[:7])
  smaller = dicom_slices(phantom()[:6], AXIAL)[7:]
  with pytest.raises(BadRecord, match="slices of 2 different sizes"):
    read(write_files(folder, smaller, seed=1), ANY)
