"""Cuts frames to a box, so that burned-in text outside of it cannot be seen."""

import numpy as np

from hulu_jax.media.errors import BadRecord


def cut(frames: np.ndarray, box: tuple[int, int, int, int] | None) -> np.ndarray:
  """frames: [T, H, W, C]; box: (top, left, bottom, right), or None for the whole picture.

  Raises BadRecord if the box leaves the picture: clamping could let text back in.
  """
  if box is None:
    return frames
  top, left, bottom, right = box
  height, width = frames.shape[1:3]
  if not (0 <= top < bottom <= height and 0 <= left < right <= width):
    found = f"rows {top} to {bottom}, columns {left} to {right}"
    raise BadRecord("geometry", f"a crop of {found}; the picture has {height} x {width}")
  return np.ascontiguousarray(frames[:, top:bottom, left:right])


def box_only(crop: str | tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
  """The crop of a file without ultrasound regions; BadRecord if it names them."""
  if isinstance(crop, str):
    raise BadRecord(
      "options", f"crop {crop!r} needs a DICOM file; expected top, left, bottom, right"
    )
  return crop
