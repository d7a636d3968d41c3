"""Warnings about text and faces in the pixels, and cropping to what an ultrasound shows."""

import numpy as np
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media.dicom import annotations
from tests.media.made import dicom_dataset

CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
OFTEN = "this kind of picture often carries burned-in text"


def header(**elements) -> Dataset:
  return dicom_dataset(np.zeros((20, 30), np.uint8), **elements)


def region(top, left, bottom, right, space=1, data=1):
  """Corners as DICOM gives them: the last is inside."""
  item = Dataset()
  item.RegionSpatialFormat, item.RegionDataType = space, data
  item.RegionLocationMinY0, item.RegionLocationMinX0 = top, left
  item.RegionLocationMaxY1, item.RegionLocationMaxX1 = bottom, right
  return item


@pytest.mark.parametrize(
  ("elements", "expected"),
  [
    ({"Modality": "CT"}, []),
    ({"Modality": "CT", "BurnedInAnnotation": "NO"}, []),
    ({"Modality": "CT", "BurnedInAnnotation": "YES"}, ["text is burned into its pixels"]),
    ({"Modality": "US"}, ["(the file does not say)"]),
    ({"Modality": "US", "BurnedInAnnotation": "NO"}, ["(the file says that this one does not)"]),
    ({"Modality": "US", "BurnedInAnnotation": "YES"}, ["text is burned into its pixels"]),
    ({"Modality": "XA"}, [OFTEN]),
    ({"Modality": "DX", "SOPClassUID": CAPTURE_CLASS}, [OFTEN]),
    ({"Modality": "DX", "SOPClassUID": f"{CAPTURE_CLASS}.4"}, [OFTEN]),
    ({"Modality": "DX", "ConversionType": "DI"}, [OFTEN]),
    ({"Modality": "MR", "RecognizableVisualFeatures": "YES"}, ["as by a face"]),
    ({"Modality": "MR", "RecognizableVisualFeatures": "NO"}, []),
    ({"Modality": "CT", "BodyPartExamined": "CHEST"}, []),
    (
      {"Modality": "US", "BurnedInAnnotation": "YES", "RecognizableVisualFeatures": "YES"},
      ["text is burned into its pixels", "as by a face"],
    ),
  ],
)
def test_each_kind_of_picture_is_warned_of(elements, expected):
  found = annotations.warnings(header(**elements), cropped=False)
  assert len(found) == len(expected)
  assert all(part in note for part, note in zip(expected, found, strict=True))


@pytest.mark.parametrize(
  ("elements", "part"),
  [
    ({"BodyPartExamined": "BRAIN"}, "BRAIN"),
    ({"BodyPartExamined": "Head of somebody"}, None),
    ({}, None),
  ],
)
def test_the_body_part_is_a_code(elements, part):
  assert annotations.body_part(header(**elements)) == part


@pytest.mark.parametrize(("code", "part"), [("69536005", "HEAD"), ("51185008", None)])
def test_the_anatomic_region_tells_a_head(code, part):
  region = Dataset()
  region.CodeValue = code
  assert annotations.body_part(header(AnatomicRegionSequence=[region])) == part


def test_a_crop_answers_the_doubt_but_not_what_the_file_says():
  assert annotations.warnings(header(Modality="US"), cropped=True) == []
  said = annotations.warnings(header(Modality="US", BurnedInAnnotation="YES"), cropped=True)
  assert "look whether the part shown still has it" in said[0]


def test_traces_and_bars_are_left_out_of_the_region():
  """A duplex picture: tissue above, a Doppler trace below, an M-mode, a colour bar at the side."""
  regions = [
    region(2, 3, 9, 19),
    region(4, 5, 10, 12, data=2),
    region(12, 0, 19, 29, space=3, data=3),
    region(12, 0, 19, 29, space=2),
    region(0, 25, 19, 29, data=14),
  ]
  dataset = header(SequenceOfUltrasoundRegions=regions)
  assert annotations.ultrasound_region(dataset) == (2, 3, 11, 20)


def test_a_region_that_leaves_the_picture_is_an_error():
  for corners in ((0, 0, 21, 29), (0, 0, 19, 31), (5, 5, 4, 9)):
    dataset = header(SequenceOfUltrasoundRegions=[region(1, 1, 8, 8), region(*corners)])
    with pytest.raises(BadRecord, match="the picture has 20 x 30") as caught:
      annotations.ultrasound_region(dataset)
    assert caught.value.kind == "geometry"
  # One more than the last row and column is how some scanners write the end.
  dataset = header(SequenceOfUltrasoundRegions=[region(1, 2, 20, 30)])
  assert annotations.ultrasound_region(dataset) == (1, 2, 20, 30)


def test_no_region_of_tissue_is_an_error():
  for regions in ([], [region(1, 1, 8, 8, space=3)], [region(1, 1, 8, 8, data=13)]):
    with pytest.raises(BadRecord, match="no 2D ultrasound region is declared"):
      annotations.ultrasound_region(header(SequenceOfUltrasoundRegions=regions))


@pytest.mark.parametrize("name", ["examples_palette.dcm", "examples_ybr_color.dcm"])
def test_regions_of_a_larger_picture_do_not_crop_this_one(name):
  """pydicom made both files smaller and left the regions as they were."""
  with pytest.raises(BadRecord, match="an ultrasound region of rows"):
    read(get_testdata_file(name), Options(crop="ultrasound_region"))
