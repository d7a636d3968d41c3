"""Volumes become frames: slices by count or by millimetres, true aspect, both presets, warnings."""

import dataclasses

import nibabel
import numpy as np
import pytest

from hulu_jax.media import DEFAULT
from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import faces
from hulu_jax.media import read
from hulu_jax.media import volume
from hulu_jax.media import windows
from hulu_jax.media.intensity import Look
from tests.media.made import phantom

WINDOW = Options(modality="CT", window=(350, 701))


def save(path, array, affine):
  image = nibabel.Nifti1Image(array, affine)
  image.header.set_xyzt_units("mm")
  image.to_filename(path)
  return path


def with_options(**changes):
  return dataclasses.replace(WINDOW, **changes)


def level(hounsfield):
  """Grey, not rounded: centre 350, width 701 (PS3.3 C.11.2.1.2.1)."""
  return np.clip((hounsfield + 0.5) / 700, 0, 1) * 255


# Planes and pixels.


def test_reformats_keep_the_true_aspect(tmp_path):
  """Slices 4 mm apart become rows 1 mm apart, on straight lines between the slices' centres."""
  values = np.random.default_rng(0).integers(0, 700, (12, 10, 8)).astype(np.int16)
  path = save(tmp_path / "a.nii", values, np.diag([1.0, 1.0, 4.0, 1.0]))
  for plane, axis, spare in (("coronal", 1, 0), ("sagittal", 0, 1)):
    media = read(path, with_options(plane=plane))
    assert media.frames.shape[1:3] == (32, values.shape[spare])
    assert media.spacing_mm == (1, 1, 1) and media.plane == plane
    assert any("interpolated to squares of 1 mm" in n for n in media.notes)
    # Row centres, from the head down, in millimetres of the affine (slice k lies at 4 k).
    heights = 28 + 1.5 - np.arange(32)
    np.testing.assert_allclose((media.affine @ [0, 7, 0, 1])[2], heights[7])
    grey = np.floor(level(values.astype(float)) + 0.5)
    for frame, column in ((0, 0), (3, 4)):
      line = np.flip(grey, (0, 1)).take(frame, axis).take(column, 0)
      expected = np.interp(heights, 4.0 * np.arange(8), line)
      np.testing.assert_allclose(media.frames[frame, :, column, 0], expected, atol=1)
  axial = read(path, WINDOW)
  np.testing.assert_array_equal(axial.frames[0, 0, 0, 0], grey[-1, -1, -1])
  assert axial.frames.shape == (8, 10, 12, 1)
  assert not any("interpolated" in n for n in axial.notes)


def test_the_acquisition_plane_gets_square_pixels_too(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), np.diag([1.5, 3.0, 6.0, 1.0]))
  media = read(path, WINDOW)
  assert media.frames.shape == (8, 20, 12, 1) and media.spacing_mm == (6, 1.5, 1.5)
  np.testing.assert_allclose(np.linalg.norm(media.affine[:3, :3], axis=0), (6, 1.5, 1.5))


def test_thick_slices_name_the_plane(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), np.diag([5.0, 1.0, 1.0, 1.0]))
  media = read(path, WINDOW)
  assert media.axis_codes == "LIP" and media.plane == "sagittal"
  assert any("sagittal plane, across its only or thickest slices" in n for n in media.notes)
  assert not any("thickest" in n for n in read(path, with_options(plane="axial")).notes)
  assert media.provenance["plane"] == "by spacing"


def test_unknown_planes_and_options_of_other_media(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), np.eye(4))
  for options, message in (
    (with_options(plane="transverse"), "'transverse'; expected one of axial, coronal, sagittal"),
    (with_options(crop=(0, 0, 1, 1)), "this is a volume"),
    (with_options(fps=1.0), "this is a volume"),
    (with_options(region=(0, 0, 1, 1)), "this is a volume"),
    (with_options(repeat_slices=True), "repeat_slices is for the preset hulumed"),
    (with_options(frames=3, slice_mm=2.0), "expected one of them"),
  ):
    with pytest.raises(BadRecord, match=message) as caught:
      read(path, options)
    assert caught.value.kind == "options"


# Which slices.


@pytest.mark.parametrize(
  ("step", "wanted", "taken"),
  (
    (2.0, 4.0, (0, 2, 4, 6)),
    (
      2.0,
      5.0,
      (0, 3, 5),
    ),  # 0, 5 and 10 mm: slices at 0, 6 (nearer than 4 by the rule of halves), 10
    (0.1, 0.3, (0, 3, 6)),  # 3 * 0.1 is not quite 0.3
    (2.0, 100.0, (0,)),
    (2.0, 2.0, tuple(range(8))),
  ),
)
def test_slices_by_millimetres(tmp_path, step, wanted, taken):
  path = save(tmp_path / "a.nii", phantom(), np.diag([step, step, step, 1.0]))
  media = read(path, with_options(slice_mm=wanted))
  assert media.slices == taken and len(media.frames) == len(taken)
  assert media.provenance["sampling"] == "by millimetres"
  assert media.provenance["slices_in_volume"] == 8
  whole = read(path, WINDOW)
  np.testing.assert_array_equal(media.frames, whole.frames[list(taken)])
  if len(taken) > 1:
    expected = step * (taken[-1] - taken[0]) / (len(taken) - 1)
    assert media.spacing_mm[0] == pytest.approx(expected)
  np.testing.assert_allclose(media.affine, whole.affine)  # slices are counted before sampling


def test_slices_finer_than_the_volume_are_all_of_it(tmp_path):
  path = save(tmp_path / "a.nii", phantom(), np.diag([1.0, 1.0, 5.0, 1.0]))
  media = read(path, with_options(slice_mm=2.0))
  assert media.slices == tuple(range(8))
  assert any("slices lie 5 mm apart: all were taken" in n for n in media.notes)
  for bad in (0.0, -1.0, float("nan")):
    with pytest.raises(BadRecord, match="slice_mm=.*; expected more than 0"):
      read(path, with_options(slice_mm=bad))


def test_millimetres_need_a_spacing(tmp_path):
  np.save(tmp_path / "a.npy", phantom())
  for options in (with_options(slice_mm=2.0), with_options(resample_mm=2.0)):
    with pytest.raises(BadRecord, match="needs a known spacing"):
      read(tmp_path / "a.npy", options)
  media = read(tmp_path / "a.npy", with_options(slice_mm=4.0, spacing_mm=(2.0, 1.0, 1.0)))
  assert media.slices == (0, 2, 4, 6, 8, 10) and media.axis_codes is None
  media = read(tmp_path / "a.npy", with_options(resample_mm=0.5, spacing_mm=(2.0, 1.0, 1.0)))
  assert media.frames.shape == (48, 20, 16, 1) and media.spacing_mm == (0.5, 0.5, 0.5)
  assert media.affine is None


def test_resampling_comes_before_the_window(tmp_path):
  """A third of the way from -1000 to 1000 HU is -333 HU, not a third of the way to white."""
  values = np.full((4, 4, 4), -1000, np.int16)
  values[2:] = 1000
  path = save(tmp_path / "a.nii", values, np.diag([3.0, 3.0, 3.0, 1.0]))
  media = read(path, Options(modality="CT", window=(0, 1001), resample_mm=1.0))
  assert media.frames.shape == (12, 12, 12, 1) and media.spacing_mm == (1, 1, 1)
  row = np.interp(10 - np.arange(12), [0, 3, 6, 9], [-1000, -1000, 1000, 1000])
  expected = np.clip((row + 0.5) / 1000 + 0.5, 0, 1) * 255
  np.testing.assert_allclose(media.frames[5, 5, :, 0], expected, atol=0.51)
  assert any("resampled to voxels of 1 mm" in n for n in media.notes)
  assert media.provenance["interpolation"] == "linear"
  corner = (media.affine @ [0, 0, 0, 1])[:3]
  np.testing.assert_allclose(corner, [10, 10, 10])
  tight = dataclasses.replace(DEFAULT, max_voxels=1000)
  with pytest.raises(BadRecord, match="voxels; the limit is 1,000"):
    read(path, Options(modality="CT", resample_mm=1.0), limits=tight)


# Values that are none.


def rendered(values, options, preset="radiology", **fields):
  voxels = volume.Voxels(values, np.eye(4), look=Look("CT", "HU"), **fields)
  return volume.render(voxels, preset, options, DEFAULT)


def test_padding_is_turned_and_resampled_with_the_values():
  """Padding would be white, and everything else is brighter than black."""
  values = phantom() + 100
  padding = np.zeros(values.shape, bool)
  padding[:3, :4, :2] = True
  values[padding] = 5000
  turned = np.flip(padding)  # all three indices grow to the left, posterior and inferior
  for plane, axes in (("axial", (2, 1, 0)), ("coronal", (1, 2, 0)), ("sagittal", (0, 2, 1))):
    options = Options(window=(350, 701), plane=plane)
    media = rendered(values, options, padding=padding)
    np.testing.assert_array_equal(media.frames[..., 0] == 0, turned.transpose(axes))
    fine = rendered(values, dataclasses.replace(options, resample_mm=0.5), padding=padding)
    twice = turned.transpose(axes).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    # Corners of the padded block weigh less than half: voxels there may be either.
    differ = (fine.frames[..., 0] == 0) != twice
    assert differ.sum() <= 20 and fine.frames[..., 0][~twice].max() == 255
    assert fine.frames[fine.frames > 0].min() == 37  # 100 HU: nothing dark or bright bled in


def test_nan_outside_the_field_of_view_poisons_nothing(tmp_path):
  values = np.random.default_rng(0).normal(500, 100, (16, 16, 8)).astype(np.float32)
  clean = read(save(tmp_path / "a.nii", values, np.eye(4)), Options(modality="MR"))
  holes = np.pad(values, 4, constant_values=np.nan)
  holes[0, 0, 0], holes[1, 0, 0] = np.inf, -np.inf
  media = read(save(tmp_path / "b.nii", holes, np.eye(4)), Options(modality="MR"))
  assert media.value_range == pytest.approx(clean.value_range)
  np.testing.assert_allclose(
    media.frames[4:-4, 4:-4, 4:-4].astype(int), clean.frames.astype(int), atol=1
  )
  assert not media.frames[0, 5:].any()
  fine = read(tmp_path / "b.nii", Options(modality="MR", resample_mm=2.0))
  assert np.isfinite(fine.value_range).all() and fine.frames.max() > 200
  released = read(tmp_path / "b.nii", Options(modality="MR"), preset="hulumed")
  assert any("16 slices hold numbers that are not finite" in n for n in released.notes)
  assert not released.frames.any()


# The preset hulumed.


def by_hand(path, axis, slices, clip=None):
  """get_fdata and the released code's arithmetic (spec 1.9), written slice by slice."""
  data = nibabel.load(path).get_fdata()
  frames = []
  for k in slices:
    plane = data[(slice(None),) * axis + (k,)]
    if clip is not None:
      plane = np.clip(plane, *clip)
    low, high = plane.min(), plane.max()
    flat = np.zeros(plane.shape, np.uint8)
    frames.append(((plane - low) / (high - low) * 255).astype(np.uint8) if high > low else flat)
  return np.stack(frames)


def random_values(dtype, seed=0):
  rng = np.random.default_rng(seed)
  info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
  shape = (21, 18, 16)
  if info is None:
    return (rng.normal(size=shape) * 1000).astype(dtype)
  return rng.integers(max(info.min, -(2**20)), min(info.max, 2**20), shape).astype(dtype)


@pytest.mark.parametrize(
  "dtype", ("int16", "uint8", "int8", "uint16", "int32", "float32", "float64")
)
@pytest.mark.parametrize(("plane", "axis"), (("axial", 2), ("coronal", 1), ("sagittal", 0)))
def test_hulumed_is_bit_faithful(tmp_path, dtype, plane, axis):
  values = random_values(dtype)
  values[3:9, 4] = values[0, 0, 0]
  path = save(tmp_path / "a.nii.gz", values, np.diag([-1.0, 2.0, 3.0, 1.0]))
  for asked, clip in ((None, None), ((40.0, 81.0), (-0.5, 80.5)), ((0.3, 2.5), (-0.95, 1.55))):
    for count in (None, 5, 1000):
      options = Options(modality="CT", plane=plane, window=asked, frames=count)
      media = read(path, options, preset="hulumed")
      size = values.shape[axis]
      slices = range(size) if count != 5 else np.linspace(0, size - 1, 5, dtype=int)
      np.testing.assert_array_equal(media.frames[..., 0], by_hand(path, axis, slices, clip))
      assert media.slices == tuple(slices)
  assert media.plane is None and media.spacing_mm[0] == (1, 2, 3)[axis]
  assert media.axis_codes == {"axial": "SLA", "coronal": "ALS", "sagittal": "LAS"}[plane]


def test_hulumed_in_pieces_and_by_table_is_the_same():
  """Frames too large for one piece, few values in many pixels, and both memory orders."""
  rng = np.random.default_rng(2)
  wide = rng.integers(-1000, 3000, (2, 300, 200)).astype(np.int16)
  for values in (wide, wide.astype(np.float32) / 7, wide.astype(np.int32) * 4001):
    for turned in (values, np.asfortranarray(values), values.transpose(0, 2, 1)):
      for clip in (None, (-160.0, 240.0)):
        x = np.clip(turned.astype(np.float64), *(clip or (-np.inf, np.inf)))
        low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
        expected = ((x - low) / (high - low) * 255).astype(np.uint8)
        np.testing.assert_array_equal(windows.min_max(turned, clip), expected)


def test_repeat_slices_is_the_local_path(tmp_path):
  """180 slices by linspace whatever the depth, and constant slices cast to 8 bits (spec 1.9)."""
  values = random_values("int16")
  values[..., 3], values[..., 4], values[..., 5] = 77, 300, -1000
  path = save(tmp_path / "a.nii", values, np.diag([1.0, 1.0, 2.0, 1.0]))
  media = read(path, Options(repeat_slices=True), preset="hulumed")
  slices = np.linspace(0, 15, 180, dtype=int)
  assert media.slices == tuple(slices) and media.frames.shape == (180, 21, 18, 1)
  expected = by_hand(path, 2, slices)
  for constant, shown in ((3, 77), (4, 300 - 256), (5, 1024 - 1000)):
    expected[slices == constant] = shown
  np.testing.assert_array_equal(media.frames[..., 0], expected)
  assert media.provenance["sampling"] == "repeated"
  assert read(path, Options(repeat_slices=True, frames=7), preset="hulumed").slices == tuple(
    np.linspace(0, 15, 7, dtype=int)
  )


@pytest.mark.parametrize(
  "options",
  (
    Options(modality="MR", quantity="ADC"),
    Options(modality="CT", function="sigmoid"),
    Options(value_range=(0, 1)),
    Options(resample_mm=1.0),
    Options(slice_mm=1.0),
    Options(repeat_slices=True, modality="CT", window="lung"),
    Options(modality="CT", window="lung+bone+brain"),
    Options(window="lung"),
    Options(frames=0),
    Options(frames=0, repeat_slices=True),
  ),
)
def test_options_without_a_meaning_for_hulumed(tmp_path, options):
  path = save(tmp_path / "a.nii", phantom(), np.eye(4))
  with pytest.raises(BadRecord) as caught:
    read(path, options, preset="hulumed")
  assert caught.value.kind == "options"


# Faces.


@pytest.mark.parametrize(
  ("modality", "body_part", "extents", "warned"),
  (
    ("CT", "HEAD", None, True),
    ("MR", "BRAIN", (500, 500, 500), True),
    ("CT", "head^routine", None, True),
    ("CT", "HEADNECK", None, True),
    ("MR", "KNEE", (240, 240, 180), False),
    ("MR", None, (240, 240, 180), True),
    (None, None, (256, 256, 170), True),
    ("MR", "", (182, 218, 182), True),
    ("CT", None, (380, 380, 300), False),
    ("MR", None, (160, 160, 82), False),
    ("MR", None, None, False),
    ("PT", "HEAD", (240, 240, 180), False),
    ("US", None, (240, 240, 180), False),
  ),
)
def test_head_scans(modality, body_part, extents, warned):
  assert faces.may_show_face(modality, body_part, extents) == warned


@pytest.mark.parametrize("preset", ("radiology", "hulumed"))
def test_a_head_scan_is_warned_of(tmp_path, preset):
  head = save(tmp_path / "head.nii", phantom(), np.diag([14.0, 21.0, 22.0, 1.0]))
  assert faces.WARNING in read(head, Options(modality="MR"), preset=preset).notes
  small = save(tmp_path / "small.nii", phantom(), np.eye(4))
  assert faces.WARNING not in read(small, Options(modality="MR"), preset=preset).notes


def test_real_files_and_faces(real):
  """A de-faced head is still a head; a trunk and a spinal cord are none."""
  notes = read(real("vol_studyforrest_dicom/public/dicoms")).notes
  assert faces.WARNING in notes
  for name in (
    "vol_totalsegmentator/public/example_ct.nii.gz",
    "vol_spinalcord_mr/public/t2s_uncropped.nii.gz",
  ):
    assert faces.WARNING not in read(real(name), Options(modality="MR")).notes
