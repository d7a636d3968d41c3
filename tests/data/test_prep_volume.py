"""A small volume through `benchmarks/prep_volume.py`: the same pixels in a twelfth of the bytes."""

import numpy as np
from PIL import Image
import pytest

from benchmarks import prep_volume
from hulu_jax.data import resize


@pytest.mark.parametrize(
  ("shape", "name"),
  (((96, 80, 12), "a.nii"), ((512, 400, 3), "a.nii.gz"), ((130, 130, 40), "a.nii")),
)
def test_pixels_are_those_of_the_reference_in_a_twelfth_of_the_bytes(tmp_path, shape, name):
  prep_volume.make(tmp_path / name, shape)
  ours, reference = prep_volume.check(tmp_path / name)
  assert ours * 12 == reference


@pytest.mark.parametrize("size", ((28, 56), (140, 28), (84, 70), (90, 33)))
def test_frames_stored_by_column_are_resized_to_the_same_bits(size):
  stored = np.random.default_rng(0).integers(0, 256, (3, 70, 90, 1), np.uint8)
  by_column = stored.swapaxes(1, 2)
  found = resize.resize(by_column, size)
  for frame, one in zip(by_column, found, strict=True):
    picture = Image.fromarray(np.ascontiguousarray(frame[..., 0]))
    expected = np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(one[..., 0], expected)
