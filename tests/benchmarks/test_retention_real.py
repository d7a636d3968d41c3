"""The real scans of `benchmarks/retention.py`: masks lie on the organs, figures are the page's."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import retention
from benchmarks import retention_measures as measures
from benchmarks import retention_scans as scans
from hulu_jax import media
from hulu_jax.data.compression import Compression
from hulu_jax.media import Options


@pytest.fixture(scope="module")
def ct(shared_data) -> dict[str, scans.Scan]:
  """By name."""
  if not (shared_data / "vol_totalsegmentator").is_dir():
    pytest.skip("needs vol_totalsegmentator in ../shared/data, which this machine lacks")
  return {scan.name: scan for scan in scans.ct(shared_data)}


@pytest.fixture(scope="module")
def mr(shared_data, ct) -> dict[str, scans.Scan]:
  """By name."""
  return {scan.name: scan for scan in scans.mr(shared_data)}


def test_scans_are_shown_as_read_shows_them(ct, shared_data):
  root = shared_data / "vol_totalsegmentator" / "public"
  for name, file in (("CT A", "example_ct_dicom"), ("CT B", "example_ct_sm.nii.gz")):
    options = Options(modality="CT", window="liver")
    read = media.read(root / file, options)
    shown = scans.show(ct[name], options).media
    np.testing.assert_array_equal(shown.frames, read.frames)
    np.testing.assert_allclose(shown.affine, read.affine)


def test_the_numbers_of_the_labels_are_those_of_their_own_volumes(ct, mr, shared_data):
  root = shared_data / "vol_totalsegmentator" / "public"
  pairs = (("example_seg", ct["CT B"]), ("example_seg_mr", mr["MR trunk"]))
  for file, scan in pairs:
    told = json.loads((root / f"{file}_volumes_ml.json").read_text())
    told["kidneys"] = told["kidney_left"] + told["kidney_right"]
    told["lungs"] = sum(v for name, v in told.items() if name.startswith("lung_"))
    for name, mask in scan.masks.items():
      if name == scans.ANY:
        continue
      millilitres = mask.sum() * np.prod(scan.steps_mm) / 1000
      assert millilitres == pytest.approx(told[name.replace(" ", "_")], abs=0.25), name


@pytest.mark.parametrize("name", ("CT A", "CT B"))
def test_masks_lie_on_their_organs_where_they_are_shown(ct, name):
  scan = ct[name]
  shown = scans.show(scan, dataclasses.replace(scan.options, window=(0, 2000)))
  values = shown.tokens.astype(float) / 255 * 1999 - 1000
  found = {
    organ: scans.covered(scan, mask * np.uint8(255)) == 255 for organ, mask in scan.masks.items()
  }
  liver = values[found["liver"]]
  assert 40 < np.median(liver) < 140 and (np.abs(liver - np.median(liver)) < 80).mean() > 0.9
  if "lungs" in found:
    assert np.median(values[found["lungs"]]) < -600
  # The patient's right is on the viewer's left, and the cord behind the liver's middle.
  columns = np.arange(shown.tokens.shape[1]) % shown.columns
  rows = np.arange(shown.tokens.shape[1]) // shown.columns
  share = {organ: mask.mean(axis=(0, 2)) for organ, mask in found.items()}
  middle = {organ: np.average(columns, weights=own) for organ, own in share.items()}
  assert middle["liver"] < middle["spinal cord"] < middle["spleen"]
  down = {organ: np.average(rows, weights=own) for organ, own in share.items()}
  assert down["liver"] < down["spinal cord"]


def test_the_spinal_cord_is_where_its_mask_is(mr):
  scan = mr["MR neck T2"]
  tokens, cord = scans.show(scan, scan.options).tokens, scan.masks["spinal cord"]
  inside = scans.covered(scan, cord * np.uint8(255)) == 255
  around = scans.covered(scan, cord * np.uint8(255)) == 0
  assert inside.any() and np.median(tokens[inside]) > 2 * np.median(tokens[around])


def test_the_first_figures_of_the_page(ct):
  """docs/compression.md, CT A in the abdomen window: 0.06 of all tokens, 0.01 of the liver's."""
  scan = ct["CT A"]
  shown = scans.show(scan, dataclasses.replace(scan.options, window="abdomen"))
  liver = scans.share(scan, scan.masks["liver"]) >= retention.INSIDE
  keep = measures.kept(shown.tokens, Compression(mode="hulumed"), shown.media.window)
  whole, inside = measures.fraction(keep), measures.fraction(keep, liver)
  assert (round(whole, 2), round(inside, 2)) == (0.06, 0.01)
