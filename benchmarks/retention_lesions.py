"""Spheres of known contrast, put into the voxels of a real scan before a window is applied.

A lesion is a weight of 0 to 1 for every voxel, times a contrast in the units of the scan.  The
weight is 1 up to `EDGE_MM / 2` inside the stated radius, 0 from `EDGE_MM / 2` outside, linear
between, so that it is one half at the stated diameter; it is averaged over `FINE`**3 points of each
voxel, as a scanner averages (partial volume).  Noise and texture below the lesion stay.
"""

from collections.abc import Sequence
import itertools
from typing import NamedTuple

import numpy as np

EDGE_MM = 2.0
FINE = 3
# Voxels of an organ that are tried as centres before it is said that no lesion fits.
TRIES = 4000


class Sphere(NamedTuple):
  """centre: a voxel (i, j, k); sign: +1 is brighter than what surrounds it, -1 darker."""

  centre: tuple[int, int, int]
  diameter_mm: float
  sign: int


Box = tuple[slice, slice, slice]


def weights(
  sphere: Sphere, shape: Sequence[int], steps_mm: Sequence[float]
) -> tuple[Box, np.ndarray]:
  """The box of voxels that a sphere reaches, and float64 weights in it.

  shape, steps_mm: of the volume, and between its voxels along i, j, k; the axes are orthogonal.
  """
  reach = sphere.diameter_mm / 2 + EDGE_MM / 2
  box, squares = [], []
  fine = (np.arange(FINE) - (FINE - 1) / 2) / FINE
  for centre, count, step in zip(sphere.centre, shape, steps_mm, strict=True):
    most = int(np.ceil(reach / step + 0.5))
    taken = np.arange(max(centre - most, 0), min(centre + most + 1, count))
    box.append(slice(int(taken[0]), int(taken[-1]) + 1))
    squares.append((((taken - centre)[:, None] + fine) * step) ** 2)
  i, j, k = squares
  distance = np.sqrt(
    i[:, None, None, :, None, None] + j[:, None, None, :, None] + k[:, None, None, :]
  )
  fine_weights = np.clip((reach - distance) / EDGE_MM, 0, 1)
  return (box[0], box[1], box[2]), fine_weights.mean(axis=(3, 4, 5))


def weight_map(
  spheres: Sequence[Sphere], shape: Sequence[int], steps_mm: Sequence[float]
) -> np.ndarray:
  """uint8 [i, j, k]: the largest weight that any sphere has in a voxel, times 255."""
  out = np.zeros(shape, np.uint8)
  for sphere in spheres:
    box, own = weights(sphere, shape, steps_mm)
    out[box] = np.maximum(out[box], np.rint(255 * own).astype(np.uint8))
  return out


def insert(
  values: np.ndarray, spheres: Sequence[Sphere], contrast: float, steps_mm: Sequence[float]
) -> np.ndarray:
  """A copy of `values` with sign * contrast * weight added, rounded where they are integers.

  Raises ValueError for integers that cannot hold the sum.
  """
  out = values.copy()
  for sphere in spheres:
    box, own = weights(sphere, values.shape, steps_mm)
    added = values[box] + sphere.sign * contrast * own
    if values.dtype.kind in "iu":
      info = np.iinfo(values.dtype)
      if added.min() < info.min or added.max() > info.max:
        raise ValueError(f"{added.min():g} to {added.max():g} do not fit {values.dtype}")
      added = np.rint(added)
    out[box] = added
  return out


def places(
  mask: np.ndarray,
  steps_mm: Sequence[float],
  diameter_mm: float,
  count: int,
  seed: int,
  across: int,
) -> list[Sphere]:
  """At most `count` seeded spheres that fit into an organ, by turns darker and brighter.

  mask: bool [i, j, k].  A sphere fits if every voxel with a weight of one half or more is in the
  organ, and no voxel it reaches lies in the first or last two slices along axis `across`: its entry
  and its exit can be seen.  Spheres may overlap; they are measured one by one.
  """
  found: list[Sphere] = []
  inside = np.argwhere(mask)
  order = np.random.default_rng(seed).permutation(len(inside))[:TRIES]
  for centre in inside[order].tolist():
    if len(found) == count:
      break
    sphere = Sphere(tuple(centre), diameter_mm, 1 if len(found) % 2 else -1)
    if _fits(sphere, mask, steps_mm, across):
      found.append(sphere)
  return found


def _fits(sphere: Sphere, mask: np.ndarray, steps_mm: Sequence[float], across: int) -> bool:
  for axis, step in enumerate(steps_mm):  # six of its voxels, before all are weighed
    line = mask[tuple(slice(None) if a == axis else c for a, c in enumerate(sphere.centre))]
    far = max(int(sphere.diameter_mm / 2 / step) - 1, 0)
    ends = sphere.centre[axis] - far, sphere.centre[axis] + far
    if ends[0] < 0 or ends[1] >= len(line) or not (line[ends[0]] and line[ends[1]]):
      return False
  box, own = weights(sphere, mask.shape, steps_mm)
  reached = np.flatnonzero(own.any(axis=tuple(a for a in range(3) if a != across)))
  first, last = reached[[0, -1]] + box[across].start
  if first < 2 or last > mask.shape[across] - 3:
    return False
  return bool(mask[box][own >= 0.5].all())


def corners(sphere: Sphere, steps_mm: Sequence[float]) -> np.ndarray:
  """float64 [8, 4]: (i, j, k, 1) of a box around all that a sphere reaches."""
  reach = (sphere.diameter_mm + EDGE_MM) / 2 / np.asarray(steps_mm) + 0.5
  signs = np.array(list(itertools.product((-1, 1), repeat=3)))
  return np.c_[np.asarray(sphere.centre) + signs * reach, np.ones(8)]
