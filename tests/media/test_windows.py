"""The window functions at their edges (DICOM PS3.3 C.11.2.1), and the names users may give."""

import math

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import sampling
from hulu_jax.media import windows

EDGES = (-2000, -161, -160, -159, -1, 0, 39, 40, 41, 238, 239, 240, 241, 3000)


def by_the_standard(x: float, c: float, w: float, function: str) -> float:
  """The pseudo-code of PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, from 0 to 255."""
  if function == "sigmoid":
    return 255 / (1 + math.exp(min(-4 * (x - c) / w, 700)))  # exp(710) is no float any more
  if function == "linear_exact":
    if x <= c - w / 2:
      return 0
    return 255 if x > c + w / 2 else ((x - c) / w + 0.5) * 255
  if x <= c - 0.5 - (w - 1) / 2:
    return 0
  return 255 if x > c - 0.5 + (w - 1) / 2 else ((x - (c - 0.5)) / (w - 1) + 0.5) * 255


@pytest.mark.parametrize("function", ["linear", "linear_exact", "sigmoid"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (0, 1), (-600.5, 1500.25), (40, 2)])
def test_functions_follow_the_standard(function, centre, width):
  x = np.array([*EDGES, centre - 0.5, centre, centre + width / 2, centre - width / 2])
  expected = [math.floor(by_the_standard(v, centre, width, function) + 0.5) for v in x]
  assert windows.function(function)(x, centre, width).tolist() == expected
  assert windows.function(function)(x.astype(np.float32), centre, width).dtype == np.uint8


@pytest.mark.parametrize("function", ["linear", "linear_exact", "sigmoid"])
def test_functions_agree_with_pydicom(function):
  dataset = Dataset()
  dataset.PhotometricInterpretation, dataset.BitsStored = "MONOCHROME2", 8
  dataset.PixelRepresentation, dataset.VOILUTFunction = 0, function.upper()
  dataset.WindowCenter, dataset.WindowWidth = 100, 90
  stored = np.arange(256, dtype=np.uint8)
  theirs = apply_windowing(stored, dataset)
  ours = windows.function(function)(stored, 100, 90)
  np.testing.assert_array_equal(ours, np.floor(theirs + 0.5))


def test_linear_at_its_edges():
  hu = np.array([-1000, -160, -159, 39, 40, 238, 239, 3000])
  got = windows.linear(hu, 40, 400)
  # y = ((x - 39.5) / 399 + 0.5) * 255
  assert got.tolist() == [0, 0, 1, 127, 128, 254, 255, 255]


def test_what_is_not_a_number_is_black_and_infinity_is_an_end():
  odd = np.array([np.nan, np.inf, -np.inf, 40.0])
  for name in ("linear", "linear_exact", "sigmoid"):
    assert windows.function(name)(odd, 40, 400)[:3].tolist() == [0, 255, 0]
  assert windows.stretch(odd, 0, 80).tolist() == [0, 255, 0, 128]
  assert windows.stretch(odd, 5, 5).tolist() == [0, 0, 0, 0]


def test_the_table_is_width_over_level_as_agreed():
  agreed = (
    "lung 1500/-600, mediastinum 350/50, abdomen 400/40, liver 150/60, bone 1800/400, "
    "brain 80/40, stroke 40/40, subdural 200/75, angio 600/300, spine 250/50"
  )
  found = ", ".join(f"{name} {w}/{c}" for name, (c, w) in windows.TABLE.items())
  assert found == agreed


def test_lookup():
  assert windows.lookup("lung") == (-600, 1500)
  assert windows.lookup("40/400") == windows.lookup((40, 400)) == windows.lookup([40, 400.0])
  for wrong in (
    *("lungs", "40", "40/0", "40/400/1", (40, 0.5), "nan/3", "1/inf", "", "40/400+"),
    *([40], [40, 400, 1], [None, 4], [[1], 2], 40, None, {}, {"a": 1, "b": 2}, [1e999, 3], b"40/4"),
  ):
    with pytest.raises(BadRecord, match="expected") as raised:
      windows.lookup(wrong)
    assert (
      raised.value.kind == "options"
      and "abdomen" in str(raised.value)
      or "width" in str(raised.value)
    )


def test_three_windows_are_red_green_and_blue():
  assert windows.lookup_all("lung + 50/350+bone") == ((-600, 1500), (50, 350), (400, 1800))
  assert windows.lookup_all([40, 400]) == windows.lookup_all("abdomen") == ((40, 400),)
  for wrong in ("lung+bone", "lung+bone+brain+liver"):
    with pytest.raises(BadRecord, match="expected one, or three"):
      windows.lookup_all(wrong)
  with pytest.raises(BadRecord, match="expected one of lung"):
    windows.lookup_all("lung+bone+")


def test_quantities_can_be_told_from_their_units_alone():
  """The typical range must be narrower than the step between any two units, or they overlap."""
  for quantity in windows.QUANTITIES.values():
    assert quantity.units[0][1] == 1 and quantity.low < quantity.high and quantity.source
    low, high = quantity.typical
    steps = sorted(worth for _, worth in quantity.units)
    for one, two in zip(steps, steps[1:], strict=False):
      assert high / low < two / one
  names = {unit for q in windows.QUANTITIES.values() for unit, _ in q.units}
  assert set(windows.CODED_UNITS.values()) <= names


def test_a_table_takes_its_ends_outside():
  table = windows.Table(first=-2, entries=np.array([7, 8, 9], np.uint16), top=255)
  assert table(np.array([-32768, -2, -1, 0, 32767], np.int16)).tolist() == [7, 7, 8, 9, 9]
  assert table(np.array([-1.4, -0.6, np.nan, np.inf])).tolist() == [8, 8, 7, 9]
  assert table(np.array([0, 255], np.uint8)).tolist() == [9, 9]


def test_min_max_is_per_frame_and_truncates():
  values = np.array([[[0, 1, 3]], [[5, 5, 5]], [[-10, 0, 10]]])
  assert windows.min_max(values)[:, 0].tolist() == [[0, 85, 255], [0, 0, 0], [0, 127, 255]]


def test_sampling():
  assert sampling.by_count(5, 9).tolist() == [0, 1, 2, 3, 4]
  assert sampling.by_count(10, 3).tolist() == [0, 4, 9]
  thirds = np.arange(10) / 3
  assert sampling.by_fps(thirds, 1).tolist() == [0, 3, 6, 9]
  assert sampling.by_fps(np.array([0.0, 0.1, 5.0]), 1).tolist() == [0, 1, 2]
