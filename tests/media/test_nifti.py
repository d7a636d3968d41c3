"""NIfTI: what its headers say well or badly, and damage, which is BadRecord."""

import dataclasses
import gzip

import nibabel
import numpy as np
import pytest

from hulu_jax.media import DEFAULT
from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media import windows
from tests.media.made import phantom

CT = Options(modality="CT", window=(350, 701))


def made(array, affine, sform=1, qform=1, **fields):
  """A NIfTI-1 image in millimetres whose header is then changed behind nibabel's back."""
  image = nibabel.Nifti1Image(array, affine)
  image.header.set_xyzt_units("mm")
  image.set_sform(affine, sform)
  image.set_qform(affine, qform)
  raw = bytearray(image.to_bytes())
  header = np.frombuffer(raw, nibabel.nifti1.header_dtype, 1)[0]
  for name, value in fields.items():
    header[name] = value
  return bytes(raw)


def save(path, array, affine=None, sform=1, qform=1, **fields):
  """The file `path`, compressed where it ends in .gz."""
  raw = made(array, np.eye(4) if affine is None else affine, sform, qform, **fields)
  path.write_bytes(gzip.compress(raw, 1) if path.suffix == ".gz" else raw)
  return path


def axial():
  """uint8 [S, A, R] as a radiologist expects it: head first, front up, the right on the left."""
  return windows.linear(phantom().transpose(2, 1, 0)[::-1, ::-1, ::-1], 350, 701)


def has(media, text):
  return any(text in note for note in media.notes)


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
  path = save(tmp_path / "a.nii", phantom(), sform=0, qform=0)
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
  for limits in (tight, DEFAULT):
    with pytest.raises(BadRecord, match="trailing bytes; the limit is") as caught:
      read(bomb, CT, limits=limits)
    assert caught.value.kind == "limit"
  few = dataclasses.replace(tight, max_bytes=2000)
  with pytest.raises(BadRecord, match="bytes; the limit is 2,000"):
    read(bomb, CT, limits=few)
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


# What the header says about space.


def test_a_qform_alone_places_the_volume(tmp_path):
  """Also with qfac 0 and -1, which nibabel's own reading of its own file confirms."""
  left_handed = np.diag([-2.0, 2.0, 2.0, 1.0])
  path = save(tmp_path / "a.nii", phantom(), left_handed, sform=0)
  media = read(path, CT)
  np.testing.assert_array_equal(media.frames[..., 0], axial()[..., ::-1])
  assert media.axis_codes == "IPL" and media.provenance["placed_by"] == "qform"
  assert has(media, "stored left-handed (LAS)")
  pixdim = np.array([0, 2, 2, 2, 0, 0, 0, 0], np.float32)
  media = read(
    save(tmp_path / "b.nii", phantom(), np.diag([2.0, 2, 2, 1]), 0, 1, pixdim=pixdim), CT
  )
  np.testing.assert_array_equal(media.frames[..., 0], axial())


def test_quaternions_are_read_as_nibabel_reads_them(tmp_path):
  rng = np.random.default_rng(5)
  for n in range(6):
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)) * 0.2 + np.diag([1, 1, rng.choice([-1, 1])]))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.sign(np.diag(turn)) * (1, 1.5, 2)
    affine[:3, 3] = rng.normal(size=3) * 50
    path = save(tmp_path / f"{n}.nii", phantom(), affine, sform=0)
    expected = nibabel.load(path).affine
    media = read(path, Options(modality="CT", window=(350, 701)), preset="hulumed")
    np.testing.assert_allclose(media.affine, expected[:, [2, 0, 1, 3]], atol=1e-4)


def test_sform_and_qform_that_disagree(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), np.diag([-1.0, 1, 1, 1]))
  raw = bytearray(path.read_bytes())
  header = np.frombuffer(raw, nibabel.nifti1.header_dtype, 1)[0]
  header["srow_x"] = (1, 0, 0, 0)
  path.write_bytes(raw)
  media = read(path, CT)
  np.testing.assert_array_equal(media.frames[..., 0], axial())
  assert media.provenance["placed_by"] == "sform"
  assert has(media, "sform and qform disagree by up to 22.0 mm: the sform was used")
  assert has(media, "they say RAS and LAS")
  # A float32's rounding is no disagreement.
  header["srow_x"] = (-1.0001, 0, 0, 0)
  path.write_bytes(raw)
  assert not has(read(path, CT), "disagree")


@pytest.mark.parametrize("step", (0.0, -2.0, np.nan, np.inf))
def test_a_bad_pixdim(tmp_path, step):
  pixdim = np.array([1, 2, step, 2, 0, 0, 0, 0], np.float32)
  affine = np.diag([2.0, 2, 2, 1])
  with pytest.raises(BadRecord, match="a pixdim of .*; expected more than 0") as caught:
    read(save(tmp_path / "q.nii", phantom(), affine, sform=0, pixdim=pixdim), CT)
  assert caught.value.kind == "geometry"
  media = read(save(tmp_path / "s.nii", phantom(), affine, pixdim=pixdim), CT)
  assert has(media, "the qform is not valid") and media.spacing_mm == (2, 2, 2)
  media = read(save(tmp_path / "n.nii", phantom(), affine, 0, 0, pixdim=pixdim), CT)
  if step == -2:
    assert media.spacing_mm == (2, 2, 2) and has(media, "its sign names no side")
  else:
    assert media.spacing_mm is None and has(media, "the spacing is not known")
  assert media.axis_codes is None and media.plane is None


@pytest.mark.parametrize(
  ("code", "scale", "note"),
  (
    (0, 1, "names no unit of length: millimetres were assumed"),
    (1, 1000, "counts in metres"),
    (2, 1, None),
    (3, 0.001, "counts in micrometres"),
    (6, 1, "an unknown unit of length (6)"),
    (2 | 8, 1, None),  # seconds along time
  ),
)
@pytest.mark.parametrize("forms", ((1, 0), (0, 1), (1, 1), (0, 0)))
def test_spacing_is_in_millimetres_whatever_the_unit(tmp_path, code, scale, note, forms):
  affine = np.diag([2 / scale, 2 / scale, 3 / scale, 1])
  affine[:3, 3] = 5 / scale
  path = save(tmp_path / "a.nii", phantom(), affine, *forms, xyzt_units=code)
  media = read(path, CT)
  assert media.spacing_mm == pytest.approx((3, 2, 2))
  if any(forms):
    expected = np.array([2 * 11, 2 * 9, 3 * 7]) + 5
    np.testing.assert_allclose((media.affine @ [0, 0, 0, 1])[:3], expected, rtol=1e-5)
  assert any("of length" in n or "counts in" in n for n in media.notes) == (note is not None)
  assert note is None or has(media, note)


def test_an_affine_and_pixdim_that_disagree(tmp_path):
  pixdim = np.array([1, 2, 2, 9, 0, 0, 0, 0], np.float32)
  path = save(tmp_path / "a.nii", phantom(), np.diag([2.0, 2, 2, 1]), qform=0, pixdim=pixdim)
  media = read(path, CT)
  assert media.spacing_mm == (2, 2, 2)
  assert has(media, "step of 2 mm and pixdim's 9 disagree: the affine was used")


@pytest.mark.parametrize("rows", ((0, 0, 0, 0), (np.nan, 0, 0, 0), (np.inf, 0, 0, 0)))
def test_an_sform_that_places_nothing(tmp_path, rows):
  path = save(tmp_path / "a.nii", phantom(), srow_x=rows)
  with pytest.raises(BadRecord, match="expected a 3D volume's"):
    read(path, CT)


def test_a_single_slice_in_each_direction(tmp_path):
  for axis, plane, codes in ((0, "sagittal", "LIP"), (1, "coronal", "PIL"), (2, "axial", "IPL")):
    array = phantom().take([5], axis)
    affine = np.eye(4)
    media = read(save(tmp_path / f"{axis}.nii", array, affine), CT)
    assert media.plane == plane and media.axis_codes == codes and len(media.frames) == 1
  flat = phantom()[:, :, 5]
  srow = {"srow_z": (0, 0, 0, 4), "pixdim": np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float32)}
  media = read(save(tmp_path / "flat.nii", flat, **srow), CT)
  np.testing.assert_array_equal(media.frames[..., 0], axial()[[2]])
  assert media.plane == "axial"


# What it says about values.


@pytest.mark.parametrize("slope", (0.0, np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("preset", ("radiology", "hulumed"))
def test_a_slope_that_means_none(tmp_path, slope, preset):
  plain = read(save(tmp_path / "a.nii", phantom()), Options(modality="CT"), preset=preset)
  path = save(tmp_path / "b.nii", phantom(), scl_slope=slope, scl_inter=-77)
  np.testing.assert_array_equal(
    read(path, Options(modality="CT"), preset=preset).frames, plain.frames
  )


@pytest.mark.parametrize(("slope", "offset"), ((1, -1024), (-2, 7), (0.37, -11.3), (30000, 0)))
@pytest.mark.parametrize("dtype", ("<i2", ">i2", "<u2", "<i4", "<f4", ">f8", "<u1", "<i8"))
def test_values_are_those_of_nibabel_bit_by_bit(tmp_path, slope, offset, dtype):
  array = np.random.default_rng(0).integers(0, 120, (6, 5, 4)).astype(dtype)
  raw = untouched(array, slope, offset)
  path = tmp_path / "a.nii"
  path.write_bytes(raw)
  expected = nibabel.Nifti1Image.from_bytes(raw).get_fdata()
  np.testing.assert_allclose(expected, array.astype(np.float64) * slope + offset, rtol=1e-6)
  taken = read(path, Options(), preset="hulumed")
  for k, frame in enumerate(taken.frames):
    x = expected[:, :, k]
    stretched = ((x - x.min()) / (x.max() - x.min()) * 255).astype(np.uint8)
    np.testing.assert_array_equal(frame[..., 0], stretched)


def untouched(array, slope, offset):
  """A file of stored numbers in their own byte order, with a slope that no writer has changed."""
  head = nibabel.Nifti1Header(endianness=">" if array.dtype.byteorder == ">" else "<")
  head.set_data_shape(array.shape)
  head.set_data_dtype(array.dtype)
  head.set_sform(np.eye(4), 1)
  head["vox_offset"], head["magic"] = 352, b"n+1"
  head["scl_slope"], head["scl_inter"] = slope, offset
  return head.binaryblock + b"\0" * 4 + array.tobytes(order="F")


@pytest.mark.parametrize("code", (1, 32, 128, 1536, 1792, 2304, 0, 77))
def test_types_that_are_no_single_number(tmp_path, code):
  path = save(tmp_path / "a.nii", phantom(), datatype=code)
  with pytest.raises(BadRecord, match="voxels of .*; expected one real number each") as caught:
    read(path, CT)
  assert caught.value.kind == "format"


def test_rgb_volumes_say_that_they_are_colours(tmp_path):
  colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
  with pytest.raises(BadRecord, match="voxels of RGB colours"):
    read(save(tmp_path / "a.nii", colours), CT)


@pytest.mark.parametrize(("code", "word"), ((1002, "labels"), (3, "statistical map"), (0, None)))
def test_what_is_no_picture_is_said(tmp_path, code, word):
  media = read(save(tmp_path / "a.nii", phantom(), intent_code=code), CT)
  assert has(media, "the file declares") == (word is not None)
  assert word is None or has(media, word)


def test_where_the_voxels_begin(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), vox_offset=0)
  np.testing.assert_array_equal(read(path, CT).frames[..., 0], axial())
  with pytest.raises(BadRecord, match="begin at byte 100, inside of the header"):
    read(save(tmp_path / "b.nii", phantom(), vox_offset=100), CT)


def test_axes_beyond_three(tmp_path):
  assert read(save(tmp_path / "a.nii", phantom()[..., None]), CT).frames.shape == (8, 10, 12, 1)
  last = np.stack([phantom() * 0, phantom() * 0, phantom()], axis=-1)
  for name in ("b.nii", "b.nii.gz"):
    media = read(
      save(tmp_path / name, last), Options(modality="CT", window=(350, 701), time_index=2)
    )
    np.testing.assert_array_equal(media.frames[..., 0], axial())
    assert media.provenance["volumes_in_file"] == 3
  with pytest.raises(BadRecord, match="an image of 5 axes; expected 3, or 4 with time"):
    read(save(tmp_path / "c.nii", np.zeros((2, 2, 2, 1, 3), np.int16)), CT)
  with pytest.raises(BadRecord, match="an image of 1 axes"):
    read(save(tmp_path / "d.nii", np.zeros(4, np.int16)), CT)


def test_options_of_other_formats_are_errors(tmp_path):
  path = save(tmp_path / "a.nii", phantom())
  for options in (Options(series=1), Options(phase="a"), Options(spacing_mm=(1, 1, 1))):
    with pytest.raises(BadRecord, match="do not apply to a NIfTI file"):
      read(path, options)


def test_header_texts_stay_inside(tmp_path):
  canary = {"descrip": b"CANARY", "db_name": b"CANARY", "intent_name": b"CANARY"}
  path = save(tmp_path / "a.nii", phantom(), **canary, aux_file=b"CANARY")
  assert "CANARY" not in repr(read(path, CT))


def test_nifti_2(tmp_path):
  image = nibabel.Nifti2Image(phantom(), np.diag([2.0, 2, 2, 1]))
  image.to_filename(tmp_path / "a.nii.gz")
  media = read(tmp_path / "a.nii.gz", CT)
  np.testing.assert_array_equal(media.frames[..., 0], axial())
  assert media.spacing_mm == (2, 2, 2)
