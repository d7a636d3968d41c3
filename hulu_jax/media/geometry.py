"""Where voxels lie in the patient, and how a radiologist expects to see them."""

import itertools

import numpy as np

from hulu_jax.media.errors import BadRecord

# Transposes of a volume whose indices grow to right, anterior, superior; after it, flipping all
# three axes gives the display convention (DICOM PS3.17 annex on patient orientation; radiological).
_TRANSPOSE = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
CODES = {"axial": "IPL", "coronal": "PIL", "sagittal": "LIP"}
_NORMAL = ("sagittal", "coronal", "axial")


def nearest_axes(affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
  """For each world axis (R, A, S): the voxel axis closest to it, and the sign along it.

  Each voxel axis is used once: of the six assignments, the one with the largest sum of absolute
  direction cosines.  Raises BadRecord if the affine is singular or not finite.
  """
  steps = affine[:3, :3]
  lengths = np.linalg.norm(steps, axis=0)
  if not (np.all(np.isfinite(affine)) and np.all(lengths > 0)):
    raise BadRecord("geometry", "an affine without finite, non-zero steps")
  cosines = steps / lengths
  if abs(np.linalg.det(cosines)) < 1e-3:
    raise BadRecord("geometry", "an affine whose axes lie in one plane")
  order = max(
    itertools.permutations(range(3)), key=lambda p: sum(abs(cosines[w, p[w]]) for w in range(3))
  )
  return order, np.sign([cosines[w, order[w]] for w in range(3)])


def display(values: np.ndarray, affine: np.ndarray, plane: str) -> tuple[np.ndarray, np.ndarray]:
  """`values` as [slice, row, column] (a view) in `plane`, and the affine of those indices.

  Axial: anterior up, the patient's right on the viewer's left, head to feet.  Coronal: superior up,
  right on the left, front to back.  Sagittal: superior up, anterior on the left, right to left.
  """
  order, signs = nearest_axes(affine)
  world = _TRANSPOSE[plane]
  axes = [order[w] for w in world]
  frames = values.transpose(axes)
  matrix = np.zeros((4, 4))
  matrix[:, :3] = affine[:, axes]
  matrix[:, 3] = affine[:, 3]
  for axis, w in enumerate(world):
    if signs[w] > 0:  # display indices all grow to the left, posterior and inferior
      frames = np.flip(frames, axis)
      matrix[:3, 3] += matrix[:3, axis] * (frames.shape[axis] - 1)
      matrix[:3, axis] *= -1
  return frames, matrix


def plane_of_spacing(affine: np.ndarray, notes: list[str]) -> str:
  """Axial, unless one axis is at least 1.5 times coarser than both others: then across that one."""
  order, _ = nearest_axes(affine)
  lengths = np.linalg.norm(affine[:3, :3], axis=0)[list(order)]
  coarsest = int(np.argmax(lengths))
  if lengths[coarsest] < 1.5 * np.delete(lengths, coarsest).max() or coarsest == 2:
    return "axial"
  notes.append(f"shown in the {_NORMAL[coarsest]} plane: its slices are the thickest")
  return _NORMAL[coarsest]
