"""The files of one DICOM series to named volumes, and one of these to voxels with an affine."""

from collections.abc import Sequence
import hashlib
from pathlib import Path

from pydicom.dataset import Dataset

from hulu_jax.media.dicom import annotations
from hulu_jax.media.dicom import enhanced
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import marks
from hulu_jax.media.dicom import mosaic
from hulu_jax.media.dicom import phases
from hulu_jax.media.dicom import slices
from hulu_jax.media.dicom import stack
from hulu_jax.media.dicom import values as values_lib
from hulu_jax.media.dicom.marks import Frame
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.volume import Voxels

Files = Sequence[tuple[Path, Dataset]]


def is_volume_file(dataset: Dataset) -> bool:
  """True if one file holds several slices of a volume."""
  return mosaic.is_mosaic(dataset) or enhanced.is_volume(dataset)


def is_placed(dataset: Dataset) -> bool:
  """True if a file holds slices of a volume, one or several; else a picture or a cine loop."""
  if is_volume_file(dataset):
    return True
  return header.shape(dataset)[0] == 1 and stack.is_placed(dataset, dataset, dataset)


def volumes(files: Files, limits: Limits) -> tuple[dict[str, list[Frame]], list[str]]:
  """The slices of each volume by its name ("" for a lone one), and notes.

  Copies are left out only if nothing the files say tells them apart: two phases may well have an
  empty slice each.  Raises BadRecord("geometry") if slices still share a position.
  """
  _check_pictures(files)
  frames: list[Frame] = []
  for path, dataset in files:
    frames += _frames(path, dataset)
    limits.within("slices", len(frames), limits.max_frames)
  notes = []
  found = phases.split(frames, whole=True)
  if found is None:
    kept = _without_copies(frames, dict(files))
    if len(kept) < len(frames):
      notes.append(f"duplicate_slices: {len(frames) - len(kept)} exact copies were left out")
    frames = kept
    found = phases.split(frames, whole=True) or phases.split(frames, whole=False)
  if found is None:
    raise _unresolved(frames)
  return {name: [frames[k] for k in own] for name, own in found.items()}, notes


def read(files: Files, phase: str | None, limits: Limits) -> Voxels:
  """The only volume of a series, or the one named `phase`.  Raises BadRecord, listing the names."""
  found, notes = volumes(files, limits)
  frames = _pick(found, phase, notes)
  headers = dict(files)
  sizes = {frame.shape for frame in frames}
  if len(sizes) > 1:
    raise BadRecord("geometry", f"slices of {len(sizes)} different sizes; expected one")
  limits.check(len(frames), *frames[0].shape)
  used = {frame.path for frame in frames}
  limits.check_bytes(sum(path.stat().st_size for path in used))
  order, affine, more = stack.stack([frame.plane for frame in frames])
  if any(annotations.is_lossy(headers[path]) for path in used):
    notes.append(annotations.LOSSY)
  loaded = slices.load([frames[k] for k in order], headers)
  return Voxels(
    values=loaded.values.transpose(1, 2, 0),
    affine=affine,
    look=loaded.look,
    plane=frames[0].plane.name,
    padding=None if loaded.padding is None else loaded.padding.transpose(1, 2, 0),
    body_part=annotations.body_part(loaded.dataset),
    notes=(*notes, *more, *annotations.warnings(loaded.dataset, cropped=False)),
  )


def _pick(found: dict[str, list[Frame]], phase: str | None, notes: list[str]) -> list[Frame]:
  names = ", ".join(found)
  if len(found) == 1:
    if phase is not None:
      raise BadRecord("options", "a phase was named, but the series holds one volume")
    return found[""]
  if phase is None or phase not in found:
    asked = "" if phase is None else ", none of the name given"
    raise BadRecord(
      "options", f"{len(found)} volumes in the series{asked}; expected phase= one of: {names}"
    )
  notes.append(f"phase: {phase}, one of {len(found)} volumes ({names})")
  return found[phase]


def _check_pictures(files: Files) -> None:
  """Raises BadRecord for files of which none is placed in the patient."""
  if any(is_placed(dataset) for _, dataset in files):
    return
  kind = header.modality(files[0][1]) or "unknown modality"
  raise BadRecord(
    "geometry",
    f"{len(files)} separate pictures ({kind}) without position, orientation or spacing in the "
    "patient: they form no volume; read the files one by one",
  )


def _frames(path: Path, dataset: Dataset) -> list[Frame]:
  if mosaic.is_mosaic(dataset):
    return mosaic.frames(path, dataset)
  if enhanced.is_volume(dataset):
    return enhanced.frames(path, dataset)
  count, *size = header.shape(dataset)
  if count != 1:
    raise BadRecord("geometry", "a cine loop among slices; read it by itself")
  plane = stack.plane(dataset, dataset, dataset)
  return [Frame(path, 0, (size[0], size[1]), plane, marks.of_slice(dataset))]


def _unresolved(frames: Sequence[Frame]) -> BadRecord:
  turns = stack.turns([frame.plane for frame in frames])
  if turns.any():
    count = turns.max() + 1
    return BadRecord(
      "geometry", f"slices of {count} different orientations or spacings; expected one stack"
    )
  shared = sum(len(same) - 1 for same in phases.shared_positions(frames))
  return BadRecord(
    "geometry",
    f"{shared} slices share a position with another, and neither echo, b-value, image type, "
    "energy, time nor acquisition tells them apart; expected one slice per position",
  )


def _without_copies(frames: Sequence[Frame], headers: slices.Headers) -> list[Frame]:
  """All but the slices that have the values of an earlier one at their position."""
  drop: set[int] = set()
  for same in phases.shared_positions(frames):
    seen: set[bytes] = set()
    for k in same:
      ((picture, dataset, scale),) = slices.stored([frames[k]], headers[frames[k].path])
      values, _ = values_lib.measured(picture, dataset, scale)
      digest = hashlib.sha256(values.tobytes()).digest()
      if digest in seen:
        drop.add(k)
      seen.add(digest)
  return [frame for k, frame in enumerate(frames) if k not in drop]
