"""New grids keep places and values: SimpleITK and numpy.interp say where they must lie."""

import dataclasses

import numpy as np
import pytest
import SimpleITK

from hulu_jax.media import DEFAULT
from hulu_jax.media import BadRecord
from hulu_jax.media import geometry
from hulu_jax.media import resample


def smooth(shape, seed=0):
  """Random values at every voxel, in int16."""
  return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def to_itk(values, affine):
  """A [slice, row, column] volume whose first index is ITK's last."""
  image = SimpleITK.GetImageFromArray(values)
  steps = np.linalg.norm(affine[:3, :3], axis=0)
  image.SetSpacing(steps[::-1].tolist())
  image.SetOrigin(affine[:3, 3].tolist())
  image.SetDirection((affine[:3, :3] / steps)[:, ::-1].ravel().tolist())
  return image


def oblique(steps):
  angle = np.radians(20)
  turn = np.array(
    [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
  )
  affine = np.eye(4)
  affine[:3, :3] = turn * steps
  affine[:3, 3] = [3, -40, 11]
  return affine


@pytest.mark.parametrize("size", (0.7, 1.0, 1.3))
def test_finer_voxels_are_those_of_simpleitk(size):
  """Refining only: where voxels grow, ITK samples points and we average."""
  steps = (3.0, 1.4, 1.5)
  values, affine = smooth((7, 9, 8)), oblique(steps)
  grid = resample.isotropic_grid(values.shape, steps, size)
  found, padding = resample.isotropic(values, None, grid, DEFAULT)
  placed = resample.placed(affine, grid)
  assert padding is None and found.dtype == np.float32 and found.shape == grid.shape
  np.testing.assert_allclose(geometry.steps_mm(placed), [size] * 3)
  like = to_itk(found, placed)
  # The nearest voxel stands in outside of the outermost centres, as in ours.
  expected = SimpleITK.Resample(
    to_itk(values.astype(np.float32), affine),
    like,
    SimpleITK.Transform(),
    SimpleITK.sitkLinear,
    0.0,
    SimpleITK.sitkFloat32,
    True,
  )
  inside = tuple(slice(2, -2) for _ in range(3))
  np.testing.assert_allclose(
    found[inside], SimpleITK.GetArrayFromImage(expected)[inside], atol=0.02
  )


@pytest.mark.parametrize(
  ("shape", "steps", "size", "expected"),
  (
    ((10, 20, 30), (5, 1, 1), 1, (50, 20, 30)),
    ((10, 20, 30), (5, 1, 1), 2, (25, 10, 15)),
    ((1, 20, 30), (5, 1, 1), 2, (1, 10, 15)),
    ((3, 3, 3), (1, 1, 1), 100, (1, 1, 1)),
  ),
)
def test_the_field_of_view_stays_centred(shape, steps, size, expected):
  grid = resample.isotropic_grid(shape, steps, size)
  assert grid.shape == expected
  affine = np.diag([*steps, 1.0])
  placed = resample.placed(affine, grid)
  centre = affine @ [*((n - 1) / 2 for n in shape), 1]
  np.testing.assert_allclose(placed @ [*((n - 1) / 2 for n in expected), 1], centre)


def test_coarser_voxels_average_so_that_nothing_thin_is_missed():
  values = np.zeros((1, 1, 40), np.float32)
  values[..., 17] = 800
  for size in (4.0, 5.0, 8.0):
    grid = resample.isotropic_grid(values.shape, (1, 1, 1), size)
    found, _ = resample.isotropic(values, None, grid, DEFAULT)
    assert found.max() > 800 / size / 2
    # The triangle conserves what it averages, away from the edges.
    assert found.sum() * size == pytest.approx(800, rel=0.1)
  ramp = np.arange(40, dtype=np.float32).reshape(1, 1, 40)
  grid = resample.isotropic_grid(ramp.shape, (1, 1, 1), 4.0)
  found, _ = resample.isotropic(ramp, None, grid, DEFAULT)
  np.testing.assert_allclose(found[0, 0, 1:-1], 1.5 + 4 * np.arange(1, 9), rtol=1e-5)


def test_padding_and_nan_do_not_bleed():
  values = np.full((1, 8, 8), 50, np.int16)
  values[..., :3] = -2000
  padding = values == -2000
  grid = resample.isotropic_grid(values.shape, (1, 1, 1), 0.5)
  found, missing = resample.isotropic(values, padding, grid, DEFAULT)
  assert missing is not None and set(np.unique(found[~missing])) == {50}
  np.testing.assert_array_equal(missing[0, 0], np.arange(16) < 6)
  holes = values.astype(np.float32)
  holes[padding] = np.nan
  found, missing = resample.isotropic(holes, None, grid, DEFAULT)
  assert missing is None
  np.testing.assert_array_equal(np.isnan(found[0, 0]), np.arange(16) < 6)
  assert set(np.unique(found[np.isfinite(found)])) == {50}


def test_square_pixels_lie_on_a_straight_line_between_the_old_ones():
  frames = np.random.default_rng(1).integers(0, 256, (3, 6, 9, 1), np.uint8)
  found, grid = resample.square(frames, (7.0, 3.0, 1.0), DEFAULT)
  assert found.shape == (3, 18, 9, 1) and grid is not None
  old = np.arange(6) * 3.0  # millimetres of row centres; the upper edge lies at -1.5
  new = -1.5 + 0.5 + np.arange(18)
  for t, c in ((0, 0), (1, 4), (2, 8)):
    np.testing.assert_allclose(found[t, :, c, 0], np.interp(new, old, frames[t, :, c, 0]), atol=1)
  placed = resample.placed(np.diag([7.0, 3.0, 1.0, 1.0]), grid)
  np.testing.assert_allclose(placed @ [2, 5, 4, 1], [14, new[5], 4, 1])


def test_columns_may_be_the_coarse_ones_and_colours_stay():
  frames = np.random.default_rng(1).integers(0, 256, (2, 4, 6, 3), np.uint8)
  found, grid = resample.square(frames, (1.0, 0.5, 1.2), DEFAULT)
  assert found.shape == (2, 4, 14, 3) and grid is not None
  placed = resample.placed(np.diag([1.0, 0.5, 1.2, 1.0]), grid)
  # 14.4 columns become 14: the field of view keeps its edges, so pixels are 0.514 mm wide.
  np.testing.assert_allclose(geometry.steps_mm(placed), (1, 0.5, 1.2 * 6 / 14))


def test_nearly_square_pixels_are_left_alone():
  frames = np.zeros((1, 4, 4, 1), np.uint8)
  assert resample.square(frames, (1.0, 0.7, 0.7001), DEFAULT) == (frames, None)


@pytest.mark.parametrize("size", (0.0, -1.0, float("nan"), float("inf")))
def test_sizes_that_make_no_grid(size):
  with pytest.raises(BadRecord, match="resample_mm.*expected more than 0"):
    resample.isotropic_grid((4, 4, 4), (1, 1, 1), size)


def test_new_grids_are_limited_before_they_are_made():
  values = np.zeros((4, 4, 4), np.int16)
  tight = dataclasses.replace(DEFAULT, max_voxels=1000)
  with pytest.raises(BadRecord, match="voxels; the limit is 1,000"):
    grid = resample.isotropic_grid(values.shape, (1, 1, 1), 0.1)
    resample.isotropic(values, None, grid, tight)
  with pytest.raises(BadRecord, match="the limit is") as caught:
    resample.isotropic(
      values, None, resample.isotropic_grid(values.shape, (1, 1, 1), 1e-300), DEFAULT
    )
  assert caught.value.kind == "limit"
  with pytest.raises(BadRecord, match="the limit is"):
    resample.square(np.zeros((1, 4, 4, 1), np.uint8), (1, 1, 1e-300), DEFAULT)


def test_a_voxel_larger_than_the_volume_is_its_mean():
  """Also where a damaged header makes it larger by orders of magnitude."""
  values = smooth((5, 6, 7)).astype(np.float32)
  for size in (1e3, 1e15):
    grid = resample.isotropic_grid(values.shape, (1, 1, 1), size)
    found, _ = resample.isotropic(values, None, grid, DEFAULT)
    np.testing.assert_allclose(found, [[[values.mean()]]], rtol=0.02)
