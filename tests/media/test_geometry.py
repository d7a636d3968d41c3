"""An asymmetric phantom looks alike from every storage order; other libraries place it alike."""

import itertools

import nibabel
from nibabel import orientations
import numpy as np
import pytest
import SimpleITK

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import geometry
from hulu_jax.media import read
from tests.media.made import phantom

CT = Options(modality="CT", window=(350, 701))
CODES = [
  "".join(c)
  for axes in itertools.permutations(("RL", "AP", "SI"))
  for c in itertools.product(*axes)
]
REAL = (
  "vol_totalsegmentator/public/example_ct.nii.gz",
  "vol_totalsegmentator/public/example_ct_sm.nii.gz",
  "vol_totalsegmentator/public/example_mr_sm.nii.gz",
  "vol_spinalcord_mr/public/t1w.nii.gz",
  "vol_spinalcord_mr/public/t2.nii.gz",
  "vol_spinalcord_mr/public/t2s_uncropped.nii.gz",
)


def save(path, array, affine, sform=1, qform=1):
  image = nibabel.Nifti1Image(array, affine)
  image.header.set_xyzt_units("mm")
  image.set_sform(affine, sform)
  image.set_qform(affine, qform)
  image.to_filename(path)
  return path


def stored_as(codes):
  """The phantom in another storage order, with the affine that says so."""
  image = nibabel.Nifti1Image(phantom(), np.diag([2.0, 2.0, 2.0, 1.0]))
  change = orientations.ornt_transform(
    orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(tuple(codes))
  )
  turned = image.as_reoriented(change)
  return np.asarray(turned.dataobj), turned.affine


def expected(plane):
  """HU voxel by voxel: `right`, `front`, `up` count from the patient's left, back and feet."""
  body = phantom()
  width, depth, height = body.shape
  slices = {"axial": height, "coronal": depth, "sagittal": width}[plane]
  rows = depth if plane == "axial" else height
  columns = depth if plane == "sagittal" else width
  out = np.empty((slices, rows, columns), np.int16)
  for s, r, c in np.ndindex(out.shape):
    if plane == "axial":  # head first; top row in front; the patient's right on the left
      x, y, z = width - 1 - c, depth - 1 - r, height - 1 - s
    elif plane == "coronal":  # front first; top row at the head; right on the left
      x, y, z = width - 1 - c, depth - 1 - s, height - 1 - r
    else:  # right first; top row at the head; the front on the left
      x, y, z = width - 1 - s, depth - 1 - c, height - 1 - r
    out[s, r, c] = body[x, y, z]
  return out


def grey(hounsfield):
  """Centre 350, width 701: black to -0.5 HU, white from 699.5 on (PS3.3 C.11.2.1.2.1), rounded."""
  return np.floor(np.clip((hounsfield + 0.5) / 700, 0, 1) * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("codes", CODES)
def test_every_storage_order_is_shown_alike(tmp_path, codes):
  path = save(tmp_path / "a.nii", *stored_as(codes))
  for plane, letters in (("axial", "IPL"), ("coronal", "PIL"), ("sagittal", "LIP")):
    options = Options(modality="CT", window=(350, 701), plane=plane)
    media = read(path, options)
    np.testing.assert_array_equal(media.frames[..., 0], grey(expected(plane)))
    assert (media.plane, media.axis_codes, media.oblique_degrees) == (plane, letters, 0)
    assert media.spacing_mm == (2, 2, 2)
    # Frame 0, row 0, column 0 is the phantom's voxel furthest to the right, front and head.
    np.testing.assert_allclose(media.affine @ [0, 0, 0, 1], [22, 18, 14, 1], atol=1e-5)
    assert "".join(nibabel.aff2axcodes(media.affine)) == letters


def test_storage_and_display_give_every_voxel_the_same_place():
  """A sheared, anisotropic affine in all orders: value and RAS place stay together."""
  rng = np.random.default_rng(0)
  for codes in CODES[::5]:
    values, affine = stored_as(codes)
    affine = affine.copy()
    affine[:3, :3] = (
      (np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3))) @ affine[:3, :3] @ np.diag([1, 2, 3])
    )
    for plane in ("axial", "coronal", "sagittal"):
      view = geometry.view(values.shape, affine, plane)
      shown = view(values)
      s, r, c = (n // 3 for n in shown.shape)
      place = view.affine @ [s, r, c, 1]
      stored = np.rint(np.linalg.solve(affine, place)).astype(int)[:3]
      np.testing.assert_allclose(affine @ [*stored, 1], place, atol=1e-9)
      assert shown[s, r, c] == values[tuple(stored)]


def read_itk(path):
  """[I, P, L] as SimpleITK reorders it, with the first voxel's place in RAS millimetres."""
  image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
  corner = image.TransformIndexToPhysicalPoint((0, 0, image.GetSize()[2] - 1))
  return SimpleITK.GetArrayFromImage(image)[::-1], np.array(corner) * (-1, -1, 1)


def read_nibabel(path):
  """[I, P, L] as nibabel's closest canonical image has it, with the first voxel's place."""
  image = nibabel.as_closest_canonical(nibabel.load(path))
  values = np.flip(image.get_fdata().transpose(2, 1, 0))
  return values, (image.affine @ [*(n - 1 for n in image.shape), 1])[:3]


def shown_over(path, low, high):
  options = Options(modality="MR", value_range=(low, high), plane="axial")
  return read(path, options)


def agree(path):
  values, corner = read_nibabel(path)
  np.testing.assert_array_equal(read_itk(path)[0], values)
  np.testing.assert_allclose(read_itk(path)[1], corner, atol=1e-3)
  low, high = float(values.min()), float(values.max())
  media = shown_over(path, low, high)
  # Grey levels are 1/255 of the range apart; half of one is rounding.
  back = media.frames[..., 0] / 255 * (high - low) + low
  np.testing.assert_allclose(back, values, atol=(high - low) / 255 * 0.501)
  np.testing.assert_allclose((media.affine @ [0, 0, 0, 1])[:3], corner, atol=1e-3)
  return media


@pytest.mark.parametrize("name", REAL)
def test_real_files_agree_with_nibabel_and_simpleitk(real, name):
  media = agree(real(name))
  assert media.axis_codes == "IPL" and media.plane == "axial"


def test_a_real_dicom_series_agrees_with_its_nifti_and_simpleitk(real, tmp_path):
  folder = real("vol_totalsegmentator/public/example_ct_dicom")
  reader = SimpleITK.ImageSeriesReader()
  reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
  image = reader.Execute()
  SimpleITK.WriteImage(image, str(tmp_path / "a.nii.gz"))
  options = Options(modality="CT", window="bone")
  dicom, nifti = read(folder, options), read(tmp_path / "a.nii.gz", options)
  np.testing.assert_array_equal(dicom.frames, nifti.frames)
  np.testing.assert_allclose(dicom.affine, nifti.affine, atol=1e-3)
  values = SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(image, "LPS"))[::-1]
  # LINEAR of PS3.3 C.11.2.1.2.1 with centre 400 and width 1800.
  level = np.clip((values - 399.5) / 1799 + 0.5, 0, 1) * 255
  np.testing.assert_allclose(dicom.frames[..., 0], level, atol=0.501)


@pytest.mark.parametrize("codes", CODES[::7])
def test_made_files_agree_with_nibabel_and_simpleitk(tmp_path, codes):
  values = np.random.default_rng(3).integers(0, 255, (9, 7, 6)).astype(np.int16)
  _, affine = stored_as(codes)
  affine = affine.copy()
  affine[:3, 3] = [11, -7, 31]
  angle = np.radians(12)
  turn = np.array(
    [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
  )
  affine[:3, :3] = turn @ affine[:3, :3]
  media = agree(save(tmp_path / "a.nii", values, affine))
  assert media.oblique_degrees == pytest.approx(12, abs=0.01)


def turned(degrees, axis=0, spacing=(1, 1, 5)):
  """An affine turned about one world axis."""
  cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  first, second = (a for a in range(3) if a != axis)
  turn = np.eye(3)
  turn[first, first] = turn[second, second] = cosine
  turn[first, second], turn[second, first] = -sine, sine
  affine = np.eye(4)
  affine[:3, :3] = turn @ np.diag(spacing)
  return affine


@pytest.mark.parametrize("degrees", (0, 8, 29.9, 30))
def test_up_to_thirty_degrees_a_plane_is_named(tmp_path, degrees):
  media = read(save(tmp_path / "a.nii", phantom(), turned(degrees)), CT)
  assert (media.plane, media.axis_codes) == ("axial", "IPL")
  assert media.oblique_degrees == pytest.approx(degrees, abs=0.01)


def test_beyond_thirty_degrees_neither_plane_nor_side_is_named(tmp_path):
  for degrees, nearest in ((31, "axial"), (44, "axial"), (46, "coronal"), (59, "coronal")):
    path = save(tmp_path / "a.nii", phantom(), turned(degrees))
    media = read(path, CT)
    assert media.plane is None and media.axis_codes is None
    angle = min(degrees, 90 - degrees)
    assert media.oblique_degrees == pytest.approx(angle, abs=0.01)
    assert any(
      f"turned {angle:.1f} degrees from the nearest plane ({nearest})" in n for n in media.notes
    )
    with pytest.raises(BadRecord, match=f"turned {angle:.1f} degrees.*up to 30") as caught:
      read(path, Options(modality="CT", plane="axial"))
    assert caught.value.kind == "geometry"
    # The slices as acquired (the coarse axis) are still what is shown.
    assert len(media.frames) == 8 and media.spacing_mm == pytest.approx((5, 1, 1))


def test_a_turn_within_the_plane_keeps_the_plane_but_names_no_side(tmp_path):
  media = read(save(tmp_path / "a.nii", phantom(), turned(40, axis=2)), CT)
  assert media.plane == "axial" and media.axis_codes is None and media.oblique_degrees == 0
  assert any("no side is named" in n for n in media.notes)


def test_slices_as_acquired_are_shown_however_oblique():
  """At 50 degrees the stored slices are closest to coronal, but they are pinned as axial."""
  affine = turned(50)
  view = geometry.view((12, 10, 8), affine, "axial", geometry.pin("axial"))
  assert view.axes[0] == 2 and view.nearest == "coronal"
  assert view.degrees == pytest.approx(40) and view.plane is None


@pytest.mark.parametrize("tilt", (10, 25))
def test_a_gantry_tilt_is_an_angle_of_the_pictures_not_of_the_stack(tilt):
  """Rows tilted about x, slices following each other straight along z."""
  affine = np.eye(4)
  affine[:3, 1] = [0, np.cos(np.radians(tilt)), np.sin(np.radians(tilt))]
  affine[:3, 2] = [0, 0, 4]
  view = geometry.view((5, 6, 7), affine, "axial")
  assert view.degrees == pytest.approx(tilt, abs=1e-3) and view.codes == "IPL"


def test_affines_that_place_nothing_are_refused():
  for broken in (np.diag([1.0, 1, 0, 1]), np.diag([1.0, np.nan, 1, 1]), np.ones((4, 4))):
    with pytest.raises(BadRecord, match="expected a 3D volume's") as caught:
      geometry.view((2, 2, 2), broken, "axial")
    assert caught.value.kind == "geometry"


@pytest.mark.parametrize(
  ("shape", "spacing", "plane"),
  (
    ((9, 9, 9), (1, 1, 1.4), "axial"),
    ((9, 9, 9), (3, 2, 2), "sagittal"),
    ((9, 9, 9), (1, 1.5, 1), "coronal"),
    ((9, 9, 9), (1, 1.49, 1), "axial"),
    ((9, 9, 9), (2, 2, 1), "axial"),
    ((9, 1, 9), (1, 1, 1), "coronal"),
    ((1, 9, 9), (1, 1, 5), "sagittal"),
    ((1, 1, 9), (1, 1, 1), "axial"),
  ),
)
def test_the_plane_of_thick_slices(shape, spacing, plane):
  assert geometry.plane_of(shape, np.diag([*spacing, 1.0])) == plane
