"""What a file becomes (`Media`) and what a caller may ask for (`Options`)."""

import dataclasses

import numpy as np

PRESETS = ("radiology", "hulumed")
PLANES = ("axial", "coronal", "sagittal")


@dataclasses.dataclass(frozen=True)
class Media:
  """Frames as a model will see them, with what is known about where they lie and what was done.

  kind: "image", "volume" or "video".
  frames: uint8 [T, H, W, 1 or 3].
  modality: "CT", "MR", "US", ... as declared by the file or the caller.
  spacing_mm: millimetres between the frames taken, between rows, between columns.
  affine: float64 [4, 4], (slice, row, column, 1) to RAS millimetres, slices counted before any were
    left out (see `slices`).
  axis_codes: where the indices of frame, row and column point to: "IPL" is an axial volume from
    head to feet, anterior up, the patient's right on the viewer's left.
  window: centre and width that were applied (HU for CT).
  slices: which slices of the displayed volume were taken.
  timestamps: seconds from the first frame of the file.
  notes: what the reader did on its own or could not know, in plain words.
  """

  kind: str
  frames: np.ndarray
  modality: str | None = None
  spacing_mm: tuple[float, float, float] | None = None
  affine: np.ndarray | None = None
  axis_codes: str | None = None
  window: tuple[float, float] | None = None
  slices: tuple[int, ...] | None = None
  fps: float | None = None
  timestamps: tuple[float, ...] | None = None
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Options:
  """What the caller may choose; None leaves it to the preset.

  modality: needed where a file cannot say (NIfTI, .npy).
  window: name in `windows.TABLE`, or (centre, width).
  plane: one of `PLANES`.
  time_index: which volume of a 4D file.
  frames: how many slices or frames at most, evenly spaced.
  fps: frames per second of a video.
  crop: (top, left, bottom, right) in pixels, or "ultrasound_region"; images and videos only.
  spacing_mm: of a .npy volume, along its three axes.
  """

  modality: str | None = None
  window: str | tuple[float, float] | None = None
  plane: str | None = None
  time_index: int | None = None
  frames: int | None = None
  fps: float | None = None
  crop: str | tuple[int, int, int, int] | None = None
  spacing_mm: tuple[float, float, float] | None = None
