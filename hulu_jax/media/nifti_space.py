"""What a NIfTI header says about where its voxels lie, and what it says badly."""

from collections.abc import Sequence
from typing import NamedTuple

import nibabel
import numpy as np

from hulu_jax.media import geometry
from hulu_jax.media.errors import BadRecord

# Low three bits of xyzt_units (nifti1.h): millimetres in one unit.
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}
_NO_UNIT = 0
# Millimetres and voxels by which two descriptions of one place may differ: rounding to float32.
_SAME_MM, _SAME_VOXELS = 0.1, 0.1
_SAME_STEP = 0.01  # of a step
# A unit quaternion's vector part may exceed length 1 by float32 rounding.
_QUATERNION_SLACK = 1e-5


class Space(NamedTuple):
  """affine: float64 [4, 4] of (i, j, k, 1) to RAS millimetres, None if unknown.  steps: millimetres
  along i, j, k, None if unknown.  source: "sform", "qform" or "none".  notes: see `Media`."""

  affine: np.ndarray | None
  steps: tuple[float, float, float] | None
  source: str
  notes: tuple[str, ...]


def space(header: nibabel.Nifti1Header, shape: Sequence[int]) -> Space:
  """Where the voxels of a volume of `shape` [i, j, k] lie: by sform, else qform, else unknown.

  Raises BadRecord where the one that the header tells to use cannot be true.
  """
  notes: list[str] = []
  unit = _unit(header, notes)
  sform = _sform(header, shape, unit) if int(header["sform_code"]) > 0 else None
  qform = None
  if int(header["qform_code"]) > 0:
    problem = _problem(header, shape)
    if problem is None:
      qform = _qform(header, shape, unit)
    elif sform is None:
      raise BadRecord("geometry", f"{problem}; a qform is all that places this volume")
    else:
      notes.append(f"the qform is not valid ({problem}): the sform was used")
  if sform is None and qform is None:
    return Space(None, _lone_steps(header, shape, unit, notes), "none", tuple(notes))
  affine = qform if sform is None else sform
  assert affine is not None
  codes = geometry.codes_of(affine)  # BadRecord for an affine that places nothing
  if sform is not None and qform is not None:
    _compare(sform, qform, shape, notes)
  if sform is not None:
    _compare_steps(geometry.steps_mm(affine), _pixdim(header) * unit, shape, notes)
  if codes is not None and np.linalg.det(affine[:3, :3]) < 0:
    notes.append(f"stored left-handed ({codes}): sides were taken from the affine")
  return Space(affine, geometry.steps_mm(affine), "qform" if sform is None else "sform", (*notes,))


def _unit(header: nibabel.Nifti1Header, notes: list[str]) -> float:
  code = int(header["xyzt_units"]) & 7
  if code in _MILLIMETRES:
    scale = _MILLIMETRES[code]
    if scale != 1:
      name = "metres" if scale > 1 else "micrometres"
      notes.append(f"the header counts in {name}: turned into millimetres")
    return scale
  found = "no unit of length" if code == _NO_UNIT else f"an unknown unit of length ({code})"
  notes.append(f"the header names {found}: millimetres were assumed")
  return 1.0


def _sform(header: nibabel.Nifti1Header, shape: Sequence[int], unit: float) -> np.ndarray:
  affine = header.get_sform().astype(np.float64)
  affine[:3] *= unit
  return _with_depth(affine, shape)


def _with_depth(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """A single slice may come without a step across it: one millimetre, which no picture shows."""
  empty = [k for k in range(3) if shape[k] == 1 and not affine[:3, k].any()]
  if len(empty) == 1:
    first, second = (affine[:3, k] for k in range(3) if k != empty[0])
    normal = np.cross(first, second) * (-1 if empty[0] == 1 else 1)
    length = np.linalg.norm(normal)
    if np.isfinite(length) and length > 0:
      affine[:3, empty[0]] = normal / length
  return affine


def _pixdim(header: nibabel.Nifti1Header) -> np.ndarray:
  return np.array(header["pixdim"][1:4], np.float64)


def _problem(header: nibabel.Nifti1Header, shape: Sequence[int]) -> str | None:
  """Why the qform cannot be used, None if it can."""
  for n, step in zip(shape, _pixdim(header), strict=True):
    if not (np.isfinite(step) and (step > 0 or (step == 0 and n == 1))):
      return f"a pixdim of {step:g}; expected more than 0"
  quaternion = [float(header[f"quatern_{c}"]) for c in "bcd"]
  offset = [float(header[f"qoffset_{c}"]) for c in "xyz"]
  if not np.isfinite([*quaternion, *offset]).all():
    return "a quaternion or offset that is not finite"
  if sum(q * q for q in quaternion) > 1 + _QUATERNION_SLACK:
    return "a quaternion longer than 1"
  return None


def _qform(header: nibabel.Nifti1Header, shape: Sequence[int], unit: float) -> np.ndarray:
  """nifti1.h, method 2, from a header that `_problem` found nothing wrong with."""
  b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
  length = max(np.sqrt(b * b + c * c + d * d), 1.0)
  b, c, d = b / length, c / length, d / length
  a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
  # qfac is pixdim[0]; 0 means 1 (nifti1.h).
  steps = np.where(_pixdim(header) > 0, _pixdim(header), 1.0)
  steps[2] *= -1 if float(header["pixdim"][0]) < 0 else 1
  affine = np.eye(4)
  affine[:3, :3] = nibabel.quaternions.quat2mat([a, b, c, d]) * steps
  affine[:3, 3] = [float(header[f"qoffset_{name}"]) for name in "xyz"]
  affine[:3] *= unit
  return affine


def _lone_steps(
  header: nibabel.Nifti1Header, shape: Sequence[int], unit: float, notes: list[str]
) -> tuple[float, float, float] | None:
  """Sizes of voxels where nothing places them (both codes 0, as in Analyze)."""
  steps = _pixdim(header)
  if (steps < 0).any():
    # Some programs hide a flip in the sign; which one is nowhere said, so only the size counts.
    notes.append("negative pixdim: taken as a size, its sign names no side")
  steps = np.abs(steps) * unit
  steps[(np.array(shape) == 1) & ~(steps > 0)] = 1.0
  if not (np.isfinite(steps).all() and (steps > 0).all()):
    notes.append("pixdim is zero or not finite: the spacing is not known")
    return None
  return float(steps[0]), float(steps[1]), float(steps[2])


def _compare(sform: np.ndarray, qform: np.ndarray, shape: Sequence[int], notes: list[str]) -> None:
  """Both place the volume: says so where they do not place its corners alike."""
  ends = [(0, n - 1) for n in shape]
  corners = np.array([[i, j, k, 1] for i in ends[0] for j in ends[1] for k in ends[2]]).T
  apart = np.linalg.norm(((sform - qform) @ corners)[:3], axis=0).max()
  if apart <= max(_SAME_MM, _SAME_VOXELS * min(geometry.steps_mm(sform))):
    return
  note = f"sform and qform disagree by up to {apart:.1f} mm: the sform was used"
  codes = geometry.codes_of(sform), geometry.codes_of(qform)
  if codes[0] != codes[1]:
    note += f" (they say {codes[0] or 'oblique'} and {codes[1] or 'oblique'})"
  notes.append(note)


def _compare_steps(
  steps: Sequence[float], pixdim: np.ndarray, shape: Sequence[int], notes: list[str]
) -> None:
  for n, used, told in zip(shape, steps, pixdim, strict=True):
    if n > 1 and not abs(told - used) <= _SAME_STEP * used:
      notes.append(
        f"the affine's step of {used:.3g} mm and pixdim's {told:.3g} disagree: the affine was used"
      )
