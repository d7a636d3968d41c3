"""DICOM: one picture, a cine loop, an enhanced volume, or a folder that holds one series."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media import crop
from hulu_jax.media import dicom_header
from hulu_jax.media import dicom_series
from hulu_jax.media import sampling
from hulu_jax.media import volume
from hulu_jax.media import windows
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

# Grey values of these are measurements; of others with 8 bits they are the picture itself.
_MEASURED = {"CT", "MR", "PT", "NM"}


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
    return _render(dicom_series.read_folder(path, limits), preset, options)
  dataset = dicom_header.header(path, limits)
  reason = dicom_header.why_not_picture(dataset)
  if reason is not None:
    raise BadRecord("format", f"{reason}; expected a picture, a cine loop or a volume")
  limits.check(*dicom_header.shape(dataset))
  _check_modality(dicom_header.modality(dataset), options)
  if dataset.get("SharedFunctionalGroupsSequence") or dataset.get(
    "PerFrameFunctionalGroupsSequence"
  ):
    return _render(dicom_series.read_enhanced(path, dataset), preset, options)
  if dicom_header.shape(dataset)[0] > 1:
    return _clip(path, dataset, preset, options)
  return _picture(path, preset, options)


def _render(voxels: volume.Voxels, preset: str, options: Options) -> Media:
  _check_modality(voxels.modality, options)
  if options.time_index is not None:
    raise BadRecord("options", "time_index does not apply to this DICOM volume")
  return volume.render(voxels, preset, options)


def _check_modality(found: str | None, options: Options) -> None:
  if options.modality is not None and options.modality != found:
    raise BadRecord("options", f"modality {options.modality} was given; the file says {found}")


def _picture(path: Path, preset: str, options: Options) -> Media:
  if options.plane is not None or options.fps is not None or options.time_index is not None:
    raise BadRecord("options", "plane, fps and time_index do not apply to one picture")
  stored, dataset = dicom_header.decode(path, np.arange(1))
  frames, window, notes = _shade(stored, dataset, preset, options)
  spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
  return Media(
    kind="image",
    frames=crop.cut(frames, _box(dataset, options)),
    modality=dicom_header.modality(dataset),
    spacing_mm=None if spacing is None else (0.0, float(spacing[0]), float(spacing[1])),
    window=window,
    notes=tuple(notes),
  )


def _clip(path: Path, dataset: Dataset, preset: str, options: Options) -> Media:
  sampling.check_clip_options(options)
  count = dicom_header.shape(dataset)[0]
  times = _times(dataset, count)
  if times is None and options.fps is not None:
    raise BadRecord("options", "fps needs frame times, which this file lacks; give frames instead")
  # A loop may last one second: without a rate, frames are taken by count in both presets.
  counted = "radiology" if options.fps is None else preset
  clock = np.arange(count, dtype=np.float64) if times is None else times
  taken = sampling.choose(clock, counted, options)
  stored, whole = dicom_header.decode(path, taken)
  frames, _, notes = _shade(stored, whole, preset, options)
  if times is None:
    notes.append("the file gives no frame times")
  return Media(
    kind="video",
    frames=crop.cut(frames, _box(dataset, options)),
    modality=dicom_header.modality(dataset),
    slices=tuple(int(k) for k in taken),
    fps=None if times is None else sampling.mean_fps(times),
    timestamps=None if times is None else tuple(round(float(times[k]), 6) for k in taken),
    notes=tuple(notes),
  )


def _shade(stored, dataset: Dataset, preset: str, options: Options):
  """Stored frames to uint8 [T, H, W, C], the HU window used, and notes.

  The order is the standard's: slope and intercept, then the window, then MONOCHROME1 last.
  """
  notes = dicom_header.warnings(dataset, cropped=options.crop is not None)
  modality = dicom_header.modality(dataset)
  if stored.ndim == 4:
    if options.window is not None:
      raise BadRecord("options", "a window in HU on a colour picture")
    return stored, None, notes
  values = dicom_header.rescale(
    stored, dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
  )
  own = dicom_header.own_window(dataset) if modality != "MR" else None
  bits = int(dataset.BitsStored)
  window = None
  if preset == "hulumed" and options.window is None:
    grey = windows.min_max(values)
    notes.append("preset hulumed: each frame stretched by itself")
  elif bits <= 8 and modality not in _MEASURED and own is None and options.window is None:
    grey = windows.stretch(stored, 0, 2**bits - 1)
  else:
    hounsfield = dicom_header.is_hounsfield(modality, dataset)
    shade, window = volume.shading(values, hounsfield, options.window, own, notes)
    grey = shade(values)
    grey = windows.min_max(grey) if preset == "hulumed" else grey
  if dicom_header.text(dataset, "PhotometricInterpretation") == "MONOCHROME1":
    grey = 255 - grey
  return grey[..., None], window, notes


def _box(dataset: Dataset, options: Options) -> tuple[int, int, int, int] | None:
  if options.crop == "ultrasound_region":
    return dicom_header.ultrasound_region(dataset)
  return crop.box_only(options.crop)


def _times(dataset: Dataset, count: int) -> np.ndarray | None:
  """float [count] seconds from the first frame (FrameTimeVector and FrameTime are in ms)."""
  vector = dataset.get("FrameTimeVector")
  if vector is not None:
    steps = np.array(vector, np.float64).reshape(-1)
    if len(steps) != count or not np.all(np.isfinite(steps)) or steps[1:].min(initial=0) < 0:
      raise BadRecord("geometry", f"a FrameTimeVector of {len(steps)} times for {count} frames")
    return np.cumsum(np.concatenate([[0.0], steps[1:]])) / 1000
  step = float(dataset.get("FrameTime") or 0)
  rate = float(dataset.get("CineRate") or dataset.get("RecommendedDisplayFrameRate") or 0)
  if step > 0:
    return np.arange(count) * step / 1000
  return np.arange(count) / rate if rate > 0 else None
