"""What a file becomes (`Media`) and what a caller may ask for (`Options`)."""

from collections.abc import Mapping
import dataclasses

import numpy as np

PRESETS = ("radiology", "hulumed")
PLANES = ("axial", "coronal", "sagittal")
FUNCTIONS = ("linear", "linear_exact", "sigmoid")

Range = tuple[float, float]
Provenance = Mapping[str, str | int | float | bool]


@dataclasses.dataclass(frozen=True)
class Media:
  """Frames as a model will see them, with what is known about where they lie and what was done.

  kind: "image", "volume" or "video".
  frames: uint8 [T, H, W, 1 or 3].
  modality: "CT", "MR", "US", ... as declared by the file or the caller.
  plane: which plane a volume is shown in; None if it lies too obliquely, or is unknown.
  oblique_degrees: between the shown slices' normal and that plane's.
  spacing_mm: millimetres between the frames taken, between rows, between columns.
  affine: float64 [4, 4], (slice, row, column, 1) to RAS millimetres, slices counted before any were
    left out (see `slices`).
  axis_codes: where the indices of frame, row and column point to: "IPL" is an axial volume from
    head to feet, anterior up, the patient's right on the viewer's left.
  units: of the values before they became grey levels: "HU", "SUVbw", "Bq/ml", ...; None if unknown.
  window: centre and width that were applied, in HU.
  rgb_windows: the three HU windows shown as red, green and blue, instead of `window`.
  value_range: the values, in `units`, shown as black and as white, where no HU window was applied.
  slices: which slices of the displayed volume, or frames of the clip, were taken.
  timestamps: seconds from the first frame of the file; of a clip read with the preset hulumed, the
    times that the released code tells its model (see `video`).
  provenance: how it was read: format, reader, preset, choices; no text the file says.
  notes: what the reader did on its own or could not know, in plain words.
  """

  kind: str
  frames: np.ndarray
  modality: str | None = None
  plane: str | None = None
  oblique_degrees: float | None = None
  spacing_mm: tuple[float, float, float] | None = None
  affine: np.ndarray | None = None
  axis_codes: str | None = None
  units: str | None = None
  window: Range | None = None
  rgb_windows: tuple[Range, Range, Range] | None = None
  value_range: Range | None = None
  slices: tuple[int, ...] | None = None
  fps: float | None = None
  timestamps: tuple[float, ...] | None = None
  provenance: Provenance = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Options:
  """What the caller may choose; None leaves it to the preset.

  modality: needed where a file cannot say (NIfTI, .npy).
  quantity: name in `windows.QUANTITIES` of what a map measures (ADC, T1), where a file cannot say.
  window: name in `windows.TABLE`, (centre, width) or "centre/width", or three of these joined by
    "+" for red, green and blue.
  function: of the window, one of `FUNCTIONS`; None is the file's own or linear.
  value_range: lowest and highest value to show, where units are not HU; which of them is black is
    the file's matter (PET is shown dark where there is uptake).
  plane: one of `PLANES`.
  time_index: which volume of a 4D file.
  series: which DICOM series of a folder, counted from 1 in the order the error lists them.
  phase: name of the volume to read of a series that holds several (see `BadRecord.reason`).
  frames: how many slices or frames at most, evenly spaced.
  slice_mm: millimetres between the slices to take, instead of `frames`.
  resample_mm: one size of voxel, in millimetres, to resample the volume to.
  repeat_slices: with the preset `hulumed`, show exactly `frames` slices (180 where not given) and
    repeat some of a shorter volume, as the released code's local path does.
  fps: frames per second of a video.
  crop: (top, left, bottom, right) in pixels, or "ultrasound_region"; images and videos only.
  region: (top, left, bottom, right) in pixels of a whole-slide level.
  spacing_mm: of a .npy volume, along its three axes.
  """

  modality: str | None = None
  quantity: str | None = None
  window: str | Range | None = None
  function: str | None = None
  value_range: Range | None = None
  plane: str | None = None
  time_index: int | None = None
  series: int | None = None
  phase: str | None = None
  frames: int | None = None
  slice_mm: float | None = None
  resample_mm: float | None = None
  repeat_slices: bool = False
  fps: float | None = None
  crop: str | tuple[int, int, int, int] | None = None
  region: tuple[int, int, int, int] | None = None
  spacing_mm: tuple[float, float, float] | None = None
