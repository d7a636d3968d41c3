"""One DICOM picture, or a cine loop, to frames."""

import dataclasses
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media import crop
from hulu_jax.media import sampling
from hulu_jax.media import windows
from hulu_jax.media.dicom import annotations
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import pixels
from hulu_jax.media.dicom import values as values_lib
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.intensity import Look
from hulu_jax.media.intensity import Shade
from hulu_jax.media.intensity import check_hulumed
from hulu_jax.media.intensity import shading
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

# Grey values of these are measurements; of others with 8 bits they are the picture itself.
_MEASURED = {"CT", "MR", "PT", "NM"}


def read(path: Path, preset: str, options: Options) -> Media:
  """The first frame of a file.  Raises BadRecord for options that do not apply to one picture."""
  if options.plane is not None or options.fps is not None or options.time_index is not None:
    raise BadRecord("options", "plane, fps and time_index do not apply to one picture")
  stored, dataset = pixels.decode(path, np.arange(1))
  frames, shade, notes = _shade(stored, dataset, preset, options)
  spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
  return Media(
    kind="image",
    frames=crop.cut(frames, _box(dataset, options)),
    modality=header.modality(dataset),
    spacing_mm=None if spacing is None else (0.0, float(spacing[0]), float(spacing[1])),
    units=None if shade is None else shade.units,
    window=None if shade is None else shade.window,
    rgb_windows=None if shade is None else shade.rgb_windows,
    value_range=None if shade is None else shade.value_range,
    notes=tuple(notes),
  )


def read_clip(path: Path, dataset: Dataset, preset: str, options: Options, limits: Limits) -> Media:
  """Frames of a cine loop, all shown alike; `dataset`: its header.  Raises BadRecord."""
  sampling.check_clip_options(options)
  count = header.shape(dataset)[0]
  times = _times(dataset, count)
  if times is None and options.fps is not None:
    raise BadRecord("options", "fps needs frame times, which this file lacks; give frames instead")
  # A loop may last one second: without a rate, frames are taken by count in both presets.
  counted = "radiology" if options.fps is None else preset
  clock = np.arange(count, dtype=np.float64) if times is None else times
  taken = sampling.choose(clock, counted, options)
  limits.check(len(taken), *header.shape(dataset)[1:])
  stored, whole = pixels.decode(path, taken)
  frames, shade, notes = _shade(stored, whole, preset, options)
  if times is None:
    notes.append("the file gives no frame times")
  return Media(
    kind="video",
    frames=crop.cut(frames, _box(dataset, options)),
    modality=header.modality(dataset),
    units=None if shade is None else shade.units,
    window=None if shade is None else shade.window,
    rgb_windows=None if shade is None else shade.rgb_windows,
    value_range=None if shade is None else shade.value_range,
    slices=tuple(int(k) for k in taken),
    fps=None if times is None else sampling.mean_fps(times),
    timestamps=None if times is None else tuple(round(float(times[k]), 6) for k in taken),
    notes=tuple(notes),
  )


def _shade(
  stored: np.ndarray, dataset: Dataset, preset: str, options: Options
) -> tuple[np.ndarray, Shade | None, list[str]]:
  """Stored frames to uint8 [T, H, W, C], the mapping used (none for colour), and notes.

  The order is the standard's: modality LUT or rescale, then VOI, then the inversion last.
  """
  notes = annotations.warnings(dataset, cropped=options.crop is not None)
  if annotations.is_lossy(dataset):
    notes.append(annotations.LOSSY)
  if stored.ndim == 4:
    _check_colour(options)
    return stored, None, notes
  if preset == "hulumed":
    return _stretched_by_frame(stored, dataset, options, notes)
  values, padding = values_lib.measured(stored, dataset, dataset)
  look = values_lib.look(dataset, dataset)
  if _is_the_picture_itself(dataset, look):
    bits, signed = int(dataset.BitsStored), stored.dtype.kind == "i"
    low = -(2 ** (bits - 1)) if signed else 0
    values, look = stored, dataclasses.replace(look, full=(low, low + 2**bits - 1))
  shade = shading(values, look, options, notes, padding)
  return shade(values, padding), shade, notes


def _check_colour(options: Options) -> None:
  if options.window is not None:
    raise BadRecord("options", "a window in HU on a colour picture")
  for name in ("function", "value_range", "quantity"):
    if dataclasses.asdict(options)[name] is not None:
      raise BadRecord("options", f"{name} does not apply to a colour picture")


def _is_the_picture_itself(dataset: Dataset, look: Look) -> bool:
  """Of 8 bits or fewer, of no measuring modality, and nothing in the header asks for a change."""
  bits = dataset.get("BitsStored")  # absent where pixels are floating-point numbers
  if look.modality in _MEASURED or bits is None or int(bits) > 8:
    return False
  return look.window is None and look.voi is None and not dataset.get("ModalityLUTSequence")


def _stretched_by_frame(
  stored: np.ndarray, dataset: Dataset, options: Options, notes: list[str]
) -> tuple[np.ndarray, Shade | None, list[str]]:
  """The preset `hulumed`: each frame from its darkest to its brightest value, after a window."""
  check_hulumed(options)
  values = values_lib.rescale(stored, dataset.get("RescaleSlope"), dataset.get("RescaleIntercept"))
  look = values_lib.look(dataset, dataset)
  if options.window is not None:
    shade = shading(values, look, options, notes)
    return windows.min_max(shade(values)[..., 0])[..., None], shade, notes
  notes.append("preset hulumed: each frame stretched by itself")
  grey = windows.min_max(values)
  inverted = header.text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
  return (255 - grey if inverted else grey)[..., None], None, notes


def _box(dataset: Dataset, options: Options) -> tuple[int, int, int, int] | None:
  if options.crop == "ultrasound_region":
    return annotations.ultrasound_region(dataset)
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
