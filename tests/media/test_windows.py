"""The window function at its edges (DICOM PS3.3 C.11.2.1.2.1) and the names users may give."""

import numpy as np
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import sampling
from hulu_jax.media import windows


def test_linear_at_its_edges():
  hu = np.array([-1000, -160, -159, 39, 40, 238, 239, 3000])
  got = windows.linear(hu, 40, 400)
  # y = ((x - 39.5) / 399 + 0.5) * 255
  assert got.tolist() == [0, 0, 1, 127, 128, 254, 255, 255]


def test_lookup():
  assert windows.lookup("lung") == (-600, 1500)
  assert windows.lookup("40/400") == windows.lookup((40, 400)) == (40, 400)
  for wrong in ("lungs", "40", "40/0", "40/400/1", (40, 0.5), "nan/3", "1/inf"):
    with pytest.raises(BadRecord, match="expected"):
      windows.lookup(wrong)


def test_min_max_is_per_frame_and_truncates():
  values = np.array([[[0, 1, 3]], [[5, 5, 5]], [[-10, 0, 10]]])
  assert windows.min_max(values)[:, 0].tolist() == [[0, 85, 255], [0, 0, 0], [0, 127, 255]]


def test_sampling():
  assert sampling.by_count(5, 9).tolist() == [0, 1, 2, 3, 4]
  assert sampling.by_count(10, 3).tolist() == [0, 4, 9]
  thirds = np.arange(10) / 3
  assert sampling.by_fps(thirds, 1).tolist() == [0, 3, 6, 9]
  assert sampling.by_fps(np.array([0.0, 0.1, 5.0]), 1).tolist() == [0, 1, 2]
