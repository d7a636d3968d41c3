"""DICOM: one picture, a cine loop, a volume in one file, or a folder of the slices of volumes."""

from collections.abc import Callable
import dataclasses
from pathlib import Path
from typing import TypeVar

from pydicom.dataset import Dataset

from hulu_jax.media import volume
from hulu_jax.media.dicom import folder
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import picture
from hulu_jax.media.dicom import series
from hulu_jax.media.dicom import slide
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

_Result = TypeVar("_Result")


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """A file or a folder.  Raises BadRecord; nothing the header says about a patient is in it."""
  return _guarded(lambda: _read(path, preset, options, limits))


def phases(path: Path, limits: Limits, number: int | None = None) -> tuple[str, ...]:
  """Names of the volumes in a file or folder, as `Options.phase` takes them; () for a lone one.

  number: which series of the folder, as `Options.series`.  Raises BadRecord as `read` does.
  """
  return _guarded(lambda: _phases(path, limits, number))


def _guarded(do: Callable[[], _Result]) -> _Result:
  # On damaged files pydicom raises at least six types, AttributeError and TypeError among them.
  # Their messages quote header values, so the cause is not chained.
  try:
    return do()
  except BadRecord:
    raise
  except Exception as error:
    raise BadRecord("format", f"a damaged DICOM file ({type(error).__name__})") from None


def _read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  if not path.is_dir():
    return _read_file(path, _open(path, limits), preset, options, limits)
  files, skipped = _files(path, limits, options.series)
  options = dataclasses.replace(options, series=None)
  if len(files) == 1 and not series.is_placed(files[0][1]):
    media = _read_file(files[0][0], _open(files[0][0], limits), preset, options, limits)
    return dataclasses.replace(media, notes=(*skipped, *media.notes))
  return _read_volume(files, skipped, preset, options, limits)


def _phases(path: Path, limits: Limits, number: int | None) -> tuple[str, ...]:
  if path.is_dir():
    files, _ = _files(path, limits, number)
  else:
    files = [(path, _open(path, limits))]
  if len(files) == 1 and not series.is_placed(files[0][1]):
    return ()
  found, _ = series.volumes(files, limits)
  return tuple(name for name in found if name)


def _files(
  path: Path, limits: Limits, number: int | None
) -> tuple[list[tuple[Path, Dataset]], list[str]]:
  found, skipped = folder.survey(path, limits)
  return folder.pick(found, skipped, number).files, skipped


def _open(path: Path, limits: Limits) -> Dataset:
  dataset = header.read(path, limits)
  reason = header.why_not_picture(dataset)
  if reason is not None:
    raise BadRecord("format", f"{reason}; expected a picture, a cine loop or a volume")
  return dataset


def _read_file(
  path: Path, dataset: Dataset, preset: str, options: Options, limits: Limits
) -> Media:
  if options.series is not None:
    raise BadRecord("options", "series is for folders; this is one file")
  _check_modality(header.modality(dataset), options)
  if slide.is_slide(dataset):
    return slide.read(path, dataset, options, limits)
  if options.region is not None:
    raise BadRecord("options", "region is for whole slides; crop cuts a picture")
  frames, rows, columns = header.shape(dataset)
  limits.within("frames", frames, limits.max_frames)
  limits.check(1, rows, columns)
  if series.is_volume_file(dataset):
    return _read_volume([(path, dataset)], [], preset, options, limits)
  if options.phase is not None:
    raise BadRecord("options", "phase is for volumes; this is a picture or a cine loop")
  if frames > 1:
    return picture.read_clip(path, dataset, preset, options, limits)
  return picture.read(path, preset, options)


def _read_volume(
  files: list[tuple[Path, Dataset]],
  skipped: list[str],
  preset: str,
  options: Options,
  limits: Limits,
) -> Media:
  _check_modality(header.modality(files[0][1]), options)
  if options.time_index is not None:
    raise BadRecord("options", "time_index does not apply to DICOM; phase names a volume")
  voxels = series.read(files, options.phase, limits)
  voxels = dataclasses.replace(voxels, notes=(*skipped, *voxels.notes))
  return volume.render(voxels, preset, options, limits)


def _check_modality(found: str | None, options: Options) -> None:
  if options.modality is not None and options.modality != found:
    raise BadRecord("options", f"modality {options.modality} was given; the file says {found}")
