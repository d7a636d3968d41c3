"""Which grey a value gets: HU windows, fixed ranges, percentiles of the foreground; refusals."""

import numpy as np
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import foreground
from hulu_jax.media import windows
from hulu_jax.media.intensity import Look
from hulu_jax.media.intensity import declared
from hulu_jax.media.intensity import shading

CT = Look("CT", "HU")


def hu(seed: int = 0, dtype=np.int16) -> np.ndarray:
  return np.random.default_rng(seed).integers(-1100, 3100, (3, 40, 50)).astype(dtype)


def brain_like(air: int = 0) -> np.ndarray:
  """int16 T1-like magnitude volume: half air with noise, fluid at 150 of 1000, tissue to 1000."""
  rng = np.random.default_rng(1)
  values = np.abs(rng.normal(0, 12, (8, 60, 60)))
  values[:, :, 30:50] = rng.uniform(500, 1000, (8, 60, 20))
  values[:, :, 50:] = rng.normal(150, 8, (8, 60, 10))
  return (values + air).round().astype(np.int16)


def test_ct_is_shown_in_the_window_asked_for():
  notes = []
  shade = shading(hu(), CT, Options(window="lung"), notes)
  assert (shade.window, shade.value_range, shade.rgb_windows) == ((-600, 1500), None, None)
  assert shade.units == "HU" and notes == []
  got = shade(hu())
  assert got.dtype == np.uint8 and got.shape == (3, 40, 50, 1)
  expected = np.clip((hu().astype(float) + 600.5) / 1499 + 0.5, 0, 1) * 255
  np.testing.assert_array_equal(got[..., 0], np.floor(expected + 0.5))


@pytest.mark.parametrize("asked", ["40/80", (40, 80), [40, 80], [40.0, 80], "brain", " brain "])
def test_a_window_may_be_written_in_many_ways(asked):
  assert shading(hu(), CT, Options(window=asked), []).window == (40, 80)


def test_without_a_window_ct_has_its_own_or_abdomen():
  notes = []
  assert shading(hu(), CT, Options(), notes).window == (40, 400)
  assert notes == ["no window was given: abdomen (centre 40, width 400 HU) was used"]
  notes = []
  own = Look("CT", "HU", window=(100, 50), function="sigmoid", offered=3)
  shade = shading(hu(), own, Options(), notes)
  assert shade.window == (100, 50)
  assert notes[0] == "no window was given: the file's own window (sigmoid) was used"
  assert notes[1] == "the file offers 3 windows or tables: the first was used"
  np.testing.assert_array_equal(shade(hu())[..., 0], windows.sigmoid(hu(), 100, 50))
  # The file's function belongs to the file's window, not to the caller's.
  given = shading(hu(), own, Options(window="bone"), [])
  np.testing.assert_array_equal(given(hu())[..., 0], windows.linear(hu(), 400, 1800))


def test_functions_by_name():
  for name in ("linear", "linear_exact", "sigmoid"):
    shade = shading(hu(), CT, Options(window=(40, 400), function=name), [])
    np.testing.assert_array_equal(shade(hu())[..., 0], windows.function(name)(hu(), 40, 400))
  with pytest.raises(BadRecord, match="expected one of linear, linear_exact, sigmoid"):
    shading(hu(), CT, Options(function="cubic"), [])
  with pytest.raises(BadRecord, match="a function shapes a window"):
    shading(hu(), Look("MR"), Options(function="sigmoid"), [])


def test_three_windows_make_colours():
  shade = shading(hu(), CT, Options(window="lung+mediastinum+400/1800"), [])
  assert shade.window is None and shade.value_range is None
  assert shade.rgb_windows == ((-600, 1500), (50, 350), (400, 1800))
  got = shade(hu())
  assert got.shape == (3, 40, 50, 3)
  for channel, window in enumerate(shade.rgb_windows):
    np.testing.assert_array_equal(got[..., channel], windows.linear(hu(), *window))


@pytest.mark.parametrize("window", ["lung", "lung+mediastinum+bone"])
@pytest.mark.parametrize("dtype", ["i2", ">i2", "u2", "i1", "u1", "i4", "i8", "u4"])
def test_the_table_is_bit_equal_to_floating_point(window, dtype):
  """Integers go through a table; the same numbers as float64 do not."""
  limits = np.iinfo(dtype)
  values = hu().clip(max(limits.min, -2000), min(limits.max, 4000)).astype(dtype)
  for view in (values, values[:, ::-1, ::2], values.transpose(2, 0, 1)):
    shade = shading(view, CT, Options(window=window, function="linear"), [])
    plain = shading(view.astype(np.float64), CT, Options(window=window), [])
    np.testing.assert_array_equal(shade(view), plain(view.astype(np.float64)))


def test_a_table_is_not_trusted_with_values_of_another_type():
  shade = shading(hu(), CT, Options(window="abdomen"), [])
  fine = np.linspace(-200, 300, 60).reshape(2, 5, 6)
  np.testing.assert_array_equal(shade(fine)[..., 0], windows.linear(fine, 40, 400))
  wide = np.array([[-(2**31), 2**31 - 1, 40]], np.int32)
  np.testing.assert_array_equal(shade(wide)[..., 0], windows.linear(wide, 40, 400))


def test_padding_is_black_and_comes_after_the_inversion():
  values = np.array([[[-1000, 0, 40, 1000]]], np.int16)
  padding = np.array([[[True, False, False, True]]])
  plain = shading(values, CT, Options(window="brain"), [], padding)(values)
  inverted = shading(values, Look("CT", "HU", inverted=True), Options(window="brain"), [], padding)
  np.testing.assert_array_equal(inverted(values), 255 - plain)
  assert plain[..., 0].tolist() == [[[0, 0, 129, 255]]]
  assert inverted(values, padding)[..., 0].tolist() == [[[0, 255, 126, 0]]]
  colours = shading(values, CT, Options(window="brain+bone+lung"), [], padding)(values, padding)
  assert not colours[padding].any() and colours[~padding].any()


def test_a_window_needs_hounsfield_units():
  for look in (Look("MR"), Look(), declared(Options(modality="MR")), Look("CT", "mg/ml")):
    with pytest.raises(BadRecord, match="not known to be HU") as raised:
      shading(hu(), look, Options(window="brain"), [])
    assert raised.value.kind == "options"
  assert declared(Options(modality="CT")) == CT
  assert declared(Options(modality="MR")).units is None


def test_what_does_not_exist_is_refused_by_name():
  with pytest.raises(BadRecord, match="modality 'ct'; expected one of CT, MR, PT"):
    declared(Options(modality="ct"))
  with pytest.raises(BadRecord, match="quantity 'adc'; expected one of ADC, FA, T1"):
    declared(Options(quantity="adc"))
  with pytest.raises(BadRecord, match="quantity T1 of values in HU"):
    shading(hu(), CT, Options(quantity="T1"), [])
  with pytest.raises(BadRecord, match="quantity T1 was given; the file says ADC"):
    shading(hu(), Look("MR", quantity="ADC"), Options(quantity="T1"), [])
  with pytest.raises(BadRecord, match="a value_range for values in HU"):
    shading(hu(), CT, Options(value_range=(0, 1)), [])
  for wrong in ((1, 0), (1, 1), [1], "0-1", 3, (None, 1), (0, float("nan")), ("a", "b")):
    with pytest.raises(BadRecord, match="two numbers, the lower one first"):
      shading(hu(), Look("MR"), Options(value_range=wrong), [])


def test_a_value_range_overrides_all_but_hu():
  fixed = Options(value_range=[0, 510])
  values = np.array([[[-5, 0, 255, 510, 900]]], np.int16)
  for look in (Look("MR"), Look("PT", "SUVbw", value_range=(0, 10)), Look("DX", window=(9, 9))):
    shade = shading(values, look, fixed, [])
    assert shade.value_range == (0, 510) and shade.window is None and shade.units == look.units
    assert shade(values)[..., 0].tolist() == [[[0, 0, 128, 255, 255]]]
  inverted = shading(values, Look("DX", inverted=True), fixed, [])
  assert inverted.value_range == (510, 0)  # shown as black, as white
  assert inverted(values)[..., 0].tolist() == [[[255, 255, 127, 0, 0]]]


def test_air_is_left_out_but_dark_tissue_is_not_clipped():
  notes = []
  values = brain_like()
  shade = shading(values, Look("MR"), Options(), notes)
  low, high = shade.value_range
  assert "foreground" in notes[0] and "0.5 to 99.5" in notes[0]
  assert 40 < low < 150 and 950 < high <= 1000
  # Percentile 0.5 of the foreground is percentile 1.5 of the fluid, a third of it.
  assert (values[:, :, 50:] < low).mean() < 0.02
  assert (shade(values)[:, :, :30] == 0).mean() > 0.98  # air is black


def test_the_foreground_does_not_depend_on_the_amount_of_air():
  one = foreground.percentiles(brain_like())
  more = np.concatenate([brain_like(), np.zeros((60, 60, 60), np.int16)])
  np.testing.assert_allclose(foreground.percentiles(more), one, rtol=0.08)
  # 0.4 % of the voxels are not zero: percentile 99.5 of all is 0.
  small = np.zeros((10, 50, 50), np.int16)
  small[5, :10, :10] = np.arange(100).reshape(10, 10) + 100
  low, high = foreground.percentiles(small)
  assert 100 <= low < 102 and 197 < high <= 199


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.int64, np.uint8, np.float32])
def test_counting_and_sorting_give_the_same_percentiles(dtype):
  values = np.minimum(brain_like(air=100) // 5, 255).astype(dtype)
  above = values > np.percentile(values, 0.5) + 0.05 * (
    np.percentile(values[values > values.min()], 99.5) - np.percentile(values, 0.5)
  )
  expected = np.percentile(values[above], [0.5, 99.5])
  np.testing.assert_allclose(foreground.percentiles(values), expected, rtol=1e-6)
  everything = foreground.percentiles(values, everything=True)
  np.testing.assert_allclose(everything, np.percentile(values, [0.5, 99.5]), rtol=1e-6)
  for view in (values[::-1], values.transpose(2, 1, 0), np.asfortranarray(values)):
    assert foreground.percentiles(view) == foreground.percentiles(values)


def test_padding_and_what_is_not_finite_never_count():
  values = brain_like().astype(np.float32)
  expected = foreground.percentiles(values)
  padding = np.zeros(values.shape, bool)
  padded = np.concatenate([values, np.full((2, 60, 60), 30000, np.float32)])
  padding = np.concatenate([padding, np.ones((2, 60, 60), bool)])
  assert foreground.percentiles(padded, padding) == pytest.approx(expected)
  assert foreground.percentiles(padded.astype(np.int16), padding) == pytest.approx(expected)
  odd = np.concatenate([values, np.full((1, 60, 60), np.nan), np.full((1, 60, 60), np.inf)])
  assert foreground.percentiles(odd.astype(np.float32)) == pytest.approx(expected)
  shade = shading(odd, Look("MR"), Options(), [])
  assert not shade(odd)[8].any() and (shade(odd)[9] == 255).all()
  for dtype in (np.int16, np.float32):
    with pytest.raises(BadRecord, match="no voxel holds"):
      foreground.percentiles(np.ones((2, 3, 4), dtype), np.ones((2, 3, 4), bool))
  with pytest.raises(BadRecord, match="no voxel holds a finite number"):
    foreground.percentiles(np.full((2, 3, 4), np.nan))


def test_files_below_zero_have_no_air_at_the_bottom():
  phase = np.linspace(-4096, 4095, 8000).reshape(20, 20, 20)
  low, high = foreground.percentiles(phase)
  assert low == pytest.approx(-4055, abs=2) and high == pytest.approx(4054, abs=2)
  assert foreground.percentiles(np.full((2, 3, 4), 7, np.int16)) == (7, 7)
  assert foreground.percentiles(np.full((2, 3, 4), 7.5)) == (7.5, 7.5)


def test_x_rays_without_voi_use_all_values():
  notes = []
  values = brain_like()
  shade = shading(values, Look("DX", inverted=True), Options(), notes)
  low, high = np.percentile(values, [0.5, 99.5])
  assert shade.value_range == (high, low) and "all values" in notes[0]


def adc(scale: float) -> np.ndarray:
  """A map of tissue from 600 to 1500 and fluid at 3000, in 1e-6 mm2/s, times `scale`."""
  values = np.zeros((4, 40, 40))
  values[:, 5:30, 5:] = np.linspace(600, 1500, 25)[:, None]
  values[:, 30:, 5:] = 3000
  return values * scale


@pytest.mark.parametrize(
  ("scale", "unit"), [(1, "1e-6 mm2/s"), (1e-3, "1e-3 mm2/s"), (1e-6, "mm2/s")]
)
def test_an_adc_map_has_one_range_in_any_unit(scale, unit):
  notes = []
  shade = shading(adc(scale), declared(Options(quantity="ADC")), Options(quantity="ADC"), notes)
  assert shade.value_range == pytest.approx((0, 3000 * scale)) and shade.units == unit
  assert notes[0] == f"ADC: the values were taken to be in units of {unit}, by their size"
  reference = windows.stretch(adc(1), 0, 3000)
  np.testing.assert_allclose(shade(adc(scale))[..., 0], reference, atol=1)


def test_values_that_cannot_be_the_quantity_are_refused_or_noted():
  with pytest.raises(BadRecord, match="values up to 9e.06 cannot be ADC"):
    shading(adc(3000), Look(), Options(quantity="ADC"), [])
  with pytest.raises(BadRecord, match="cannot be FA in 1, 1e-3; expected another quantity"):
    shading(adc(1), Look(), Options(quantity="FA"), [])
  notes = []
  shade = shading(adc(3000), Look("MR", quantity="ADC"), Options(), notes)
  assert notes[0] == "the file says ADC, but its values cannot be: no fixed range was used"
  assert "percentiles" in notes[1] and shade.units is None
  # A unit that the file states is believed.
  sure = shading(adc(1e-3), Look("MR", "1e-3 mm2/s", quantity="ADC"), Options(), [])
  assert sure.value_range == (0, 3) and sure.units == "1e-3 mm2/s"


def test_t1_in_seconds_and_in_milliseconds():
  for values, expected in ((adc(0.5), (0, 3000)), (adc(0.0005), (0, 3))):
    shade = shading(values, Look("MR", quantity="T1"), Options(), [])
    assert shade.value_range == expected


def test_eight_bits_stay_as_they_are():
  every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
  shade = shading(every, Look("US", full=(0, 255)), Options(), [])
  np.testing.assert_array_equal(shade(every)[..., 0], every)
  assert shade.value_range == (0, 255)
