"""Where voxels lie in the patient, and how a radiologist expects to see them."""

from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import PLANES

# Beyond this angle no plane and no side is named.  Head scans tilted to the orbitomeatal line and
# CT gantries, which tilt up to 30 degrees, are still called axial; double-oblique planes (cardiac
# short axis, scapular Y; about 45) are not.  At 30 degrees one step along an axis already moves
# half a step across it, so "left" would be half a lie.
MAX_OBLIQUE_DEGREES = 30.0
# How much coarser one axis must be than both others to be taken for the one across the slices.
THICKER = 1.5

# World axes (R, A, S) as slice, row, column.  Where all three indices grow to the left, posterior
# and inferior, this is the radiological display (DICOM PS3.17 annex on patient orientation).
_LAYOUT = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
_NORMAL = ("sagittal", "coronal", "axial")
_POSITIVE, _NEGATIVE = "RAS", "LPI"
CODES = {"axial": "IPL", "coronal": "PIL", "sagittal": "LIP"}


@dataclasses.dataclass(frozen=True)
class View:
  """How stored voxels are laid out as [slice, row, column].

  axes: the stored axes in that order.  flips: which of the three are then reversed.
  affine: float64 [4, 4] of (slice, row, column, 1) to RAS millimetres.  plane, codes: None where
  the volume lies too obliquely.  nearest, degrees: the plane closest to the slices, and the angle
  between the two.
  """

  axes: tuple[int, ...]
  flips: tuple[int, ...]
  affine: np.ndarray
  plane: str | None
  codes: str | None
  nearest: str
  degrees: float

  def __call__(self, stored: np.ndarray) -> np.ndarray:
    """[i, j, k] as stored -> [slice, row, column], a view."""
    return np.flip(stored.transpose(self.axes), self.flips)


def steps_mm(affine: np.ndarray) -> tuple[float, float, float]:
  """Millimetres between voxels along the three indices of `affine`."""
  first, second, third = np.linalg.norm(affine[:3, :3], axis=0)
  return float(first), float(second), float(third)


def nearest_axes(
  affine: np.ndarray, pinned: tuple[int, int] | None = None
) -> tuple[tuple[int, ...], np.ndarray]:
  """For each world axis (R, A, S): the voxel axis closest to it, and the sign along it.

  Each voxel axis is used once: of the six assignments, the one with the largest sum of absolute
  direction cosines.  pinned: a world axis and the voxel axis it must get (slices as acquired, in a
  volume so oblique that another assignment could win).  Raises BadRecord if the affine is singular
  or not finite.
  """
  cosines = _cosines(affine)
  orders = [
    p for p in itertools.permutations(range(3)) if pinned is None or p[pinned[0]] == pinned[1]
  ]
  order = max(orders, key=lambda p: sum(abs(cosines[w, p[w]]) for w in range(3)))
  return order, np.where([cosines[w, order[w]] >= 0 for w in range(3)], 1.0, -1.0)


def view(
  shape: Sequence[int], affine: np.ndarray, plane: str, pinned: tuple[int, int] | None = None
) -> View:
  """Voxels of `shape` as they are shown in `plane`; affine: of (i, j, k, 1) to RAS millimetres.

  Axial: anterior up, the patient's right on the viewer's left, head to feet.  Coronal: superior up,
  right on the left, front to back.  Sagittal: superior up, anterior on the left, right to left.
  """
  order, signs = nearest_axes(affine, pinned)
  world = _LAYOUT[plane]
  axes = tuple(order[w] for w in world)
  matrix = np.zeros((4, 4))
  matrix[:, :3] = affine[:, list(axes)]
  matrix[:, 3] = affine[:, 3]
  flips = tuple(place for place, w in enumerate(world) if signs[w] > 0)
  for place in flips:
    matrix[:3, 3] += matrix[:3, place] * (shape[axes[place]] - 1)
    matrix[:3, place] *= -1
  nearest, degrees = obliquity(matrix)
  named = nearest == plane and degrees <= MAX_OBLIQUE_DEGREES
  sided = named and most_turned(matrix, CODES[plane]) <= MAX_OBLIQUE_DEGREES
  return View(
    axes,
    flips,
    matrix,
    plane if named else None,
    CODES[plane] if sided else None,
    nearest,
    degrees,
  )


def obliquity(affine: np.ndarray) -> tuple[str, float]:
  """The plane closest to the slices of (slice, row, column), and the degrees between the normals.

  The normal is that of the shown pictures, not the direction in which slices follow each other: a
  gantry tilt shears the one against the other.
  """
  cosines = _cosines(affine)
  normal = np.cross(cosines[:, 1], cosines[:, 2])
  normal /= np.linalg.norm(normal)
  world = int(np.argmax(np.abs(normal)))
  return _NORMAL[world], _degrees(abs(normal[world]))


def most_turned(affine: np.ndarray, codes: str) -> float:
  """The largest angle, in degrees, between an index of `affine` and where its letter points to."""
  cosines = _cosines(affine)
  named = (
    cosines[_POSITIVE.find(c), k] if c in _POSITIVE else -cosines[_NEGATIVE.find(c), k]
    for k, c in enumerate(codes)
  )
  return max(_degrees(c) for c in named)


def codes_of(affine: np.ndarray) -> str | None:
  """Where the three indices of `affine` point to, as letters; None if one lies too obliquely."""
  order, signs = nearest_axes(affine)
  letters = [""] * 3
  for world, axis in enumerate(order):
    letters[axis] = (_POSITIVE if signs[world] > 0 else _NEGATIVE)[world]
  codes = "".join(letters)
  return codes if most_turned(affine, codes) <= MAX_OBLIQUE_DEGREES else None


def plane_of(shape: Sequence[int], affine: np.ndarray) -> str:
  """In which plane a volume was probably acquired, where its file does not say.

  Across the only axis that has one voxel (a single slice), else across an axis at least `THICKER`
  times coarser than both others, else axial.
  """
  order, _ = nearest_axes(affine)
  lengths = np.linalg.norm(affine[:3, :3], axis=0)[list(order)]
  single = [w for w in range(3) if shape[order[w]] == 1]
  if len(single) == 1:
    return _NORMAL[single[0]]
  coarsest = int(np.argmax(lengths))
  thick = lengths[coarsest] >= THICKER * np.delete(lengths, coarsest).max()
  return _NORMAL[coarsest] if thick else "axial"


def pin(plane: str) -> tuple[int, int]:
  """For `nearest_axes`: slices acquired in `plane` are stored along the third axis."""
  return _NORMAL.index(plane), 2


def check_plane(plane: str | None) -> None:
  """Raises BadRecord for a plane that does not exist."""
  if plane is not None and plane not in PLANES:
    raise BadRecord("options", f"plane {plane!r}; expected one of {', '.join(PLANES)}")


def regridded(affine: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
  """The affine of a new grid whose index n lies at `scale * n + offset` of the old one."""
  change = np.diag([*scale, 1.0])
  change[:3, 3] = offset
  return affine @ change


def _cosines(affine: np.ndarray) -> np.ndarray:
  """[world, index] direction cosines of the columns."""
  steps = affine[:3, :3]
  lengths = np.linalg.norm(steps, axis=0)
  if not (np.all(np.isfinite(affine)) and np.all(lengths > 0)):
    raise BadRecord("geometry", "an affine without finite, non-zero steps; expected a 3D volume's")
  cosines = steps / lengths
  if abs(np.linalg.det(cosines)) < 1e-3:
    raise BadRecord("geometry", "an affine whose axes lie in one plane; expected a 3D volume's")
  return cosines


def _degrees(cosine: float) -> float:
  """To a thousandth: a tilt of exactly 30 degrees must not be 30.0000001."""
  return round(float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), 3)
