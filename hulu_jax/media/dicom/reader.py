"""DICOM: one picture, a cine loop, an enhanced volume, or a folder that holds one series."""

from pathlib import Path

from hulu_jax.media import volume
from hulu_jax.media.dicom import enhanced
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import picture
from hulu_jax.media.dicom import series
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """A file or a folder.  Raises BadRecord; nothing the header says about a patient is in it."""
  # On damaged files pydicom raises at least six types, AttributeError and TypeError among them.
  # Their messages quote header values, so the cause is not chained.
  try:
    return _read(path, preset, options, limits)
  except BadRecord:
    raise
  except Exception as error:
    raise BadRecord("format", f"a damaged DICOM file ({type(error).__name__})") from None


def _read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  if path.is_dir():
    return _render(series.read(path, limits), preset, options)
  dataset = header.read(path, limits)
  reason = header.why_not_picture(dataset)
  if reason is not None:
    raise BadRecord("format", f"{reason}; expected a picture, a cine loop or a volume")
  limits.check(*header.shape(dataset))
  _check_modality(header.modality(dataset), options)
  if dataset.get("SharedFunctionalGroupsSequence") or dataset.get(
    "PerFrameFunctionalGroupsSequence"
  ):
    return _render(enhanced.read(path, dataset), preset, options)
  if header.shape(dataset)[0] > 1:
    return picture.read_clip(path, dataset, preset, options)
  return picture.read(path, preset, options)


def _render(voxels: volume.Voxels, preset: str, options: Options) -> Media:
  _check_modality(voxels.look.modality, options)
  if options.time_index is not None:
    raise BadRecord("options", "time_index does not apply to this DICOM volume")
  return volume.render(voxels, preset, options)


def _check_modality(found: str | None, options: Options) -> None:
  if options.modality is not None and options.modality != found:
    raise BadRecord("options", f"modality {options.modality} was given; the file says {found}")
