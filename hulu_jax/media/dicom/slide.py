"""A whole-slide image: the asked region of one level of its pyramid, from the tiles it touches."""

import dataclasses
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media import crop
from hulu_jax.media.dicom import annotations
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import pixels
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.intensity import Look
from hulu_jax.media.intensity import shading
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

_MOST_TILES = 1_000_000
_PER_FRAME = "PerFrameFunctionalGroupsSequence"
_SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
# ImageType value 3 (PS3.3 C.8.12.4.1.1).
_FLAVORS, _REFUSED_FLAVORS = ("VOLUME", "THUMBNAIL"), ("LABEL", "OVERVIEW", "LOCALIZER")
_NOT_FOR_SLIDES = (
  "window",
  "plane",
  "time_index",
  "phase",
  "frames",
  "fps",
  "slice_mm",
  "resample_mm",
)
_WHITE, _BLACK = 255, 0

Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Level:
  """Where the tiles of one level lie.

  size: rows and columns of the level.  tile: of a tile.  frames: int64 [n] numbers of the frames of
  one focal plane and optical path.  corners: int64 [n, 2] row and column of each one's first pixel.
  """

  size: tuple[int, int]
  tile: tuple[int, int]
  frames: np.ndarray
  corners: np.ndarray


def is_slide(dataset: Dataset) -> bool:
  """True for VL Whole Slide Microscopy: one large picture cut into tiles."""
  return str(dataset.get("SOPClassUID") or "") == _SLIDE_CLASS


def read(path: Path, dataset: Dataset, options: Options, limits: Limits) -> Media:
  """`options.region` of the level in the file, else all of it if the limits allow.

  Both presets show a colour slide as it is stored.  Raises BadRecord for labels and overviews, for
  a region that leaves the level, and for tiles that do not add up to a level.
  """
  _check_options(options)
  check_flavor(dataset)
  notes = annotations.warnings(dataset, cropped=False)
  level = describe(dataset, notes)
  limits.check(1, *level.tile)
  box = _box(level, options.region, limits)
  frames, stored_bits = _paste(path, dataset, level, box, notes)
  value_range = None
  if frames.ndim == 3:
    look = Look("SM", full=(0, 255) if stored_bits <= 8 else None)
    shade = shading(frames, look, options, notes)
    frames, value_range = shade(frames), shade.value_range
  notes.append(f"rows {box[0]} to {box[2]}, columns {box[1]} to {box[3]} of {_size(level)} pixels")
  return Media(
    kind="image",
    frames=crop.cut(frames, crop.box_only(options.crop)),
    modality="SM",
    spacing_mm=_spacing(dataset, level),
    value_range=value_range,
    notes=tuple(notes),
  )


def _check_options(options: Options) -> None:
  for name in _NOT_FOR_SLIDES:
    if dataclasses.asdict(options)[name] is not None:
      raise BadRecord("options", f"{name} does not apply to a whole slide")


def check_flavor(dataset: Dataset) -> None:
  """Raises BadRecord for an image in which the slide's label can be read."""
  types = dataset.get("ImageType") or []
  flavor = "none" if isinstance(types, str) or len(types) < 3 else str(types[2])
  if flavor not in _FLAVORS:
    known = flavor if flavor in (*_REFUSED_FLAVORS, "none") else "another"
    expected = f"{' or '.join(_FLAVORS)}, since the label on a slide carries names"
    raise BadRecord("format", f"a slide image of flavor {known}; expected {expected}")
  if header.text(dataset, "SpecimenLabelInImage") == "YES":
    raise BadRecord("format", "a slide image that shows the slide's label, which carries names")


def describe(dataset: Dataset, notes: list[str]) -> Level:
  """The tiles of the first focal plane and optical path; adds to `notes` where there are more."""
  count, *sides = header.shape(dataset)
  tile = (sides[0], sides[1])
  size = (
    int(dataset.get("TotalPixelMatrixRows") or 0),
    int(dataset.get("TotalPixelMatrixColumns") or 0),
  )
  if min(*size, *tile, count) < 1:
    raise BadRecord("geometry", f"a level of {size[0]} x {size[1]} in tiles {tile[0]} x {tile[1]}")
  if count > _MOST_TILES:
    raise BadRecord("limit", f"{count:,} tiles; the limit is {_MOST_TILES:,}")
  if int(dataset.get("InConcatenationTotalNumber") or 1) > 1:
    raise BadRecord("format", "one of several files that hold a level together; expected one file")
  organized = header.text(dataset, "DimensionOrganizationType")
  if organized == "TILED_FULL" or (organized is None and not dataset.get(_PER_FRAME)):
    frames, corners = _full(dataset, count, size, tile, notes)
  else:
    frames, corners = _sparse(dataset, count, notes)
  return Level(size, tile, frames, corners)


def _full(
  dataset: Dataset, count: int, size: tuple[int, int], tile: tuple[int, int], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
  """TILED_FULL: columns vary fastest, then rows, focal planes, optical paths (C.7.6.17.3)."""
  rows, columns = -(-size[0] // tile[0]), -(-size[1] // tile[1])
  planes = int(dataset.get("TotalPixelMatrixFocalPlanes") or 1)
  paths = int(dataset.get("NumberOfOpticalPaths") or len(dataset.get("OpticalPathSequence") or [1]))
  if count != rows * columns * planes * paths:
    found = f"{count} tiles where {rows} x {columns} tiles, {planes} focal planes and"
    raise BadRecord("geometry", f"{found} {paths} optical paths make {rows * columns}")
  _say_first(planes, "focal planes", notes)
  _say_first(paths, "optical paths", notes)
  grid = np.indices((rows, columns)).reshape(2, -1).T
  return np.arange(rows * columns), grid * np.array(tile)


def _sparse(dataset: Dataset, count: int, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
  """TILED_SPARSE: each frame says where it lies (PlanePositionSlideSequence, counted from 1)."""
  groups = dataset.get(_PER_FRAME) or []
  if len(groups) != count:
    raise BadRecord("geometry", f"places of {len(groups)} tiles for {count} tiles")
  corners, depths, paths = np.empty((count, 2), np.int64), [], []
  for k, group in enumerate(groups):
    place = group.get("PlanePositionSlideSequence")
    if not place:
      raise BadRecord("geometry", "a tile of a slide that does not say where it lies")
    corners[k, 0] = int(place[0].RowPositionInTotalImagePixelMatrix) - 1
    corners[k, 1] = int(place[0].ColumnPositionInTotalImagePixelMatrix) - 1
    depths.append(float(place[0].get("ZOffsetInSlideCoordinateSystem") or 0))
    used = group.get("OpticalPathIdentificationSequence")
    paths.append(str(used[0].get("OpticalPathIdentifier")) if used else "")
  _say_first(len(set(depths)), "focal planes", notes)
  _say_first(len(set(paths)), "optical paths", notes)
  first = [k for k in range(count) if depths[k] == depths[0] and paths[k] == paths[0]]
  return np.array(first), corners[first]


def _say_first(count: int, what: str, notes: list[str]) -> None:
  if count > 1:
    notes.append(f"the first of {count} {what} is shown")


def _box(level: Level, region: Box | None, limits: Limits) -> Box:
  """The region to show; BadRecord if it leaves the level or is too large."""
  height, width = level.size
  top, left, bottom, right = region or (0, 0, height, width)
  if not (0 <= top < bottom <= height and 0 <= left < right <= width):
    found = f"rows {top} to {bottom}, columns {left} to {right}"
    raise BadRecord("options", f"a region of {found}; the level has {_size(level)} pixels")
  if region is None and height * width > limits.max_pixels:
    raise BadRecord(
      "limit",
      f"a level of {_size(level)} pixels; the limit is {limits.max_pixels:,}: give "
      "region=(top, left, bottom, right) in pixels of the level, or take a smaller level",
    )
  limits.check(1, bottom - top, right - left)
  return top, left, bottom, right


def _size(level: Level) -> str:
  return f"{level.size[0]:,} x {level.size[1]:,}"


def _paste(
  path: Path, dataset: Dataset, level: Level, box: Box, notes: list[str]
) -> tuple[np.ndarray, int]:
  """[1, H, W] or uint8 RGB [1, H, W, 3] of the box, and bits stored; only its tiles are decoded."""
  start, end = np.array(box[:2]), np.array(box[2:])
  touched = ((level.corners < end) & (level.corners + level.tile > start)).all(axis=1)
  if not touched.any():
    raise BadRecord("options", "a region without any tile; expected one that shows tissue")
  corners = level.corners[touched]
  wanted = [int(k) for k in level.frames[touched]]
  out, empty = np.empty(0), np.ones(tuple(end - start), bool)
  for corner, (tile, _) in zip(corners, pixels.iterate(path, wanted), strict=True):
    if out.size == 0:
      background = _WHITE if tile.ndim == 3 else _BLACK
      out = np.full((*empty.shape, *tile.shape[2:]), background, tile.dtype)
    first, last = np.maximum(corner, start), np.minimum(corner + level.tile, end)
    there = tuple(slice(a, b) for a, b in zip(first - start, last - start, strict=True))
    here = tuple(slice(a, b) for a, b in zip(first - corner, last - corner, strict=True))
    out[there], empty[there] = tile[here], False
  if empty.any():
    shade = "white" if out.ndim == 3 else "black"
    notes.append(f"{empty.mean():.0%} of the region has no tile in the file and is {shade}")
  return out[None], int(dataset.get("BitsStored") or 8)


def _spacing(dataset: Dataset, level: Level) -> tuple[float, float, float] | None:
  """Millimetres between rows and columns: PixelMeasuresSequence, else the level's imaged size."""
  shared = dataset.get("SharedFunctionalGroupsSequence")
  measures = shared[0].get("PixelMeasuresSequence") if shared else None
  spacing = measures[0].get("PixelSpacing") if measures else None
  if spacing is not None:
    numbers = [float(v) for v in spacing]
  else:
    imaged = dataset.get("ImagedVolumeHeight"), dataset.get("ImagedVolumeWidth")
    numbers = [float(v or 0) / n for v, n in zip(imaged, level.size, strict=True)]
  if len(numbers) != 2 or not np.all(np.isfinite(numbers)) or min(numbers) <= 0:
    return None
  return 0.0, numbers[0], numbers[1]
