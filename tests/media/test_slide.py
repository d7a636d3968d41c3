"""Whole slides: any region of a level equals tiles put together by hand; labels stay out."""

import dataclasses
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import limits as limits_lib
from hulu_jax.media import read
from hulu_jax.media.dicom import pixels
from tests.media.made import CANARY
from tests.media.made import dicom_dataset

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
REAL = "wsi_cptac_brca/public/cptac_15BR001_overview.dcm"
TILE, SIZE = 8, (19, 30)  # a level of 3 x 4 tiles, the last ones cut


def picture(seed=0) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def tiles(whole: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
  """uint8 [12, 8, 8, 3] row by row, padded with 77, and their corners."""
  padded = np.full((24, 32, 3), 77, np.uint8)
  padded[: SIZE[0], : SIZE[1]] = whole
  corners = [(r, c) for r in range(0, 24, TILE) for c in range(0, 32, TILE)]
  return np.stack([padded[r : r + TILE, c : c + TILE] for r, c in corners]), corners


def place(row, column, depth=0.0, path="1") -> Dataset:
  """One frame's functional groups; DICOM counts rows and columns from 1."""
  where, used, group = Dataset(), Dataset(), Dataset()
  where.RowPositionInTotalImagePixelMatrix = row + 1
  where.ColumnPositionInTotalImagePixelMatrix = column + 1
  where.ZOffsetInSlideCoordinateSystem = depth
  used.OpticalPathIdentifier = path
  group.PlanePositionSlideSequence = [where]
  group.OpticalPathIdentificationSequence = [used]
  return group


def slide(tmp_path, frames: np.ndarray, **elements) -> Path:
  defaults = {
    "SOPClassUID": SLIDE_CLASS,
    "Modality": "SM",
    "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    "TotalPixelMatrixRows": SIZE[0],
    "TotalPixelMatrixColumns": SIZE[1],
    "ImagedVolumeHeight": 1.9,
    "ImagedVolumeWidth": 6.0,
    "DimensionOrganizationType": "TILED_FULL",
  }
  dataset = dicom_dataset(frames, **(defaults | elements))
  path = tmp_path / "slide"
  dataset.save_as(path, enforce_file_format=True)
  return path


def sparse(tmp_path, frames, places, **elements) -> Path:
  return slide(
    tmp_path,
    frames,
    DimensionOrganizationType="TILED_SPARSE",
    PerFrameFunctionalGroupsSequence=places,
    **elements,
  )


@pytest.mark.parametrize("preset", ["radiology", "hulumed"])
def test_a_real_level_equals_its_tiles(real, preset):
  path = real(REAL)
  dataset = pydicom.dcmread(path)
  whole = np.zeros((7 * 240, 7 * 240, 3), np.uint8)
  for k, tile in enumerate(dataset.pixel_array):
    row, column = 240 * (k // 7), 240 * (k % 7)
    whole[row : row + 240, column : column + 240] = tile
  media = read(path, preset=preset)
  assert media.kind == "image" and media.modality == "SM"
  assert media.frames.shape == (1, 1547, 1680, 3)
  np.testing.assert_array_equal(media.frames[0], whole[:1547, :1680])
  assert media.spacing_mm == pytest.approx((0, 0.0158212, 0.0158212), abs=1e-6)
  for box in ((0, 0, 1, 1), (239, 239, 241, 481), (1400, 1600, 1547, 1680), (500, 7, 900, 700)):
    part = read(path, Options(region=box), preset=preset).frames[0]
    np.testing.assert_array_equal(part, whole[box[0] : box[2], box[1] : box[3]])


@pytest.mark.parametrize(
  "box", [None, (0, 0, 8, 8), (7, 7, 9, 17), (16, 24, 19, 30), (3, 0, 19, 1)]
)
def test_full_and_shuffled_sparse_levels(tmp_path, box):
  whole = picture()
  frames, corners = tiles(whole)
  top, left, bottom, right = box or (0, 0, *SIZE)
  expected = whole[top:bottom, left:right]
  media = read(slide(tmp_path, frames), Options(region=box))
  np.testing.assert_array_equal(media.frames[0], expected)
  assert media.spacing_mm == (0.0, pytest.approx(0.1), pytest.approx(0.2))
  order = np.random.default_rng(1).permutation(len(frames))
  path = sparse(tmp_path, frames[order], [place(*corners[k]) for k in order])
  np.testing.assert_array_equal(read(path, Options(region=box)).frames[0], expected)


def test_only_the_touched_tiles_are_decoded(tmp_path, monkeypatch):
  asked, iterate = [], pixels.iterate
  monkeypatch.setattr(
    pixels, "iterate", lambda p, wanted: asked.extend(wanted) or iterate(p, wanted)
  )
  frames, _ = tiles(picture())
  read(slide(tmp_path, frames), Options(region=(7, 8, 9, 17)))
  assert asked == [1, 2, 5, 6]


def test_tiles_that_are_not_there_are_white_and_said(tmp_path):
  whole = picture()
  frames, corners = tiles(whole)
  path = sparse(tmp_path, frames[[0, 5]], [place(*corners[0]), place(*corners[5])])
  media = read(path, Options(region=(0, 0, 16, 16)))
  np.testing.assert_array_equal(media.frames[0, :8, :8], whole[:8, :8])
  np.testing.assert_array_equal(media.frames[0, 8:, 8:], whole[8:16, 8:16])
  assert (media.frames[0, :8, 8:] == 255).all()
  assert "50% of the region has no tile in the file and is white" in media.notes
  with pytest.raises(BadRecord, match="a region without any tile"):
    read(path, Options(region=(17, 24, 19, 30)))


def test_tiles_may_lie_off_the_grid_and_over_the_edge(tmp_path):
  frames = np.stack([np.full((8, 8, 3), v, np.uint8) for v in (10, 20)])
  media = read(sparse(tmp_path, frames, [place(-3, 2), place(15, 27)]))
  assert (media.frames[0, :5, 2:10] == 10).all() and (media.frames[0, 15:, 27:] == 20).all()
  assert (media.frames[0] == 255).all(axis=-1).sum() == 19 * 30 - 40 - 12


def test_the_first_focal_plane_and_path_are_shown(tmp_path):
  first, other = picture(0), picture(1)
  frames, corners = tiles(first)
  both = np.concatenate([frames, tiles(other)[0]])
  full = read(slide(tmp_path, both, TotalPixelMatrixFocalPlanes=2))
  np.testing.assert_array_equal(full.frames[0], first)
  assert "the first of 2 focal planes is shown" in full.notes
  paths = read(slide(tmp_path, both, NumberOfOpticalPaths=2))
  np.testing.assert_array_equal(paths.frames[0], first)
  assert "the first of 2 optical paths is shown" in paths.notes
  places = [place(*c) for c in corners] + [place(*c, depth=1.5) for c in corners]
  deep = read(sparse(tmp_path, both, places))
  np.testing.assert_array_equal(deep.frames[0], first)
  assert "the first of 2 focal planes is shown" in deep.notes


def test_a_level_too_large_says_how_to_ask(tmp_path):
  frames, _ = tiles(picture())
  small = dataclasses.replace(limits_lib.DEFAULT, max_pixels=300)
  path = slide(tmp_path, frames)
  with pytest.raises(
    BadRecord, match=r"a level of 19 x 30 pixels; .* give region=.top, left"
  ) as bad:
    read(path, limits=small)
  assert bad.value.kind == "limit"
  assert read(path, Options(region=(0, 0, 10, 30)), limits=small).frames.shape == (1, 10, 30, 3)
  with pytest.raises(BadRecord, match="330 pixels in a frame"):
    read(path, Options(region=(0, 0, 11, 30)), limits=small)


@pytest.mark.parametrize("box", [(0, 0, 20, 5), (0, 0, 5, 31), (-1, 0, 5, 5), (5, 5, 5, 9)])
def test_a_region_outside_of_the_level(tmp_path, box):
  with pytest.raises(BadRecord, match="the level has 19 x 30 pixels"):
    read(slide(tmp_path, tiles(picture())[0]), Options(region=box))


@pytest.mark.parametrize(
  "elements",
  [
    {"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]},
    {"ImageType": ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]},
    {"ImageType": ["ORIGINAL", "PRIMARY", CANARY.replace("^", "_")]},
    {"ImageType": ["ORIGINAL", "PRIMARY"]},
    {"ImageType": "VOLUME"},
    {"SpecimenLabelInImage": "YES"},
  ],
)
def test_labels_are_refused_since_they_carry_names(tmp_path, elements):
  with pytest.raises(BadRecord, match="label|a slide overview") as bad:
    read(slide(tmp_path, tiles(picture())[0], **elements))
  assert "CANARY" not in str(bad.value)


@pytest.mark.parametrize(
  ("elements", "expected"),
  [
    ({"TotalPixelMatrixRows": 25}, "12 tiles where 4 x 4 tiles"),
    ({"TotalPixelMatrixRows": 0}, "a level of 0 x 30"),
    ({"TotalPixelMatrixFocalPlanes": 3}, "3 focal planes"),
    ({"InConcatenationTotalNumber": 2}, "one of several files"),
    ({"DimensionOrganizationType": "TILED_SPARSE"}, "places of 0 tiles for 12 tiles"),
    ({"NumberOfFrames": 2_000_000}, "2,000,000 tiles; the limit is"),
  ],
)
def test_tiles_that_do_not_make_a_level(tmp_path, elements, expected):
  with pytest.raises(BadRecord, match=expected):
    read(slide(tmp_path, tiles(picture())[0], **elements))


def test_options_that_do_not_apply(tmp_path):
  path = slide(tmp_path, tiles(picture())[0])
  for option in ({"window": "lung"}, {"frames": 3}, {"plane": "axial"}, {"time_index": 0}):
    with pytest.raises(BadRecord) as bad:
      read(path, Options(**option))
    assert bad.value.kind == "options"
  with pytest.raises(BadRecord, match="crop .* needs a DICOM file|ultrasound"):
    read(path, Options(crop="ultrasound_region"))
  plain = dicom_dataset(np.zeros((4, 4), np.uint8), Modality="DX")
  plain.save_as(tmp_path / "plain", enforce_file_format=True)
  with pytest.raises(BadRecord, match="region is for whole slides"):
    read(tmp_path / "plain", Options(region=(0, 0, 2, 2)))


def test_fluorescence_is_grey(tmp_path):
  whole = picture()[..., 0]
  frames = tiles(np.repeat(whole[..., None], 3, axis=-1))[0][..., 0]
  media = read(slide(tmp_path, np.ascontiguousarray(frames)))
  assert media.frames.shape == (1, *SIZE, 1)
  np.testing.assert_array_equal(media.frames[0, ..., 0], whole)
  assert media.value_range == (0, 255)
