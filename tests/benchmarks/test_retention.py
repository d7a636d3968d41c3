"""The measures of `benchmarks/retention.py` on scans whose answers are known by hand."""

import dataclasses
import itertools

import numpy as np
import pytest

from benchmarks import retention
from benchmarks import retention_lesions as lesions
from benchmarks import retention_measures as measures
from benchmarks import retention_scans as scans
from benchmarks.retention_lesions import Sphere
from hulu_jax.data import compression as compression_lib
from hulu_jax.data import vision
from hulu_jax.data.compression import Compression
from hulu_jax.eval import stats
from hulu_jax.media import Options
from hulu_jax.media import intensity
from hulu_jax.media.volume import Voxels

ABDOMEN = Options(modality="CT", window="abdomen")
STEPS = (0.7, 1.3, 2.5)


def scan(values: np.ndarray, affine: np.ndarray, **masks: np.ndarray) -> scans.Scan:
  """A CT in the abdomen window under the released policy."""
  voxels = Voxels(values, affine, look=intensity.declared(ABDOMEN))
  return scans.Scan("made", voxels, ABDOMEN, masks, vision.HULUMED)


def flat() -> scans.Scan:
  """Without noise or anatomy: 40 HU, 1 mm, shown at 112 x 112 in 4 x 4 tokens."""
  return scan(np.full((112, 112, 14), 40, np.int16), np.eye(4))


@pytest.mark.parametrize("diameter", (5.0, 10.0, 15.0))
def test_a_lesion_adds_its_contrast_in_its_millimetres(diameter):
  values = np.full((61, 41, 27), 37, np.int16)
  sphere = Sphere((30, 20, 13), diameter, 1)
  added = lesions.insert(values, [sphere], 20, STEPS).astype(int) - values
  at = np.stack(np.indices(values.shape), -1) - sphere.centre
  half = np.abs(at) * STEPS + np.array(STEPS) / 2
  nearest = np.linalg.norm(np.maximum(np.abs(at) * STEPS - np.array(STEPS) / 2, 0), axis=-1)
  edge = lesions.EDGE_MM / 2
  core = np.linalg.norm(half, axis=-1) <= diameter / 2 - edge
  outside = nearest >= diameter / 2 + edge
  assert (added[core] == 20).all() and not added[outside].any()
  assert diameter < 10 or core.sum() > 20
  # The mean of the spheres from R - edge to R + edge, since the weight falls evenly between them.
  radius = diameter / 2
  _, weights = lesions.weights(sphere, values.shape, STEPS)
  expected = 4 / 3 * np.pi * (radius**3 + radius * edge**2)
  np.testing.assert_allclose(weights.sum() * np.prod(STEPS), expected, rtol=0.02)


def test_a_voxel_holds_the_mean_over_its_own_extent():
  sphere, shape = Sphere((4, 4, 4), 6.0, 1), (9, 9, 9)
  box, weights = lesions.weights(sphere, shape, STEPS)
  whole = np.zeros(shape)
  whole[box] = weights
  for voxel in ((4, 4, 4), (6, 5, 4), (1, 4, 4), (4, 6, 5)):
    inside = []
    for parts in itertools.product((-1 / 3, 0, 1 / 3), repeat=3):
      place = [(v + p - 4) * s for v, p, s in zip(voxel, parts, STEPS, strict=True)]
      inside.append(min(max((3 + 1 - np.hypot(np.hypot(*place[:2]), place[2])) / 2, 0), 1))
    assert whole[voxel] == pytest.approx(np.mean(inside))


def test_darker_lesions_are_subtracted_and_nothing_wraps():
  values = np.full((20, 20, 20), 5, np.int16)
  dark = lesions.insert(values, [Sphere((10, 10, 10), 10.0, -1)], 40, (1, 1, 1))
  assert dark[10, 10, 10] == -35 and values[10, 10, 10] == 5
  with pytest.raises(ValueError, match="do not fit uint8"):
    lesions.insert(values.astype(np.uint8), [Sphere((10, 10, 10), 10.0, -1)], 40, (1, 1, 1))


def test_places_are_seeded_inside_of_the_organ_and_away_from_both_ends():
  mask = np.zeros((40, 40, 30), bool)
  mask[5:30, 8:35] = True
  found = lesions.places(mask, (1, 1, 1), 10.0, 12, 3, 2)
  assert found == lesions.places(mask, (1, 1, 1), 10.0, 12, 3, 2)
  assert found != lesions.places(mask, (1, 1, 1), 10.0, 12, 4, 2)
  assert [s.sign for s in found] == [-1, 1] * 6
  for sphere in found:
    reached = lesions.weight_map([sphere], mask.shape, (1, 1, 1))
    assert mask[reached >= 128].all()
    assert not reached[..., [0, 1, -2, -1]].any()
  assert lesions.places(mask, (1, 1, 1), 30.0, 12, 3, 2) == []


def turned(stored: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The same volume stored with its axes in another order and two of them reversed."""
  order = (2, 0, 1)
  own, placed = stored.transpose(order), affine[:, [*order, 3]].copy()
  for axis in (0, 2):
    placed[:, 3] += placed[:, axis] * (own.shape[axis] - 1)
    placed[:, axis] *= -1
  return own[::-1, :, ::-1], placed


def test_a_mask_stored_in_another_order_covers_what_it_outlines():
  affine = np.diag([-1.5, 1.5, 3.0, 1.0])
  affine[:3, 3] = (40, -30, 7)
  mask = np.zeros((70, 90, 5), bool)
  mask[10:51, 20:65, 1:4] = True
  mask[40:45, 5:12, 2] = True
  made = scan(np.where(mask, 1000, -1000).astype(np.int16), affine)
  found = scans.onto(*turned(mask, affine), made.voxels)
  np.testing.assert_array_equal(found, mask)
  shown = scans.show(made, ABDOMEN)
  covered = scans.covered(made, found * np.uint8(255))
  np.testing.assert_array_equal(covered, shown.tokens)
  share = scans.share(made, found)
  np.testing.assert_array_equal(share, (shown.tokens >= 128).mean(-1))
  assert share[[0, -1]].max() == 0 and share.max() == 1
  off = affine.copy()
  off[0, 3] += 0.5
  with pytest.raises(ValueError, match="the mask's grid is not the scan's"):
    scans.onto(mask, off, made.voxels)
  with pytest.raises(ValueError, match="end before the scan's"):
    scans.onto(mask[:-1], affine, made.voxels)


def test_kept_fractions_of_a_case_counted_by_hand():
  # Four tokens of two values in three frames; changes of 10, 0, 3, 0 and then 0, 0, 3, 4.
  tokens = np.array([[0, 0, 0, 0], [10, 0, 3, 0], [10, 0, 6, 4]], np.uint8)[..., None]
  tokens = tokens.repeat(2, axis=-1)
  inside = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1]], bool)
  modes = {
    "3 previous": Compression(mode="fixed", grey=3),
    "3 last_kept": Compression(mode="fixed", grey=3, against="last_kept"),
    "videollama3": Compression(mode="videollama3"),
  }
  whole = {n: measures.fraction(measures.kept(tokens, m, None)) for n, m in modes.items()}
  assert whole == {"3 previous": 2 / 8, "3 last_kept": 3 / 8, "videollama3": 4 / 8}
  within = {n: measures.fraction(measures.kept(tokens, m, None), inside) for n, m in modes.items()}
  assert within == {"3 previous": 2 / 4, "3 last_kept": 3 / 4, "videollama3": 4 / 4}
  assert np.isnan(measures.fraction(inside, np.zeros_like(inside)))


@pytest.mark.parametrize("mode", ("hulumed", "videollama3", "fixed", "last_kept"))
def test_some_tokens_are_judged_as_within_the_whole_frame(mode):
  tokens = np.random.default_rng(0).integers(0, 60, (6, 9, 20), np.uint8)
  tokens[:, 0] = np.arange(6, dtype=np.uint8)[:, None] * 40  # keeps every frame from being empty
  against = "last_kept" if mode == "last_kept" else "previous"
  fixed = Compression(mode="fixed", grey=19, against=against)
  compression = fixed if mode in ("fixed", "last_kept") else Compression(mode=mode)
  whole = compression_lib.keep_mask(tokens, compression)
  some = measures.kept(tokens[:, [4, 2, 7]], compression, None)
  np.testing.assert_array_equal(some, whole[:, [4, 2, 7]])
  assert 0 < whole[1:].mean() and (mode == "videollama3" or whole[1:].mean() < 1)


def test_the_change_of_a_token_is_told_in_hu():
  values = np.full((112, 112, 3), 40, np.int16)
  values[..., 1] = 60
  shown = scans.show(scan(values, np.eye(4)), ABDOMEN)
  # One grey level of the abdomen window is 400 / 255 HU.
  np.testing.assert_allclose(measures.changes(shown), np.full((2, 16), 20), atol=400 / 255)


def test_tokens_and_masks_are_those_of_the_data_pipeline():
  rng = np.random.default_rng(0)
  values = (40 + 12 * rng.standard_normal((112, 112, 6))).astype(np.int16)
  compression = Compression(mode="fixed", grey=1, hu=13.5)
  made = scan(values, np.eye(4))
  shown = scans.show(made, ABDOMEN)
  policy = dataclasses.replace(vision.HULUMED, compression=compression)
  keep = vision.visuals([shown.media], policy)[0].keep
  found = measures.kept(shown.tokens, compression, shown.media.window)
  assert 0.2 < found[1:].mean() < 0.8 and found.any(axis=1).all()
  np.testing.assert_array_equal(found, keep)


def test_only_what_moves_is_the_moving_region():
  tokens = np.zeros((4, 3, 10), np.uint8)
  tokens[::2, 1, :5] = 30
  tokens[::2, 2, :4] = 200
  np.testing.assert_array_equal(measures.moving(tokens, 5.0), [[False, True, False]] * 4)


def test_without_noise_a_lesion_is_kept_just_below_the_change_it_makes():
  made, places = flat(), [Sphere((42, 70, 6), 10.0, 1)]
  base = scans.show(made, ABDOMEN)
  assert base.token_mm == 28
  rounds = measures.together(places, made, base)
  alone = 40 * rounds[0].alone[0]
  # A disc through the middle of 10 mm, minus that one slice further out, in one token of 28 mm.
  assert 40 * 0.02 < alone < 40 * 0.06
  modes = {
    f"{share:g}": Compression(mode="fixed", grey=1, hu=share * alone) for share in (0.9, 1.1)
  }
  found = measures.outcomes(made, base, ABDOMEN, rounds, 40, modes)
  below, above = found["0.9"][0], found["1.1"][0]
  assert below.detected and below.kept >= 1 and below.anyway == 0
  assert not above.detected and above.kept == 0
  assert not below.detected_anyway and below.touched == above.touched >= 9


def test_lesions_measured_together_are_measured_as_if_alone():
  rng = np.random.default_rng(0)
  values = (40 + 12 * rng.standard_normal((112, 140, 12))).astype(np.int16)
  made = scan(values, np.diag([-1.0, -1.0, 2.0, 1.0]))
  base = scans.show(made, ABDOMEN)
  places = [Sphere((20, 25, 5), 10.0, 1), Sphere((85, 120, 6), 15.0, -1), Sphere((25, 22, 7), 5, 1)]
  rounds = measures.together(places, made, base)
  assert [len(r.spheres) for r in rounds] == [2, 1]
  modes = retention.modes((6, 9, 11), hounsfield=True)
  both = measures.outcomes(made, base, ABDOMEN, rounds, 40, modes)
  order = [s for r in rounds for s in r.spheres]
  for number, sphere in enumerate(order):
    changed = scans.show(made, ABDOMEN, lesions.insert(values, [sphere], 40, made.steps_mm))
    alone = measures.together([sphere], made, base)
    lone = measures.outcomes(made, base, ABDOMEN, alone, 40, modes)
    assert {name: own[number] for name, own in both.items()} == {n: o[0] for n, o in lone.items()}
    # Nothing outside of the tokens that it may change is changed by it.
    differs = (changed.tokens != base.tokens).any(axis=(0, 2))
    assert differs.any() and set(np.flatnonzero(differs)) <= set(alone[0].columns[0].tolist())


def test_entry_and_exit_are_the_first_frame_and_the_one_after_the_last():
  touched = np.zeros((8, 2), bool)
  touched[3:6, 0] = touched[4, 1] = True
  now = np.zeros((8, 2), bool)
  now[4, 1] = now[6, 0] = True
  before = np.zeros((8, 2), bool)
  found = measures._outcome(now, before, touched, touched)
  assert found == measures.Outcome(
    touched=4, kept=1, anyway=0, detected=True, detected_anyway=False, entry=False, exit=True
  )
  now[3, 0], now[6, 0] = True, False
  now[3, 1] = True  # not touched there
  found = measures._outcome(now, before, touched, touched & False)
  assert found.kept == 2 and not found.detected and found.entry and not found.exit


def test_a_summary_weighs_tokens_and_counts_lesions():
  kept = measures.Outcome(6, 3, 1, True, False, True, False)
  lost = measures.Outcome(2, 0, 0, False, False, False, False)
  found = measures.summary([kept, lost, lost, lost])
  assert (found.n, found.tokens, found.anyway) == (4, 3 / 12, 1 / 12)
  assert found.detected == 1 / 4 and found.detected_interval == stats.wilson(1, 4)
  assert found.tokens_interval[0] == 0 and 3 / 12 < found.tokens_interval[1] <= 0.5
  with pytest.raises(ValueError, match="no lesion"):
    measures.summary([])


def test_the_largest_threshold_that_keeps_enough():
  def summed(share: float) -> measures.Summary:
    return measures.Summary(1, share, (0, 1), 0, 0, (0, 1), 0, 0, 0)

  by_mode = {"2 previous": summed(1.0), "4 previous": summed(0.9), "8 previous": summed(0.89)}
  case = measures.Case("liver", "abdomen", 10.0, 20.0, 1.0, by_mode)
  assert retention.largest(case, (2, 4, 8), "previous") == 4
  assert retention.largest(case, (8,), "previous") is None
