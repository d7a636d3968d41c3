"""NIfTI: an asymmetric phantom looks the same from every storage order; damage is BadRecord."""

import gzip
import itertools

import nibabel
from nibabel import orientations
import numpy as np
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media import windows
from tests.media.made import phantom

CT = Options(modality="CT", window=(350, 701))
SPACING = (1.5, 2.0, 2.5)
CODES = [
  "".join(c)
  for axes in itertools.permutations(("RL", "AP", "SI"))
  for c in itertools.product(*axes)
]


def save(path, array, affine, sform=1):
  image = nibabel.Nifti1Image(array, affine)
  image.set_sform(affine, sform)
  image.set_qform(affine, sform)
  image.to_filename(path)
  return path


def stored_as(codes):
  """The phantom in another storage order, with the affine that says so."""
  image = nibabel.Nifti1Image(phantom(), np.diag([*SPACING, 1.0]))
  change = orientations.ornt_transform(
    orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(tuple(codes))
  )
  turned = image.as_reoriented(change)
  return np.asarray(turned.dataobj), turned.affine


def axial():
  """uint8 [S, A, R] as a radiologist expects it: head first, front up, the right on the left."""
  return windows.linear(phantom().transpose(2, 1, 0)[::-1, ::-1, ::-1], 350, 701)


@pytest.mark.parametrize("codes", CODES)
def test_axial_display_is_the_same_from_every_storage_order(tmp_path, codes):
  array, affine = stored_as(codes)
  media = read(save(tmp_path / "a.nii.gz", array, affine), CT)
  np.testing.assert_array_equal(media.frames[..., 0], axial())
  assert media.kind == "volume" and media.axis_codes == "IPL"
  np.testing.assert_allclose(media.spacing_mm, (2.5, 2.0, 1.5), rtol=1e-6)
  # Frame 0, row 0, column 0 is the last voxel of the RAS phantom on every axis.
  corner = media.affine @ [0, 0, 0, 1]
  np.testing.assert_allclose(corner[:3], np.array(SPACING) * (11, 9, 7), rtol=1e-5)


def test_coronal_and_sagittal_planes(tmp_path):
  array, affine = stored_as("LPI")
  path = save(tmp_path / "a.nii", array, affine)
  flipped = phantom()[::-1, ::-1, ::-1]
  for plane, axes, codes in (("coronal", (1, 2, 0), "PIL"), ("sagittal", (0, 2, 1), "LIP")):
    media = read(path, Options(modality="CT", window=(350, 701), plane=plane))
    expected = windows.linear(flipped.transpose(axes), 350, 701)
    np.testing.assert_array_equal(media.frames[..., 0], expected)
    assert media.axis_codes == codes


def test_thick_slices_name_the_plane(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), np.diag([5.0, 1.0, 1.0, 1.0]))
  media = read(path, Options(modality="MR"))
  assert media.axis_codes == "LIP" and any("sagittal" in n for n in media.notes)


def test_slices_are_sampled_and_recorded(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), np.eye(4))
  media = read(path, Options(modality="CT", window=(350, 701), frames=3))
  assert media.slices == (0, 3, 7) and media.spacing_mm == (3.5, 1.0, 1.0)
  np.testing.assert_array_equal(media.frames[..., 0], axial()[[0, 3, 7]])


def test_hu_window_needs_a_declared_ct(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), np.eye(4))
  for options in (Options(window="lung"), Options(window="lung", modality="MR")):
    with pytest.raises(BadRecord, match='expected modality "CT"') as caught:
      read(path, options)
    assert caught.value.kind == "options"


def test_unknown_orientation_names_no_side(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), np.eye(4), sform=0)
  media = read(path, CT)
  assert media.axis_codes is None and media.affine is None
  assert any("orientation_unknown" in n for n in media.notes)
  with pytest.raises(BadRecord, match="orientation_unknown"):
    read(path, Options(modality="CT", plane="axial"))


def test_4d_needs_a_time_index(tmp_path):
  array = np.stack([phantom(), phantom() // 2], axis=-1)
  path = save(tmp_path / "a.nii.gz", array, np.eye(4))
  with pytest.raises(BadRecord, match="expected time_index 0 to 1"):
    read(path, CT)
  with pytest.raises(BadRecord, match="the file has 0 to 1"):
    read(path, Options(time_index=2))
  media = read(path, Options(modality="CT", window=(350, 701), time_index=0))
  np.testing.assert_array_equal(media.frames[..., 0], axial())


def test_mr_is_scaled_once_for_the_whole_volume(tmp_path):
  values = phantom().astype(np.float32)
  values[0, 0, 0] = np.nan
  media = read(save(tmp_path / "a.nii", values, np.eye(4)), Options(modality="MR"))
  means = media.frames.reshape(8, -1).mean(axis=1)
  assert np.all(means[:4] > means[4:].max())  # per-slice scaling would make them alike
  assert media.window is None


def test_hulumed_preset_follows_the_reference_arithmetic(tmp_path):
  """Spec 1.9, HF column: array order, optional clip, float64 min-max per slice, truncated."""
  rng = np.random.default_rng(0)
  values = rng.integers(-1000, 1000, (7, 5, 9)).astype(np.int16)
  values[..., 4] = 77  # a constant slice
  path = save(tmp_path / "a.nii.gz", values, np.diag([-1.0, -1.0, 2.0, 1.0]))
  window = Options(modality="CT", window=(40, 400), frames=4)
  media = read(path, window, preset="hulumed")
  assert media.slices == (0, 2, 5, 8)
  for k, frame in zip(media.slices, media.frames, strict=True):
    x = np.clip(values[:, :, k].astype(np.float64), -160, 240)
    expected = ((x - x.min()) / (x.max() - x.min()) * 255).astype(np.uint8)
    np.testing.assert_array_equal(frame[..., 0], expected)
  assert not read(path, Options(frames=1000), preset="hulumed").frames[4].any()


def test_limits_are_checked_before_reading(tmp_path):
  path = save(tmp_path / "a.nii.gz", phantom(), np.eye(4))
  small = Limits(max_pixels=10**6, max_voxels=100, max_frames=100, max_bytes=10**6)
  with pytest.raises(BadRecord, match="voxels; the limit is 100") as caught:
    read(path, CT, limits=small)
  assert caught.value.kind == "limit"


def test_gzip_bomb_and_huge_dimensions(tmp_path):
  raw = bytearray(nibabel.Nifti1Image(phantom(), np.eye(4)).to_bytes())
  bomb = tmp_path / "bomb.nii.gz"
  bomb.write_bytes(gzip.compress(bytes(raw) + bytes(20_000_000)))
  tight = Limits(max_pixels=10**6, max_voxels=10**6, max_frames=100, max_bytes=5_000_000)
  with pytest.raises(BadRecord, match="bytes; the limit is"):
    read(bomb, CT, limits=tight)
  raw[42:48] = np.array([20000, 20000, 20000], "<i2").tobytes()
  huge = tmp_path / "huge.nii"
  huge.write_bytes(raw)
  with pytest.raises(BadRecord, match="limit"):
    read(huge, CT)


@pytest.mark.parametrize("cut", (0.3, 0.7, 0.95))
def test_truncated_and_flipped_gzip(tmp_path, cut):
  path = save(tmp_path / "a.nii.gz", np.random.default_rng(1).normal(size=(9, 9, 9)), np.eye(4))
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * cut)])
  with pytest.raises(BadRecord):
    read(path, CT)
  flipped = bytearray(data)
  flipped[int(len(data) * cut)] ^= 255
  path.write_bytes(flipped)
  with pytest.raises(BadRecord):
    read(path, CT)


def test_a_real_ct_lies_as_a_radiologist_expects(real):
  """The liver, right and large, is brighter on the viewer's left in the upper slices."""
  path = real("vol_totalsegmentator/public/example_ct.nii.gz")
  media = read(path, Options(modality="CT", window="liver"))
  upper = media.frames[5:15, 30:70, :, 0].astype(float)
  assert upper[..., 20:55].mean() > upper[..., 70:105].mean()
