"""Pixels of placed slices: decoded file by file, in modality units, into one array."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.dicom import enhanced
from hulu_jax.media.dicom import mosaic
from hulu_jax.media.dicom import pixels
from hulu_jax.media.dicom import values as values_lib
from hulu_jax.media.dicom.marks import Frame
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.intensity import Look

Headers = Mapping[Path, Dataset]


@dataclasses.dataclass
class Loaded:
  """values: [slice, row, column] in the units of `look`.  padding: bool like them, None where all
  was measured.  dataset: the whole header of the middle slice, by which all are shown."""

  values: np.ndarray
  padding: np.ndarray | None
  look: Look
  dataset: Dataset


def load(frames: Sequence[Frame], headers: Headers) -> Loaded:
  """All slices, in the order given.  Raises BadRecord for colours or for units that differ.

  Besides the result one slice is held at a time.  Whole numbers stay int16 where they fit.
  """
  places: dict[Path, list[int]] = {}
  for k, frame in enumerate(frames):
    places.setdefault(frame.path, []).append(k)
  out: Loaded | None = None
  for path, own in places.items():
    pictures = stored([frames[k] for k in own], headers[path])
    for k, (picture, dataset, scale) in zip(own, pictures, strict=True):
      if picture.ndim != 2:
        raise BadRecord("format", "a colour slice in a series; expected grey slices")
      values, padding = values_lib.measured(picture, dataset, scale)
      look = values_lib.look(dataset, scale)
      values = _narrow(values)
      if out is None:
        room = np.empty((len(frames), *values.shape), values.dtype)
        out = Loaded(room, None, look, dataset)
      _put(out, k, values, padding)
      if (look.units, look.inverted) != (out.look.units, out.look.inverted):
        found = f"{out.look.units or 'unknown'} and {look.units or 'unknown'}"
        raise BadRecord("format", f"slices of different units ({found}) or inversion in one volume")
      if k == len(frames) // 2:
        out.look, out.dataset = look, dataset
  if out is None:
    raise BadRecord("geometry", "a volume without slices")
  return out


def stored(
  frames: Sequence[Frame], header: Dataset
) -> Iterator[tuple[np.ndarray, Dataset, Dataset]]:
  """Of slices of one file: [H, W] as stored, the file's header, and what scales the slice."""
  path = frames[0].path
  if mosaic.is_mosaic(header):
    (picture,), dataset = pixels.decode(path, [0])
    tiles = mosaic.tiles(picture, mosaic.count(header))
    yield from ((tiles[frame.index], dataset, dataset) for frame in frames)
    return
  in_groups = enhanced.is_volume(header)
  pictures = pixels.iterate(path, [frame.index for frame in frames])
  for frame, (picture, dataset) in zip(frames, pictures, strict=True):
    yield picture, dataset, enhanced.scale(dataset, frame.index) if in_groups else dataset


def _put(out: Loaded, k: int, values: np.ndarray, padding: np.ndarray | None) -> None:
  if values.shape != out.values.shape[1:]:
    raise BadRecord("geometry", "slices of different sizes; expected one")
  wide = _wider(out.values.dtype, values.dtype)
  if wide != out.values.dtype:
    out.values = out.values.astype(wide)
  out.values[k] = values
  if padding is not None:
    if out.padding is None:
      out.padding = np.zeros(out.values.shape, bool)
    out.padding[k] = padding


def _narrow(values: np.ndarray) -> np.ndarray:
  if values.dtype.kind not in "iu" or values.dtype == np.int16:
    return values
  fits = values.min() >= -(2**15) and values.max() < 2**15
  return values.astype(np.int16) if fits else values


def _wider(first: np.dtype, second: np.dtype) -> np.dtype:
  """One that holds both; float32 is wide enough for any slice that is scaled by a fraction."""
  joined = np.result_type(first, second)
  return np.dtype(np.float32) if joined == np.float64 and np.float32 in (first, second) else joined
