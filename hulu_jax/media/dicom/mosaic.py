"""Siemens mosaics: the slices of a volume tiled into one picture, taken apart and placed."""

import dataclasses
import math
from pathlib import Path
import warnings

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import marks
from hulu_jax.media.dicom.stack import Plane
from hulu_jax.media.dicom.stack import plane
from hulu_jax.media.errors import BadRecord

with warnings.catch_warnings():
  warnings.simplefilter("ignore")  # nibabel warns of its DICOM readers as soon as they are imported
  from nibabel.nicom import csareader
  from nibabel.nicom import dicomwrappers


def is_mosaic(dataset: Dataset) -> bool:
  """True if the file says that its picture is tiled from slices."""
  return "MOSAIC" in marks.strings(dataset, "ImageType")


def frames(path: Path, dataset: Dataset) -> list[marks.Frame]:
  """The slices of one mosaic, in the order they are tiled in.

  dataset: with the private elements.  Raises BadRecord if these do not say how many slices there
  are and in which direction they follow each other.
  """
  number = count(dataset)
  wrapper = dicomwrappers.MosaicWrapper(dataset, n_mosaic=number)
  _, rows, columns = header.shape(dataset)
  n = _side(number)
  if rows % n or columns % n:
    raise BadRecord("geometry", f"a mosaic of {rows} x {columns} for {number} slices")
  first = plane(dataset, dataset, dataset)
  # LPS, of (row, column, slice): the file's own position is that of a slice as large as the mosaic.
  affine = wrapper.affine
  own = marks.of_slice(dataset)
  if own.b_value is None:
    csa = csareader.get_csa_header(dataset)
    own = dataclasses.replace(own, b_value=csareader.get_b_value(csa))
  return [
    marks.Frame(
      path,
      k,
      (rows // n, columns // n),
      Plane(affine[:3] @ [0, 0, k, 1], first.along_row, first.along_column, first.spacing),
      own,
    )
    for k in range(number)
  ]


def count(dataset: Dataset) -> int:
  """How many slices a mosaic holds; dataset: with the private elements."""
  csa = csareader.get_csa_header(dataset)
  if not csareader.is_mosaic(csa):
    raise BadRecord(
      "geometry", "a mosaic without Siemens' private header; expected it, or one file per slice"
    )
  return int(csareader.get_n_mosaic(csa))


def tiles(picture: np.ndarray, number: int) -> np.ndarray:
  """[H, W] -> [number, H / n, W / n]: n x n tiles row by row, of which the last may be empty."""
  n = _side(number)
  rows, columns = picture.shape[0] // n, picture.shape[1] // n
  return picture.reshape(n, rows, n, columns).swapaxes(1, 2).reshape(-1, rows, columns)[:number]


def _side(number: int) -> int:
  """Tiles along each side of the square."""
  return math.isqrt(number - 1) + 1
