"""A folder of pictures, one per frame, as a clip.

Frames come in the natural order of their names (frame2 before frame10).  A folder has no frame
rate: frames are taken by count, and carry no times.  The preset hulumed does what the released
code does (spec 1.8): it sorts names as plain text, takes the folder as 3 frames per second, and
from each second the middle frame.  Unlike there, a frame that cannot be read is an error.
"""

from collections.abc import Sequence
import dataclasses
from pathlib import Path
import re

import numpy as np

from hulu_jax.media import crop
from hulu_jax.media import image
from hulu_jax.media import sampling
from hulu_jax.media.dicom import header
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

_RELEASED_FPS = 3.0
_LEFT_BY_VIEWERS = ("thumbs.db", "desktop.ini")


@dataclasses.dataclass
class _Found:
  """What lies in a folder, hidden files and viewers' own left out."""

  pictures: list[Path] = dataclasses.field(default_factory=list)
  dicom: int = 0
  others: int = 0
  folders: int = 0


def holds_pictures(folder: Path) -> bool:
  """Whether any file in it, by content, is a PNG, JPEG, WebP or TIFF."""
  return any(_kind(path) == "picture" for path in folder.iterdir() if _counts(path))


def read(path: Path, preset: str, options: Options, limits: Limits) -> Media:
  """The folder's frames by `options.frames`, else by the preset.

  Raises BadRecord for a folder that holds anything but pictures, for pictures of several sizes, for
  one that cannot be read, and for `fps` (radiology), as there is no rate to take it from.
  """
  sampling.check_clip_options(options)
  box = crop.box_only(options.crop)
  names = _in_order(path, preset, limits)
  height, width = _one_size(names, limits)
  notes: list[str] = []
  taken = _choose(len(names), preset, options, notes)
  limits.check(len(taken), height, width)
  if preset == "hulumed" and names != _in_order(path, "radiology", limits):
    notes.append("names sorted as text, as the released code does: frame10 before frame2")
  found: list[str] = []
  pictures = [image.load(names[k], preset, limits, found) for k in taken]
  if len({picture.shape[:2] for picture in pictures}) != 1:
    raise BadRecord("geometry", "frames that are turned differently; expected one size")
  frames, shade = image.shown(pictures, options, found)
  return Media(
    kind="video",
    frames=crop.cut(frames, box),
    modality=options.modality,
    units=None if shade is None else shade.units,
    value_range=None if shade is None else shade.value_range,
    slices=tuple(taken.tolist()),
    fps=_RELEASED_FPS if preset == "hulumed" else None,
    timestamps=_times(taken) if preset == "hulumed" else None,
    provenance={"frames": len(names)},
    notes=(*notes, *dict.fromkeys(found)),
  )


def _times(taken: np.ndarray) -> tuple[float, ...]:
  return tuple(round(float(k) / _RELEASED_FPS, 6) for k in taken)


def _counts(path: Path) -> bool:
  return not path.name.startswith(".") and path.name.lower() not in _LEFT_BY_VIEWERS


def _kind(path: Path) -> str:
  if path.is_dir():
    return "folder"
  with open(path, "rb") as file:
    head = file.read(header.HEAD_BYTES)
  if header.looks_like_dicom(head):
    return "dicom"
  return "picture" if any(head[k : k + len(m)] == m for k, m in image.MAGIC) else "other"


def _in_order(folder: Path, preset: str, limits: Limits) -> list[Path]:
  found = _Found()
  for path in folder.iterdir():
    if not _counts(path):
      continue
    match _kind(path):
      case "picture":
        found.pictures.append(path)
      case "dicom":
        found.dicom += 1
      case "folder":
        found.folders += 1
      case _:
        found.others += 1
  _check_only_pictures(found)
  limits.within("frames", len(found.pictures), limits.max_frames)
  return sorted(found.pictures, key=lambda p: p.name if preset == "hulumed" else natural(p.name))


def _check_only_pictures(found: _Found) -> None:
  beside = [
    f"{count} {what}"
    for count, what in (
      (found.dicom, "DICOM files"),
      (found.others, "files of another kind"),
      (found.folders, "folders"),
    )
    if count
  ]
  if not found.pictures or beside:
    whole = ", ".join([f"{len(found.pictures)} pictures", *beside])
    raise BadRecord("format", f"a folder of {whole}; expected pictures only, or one DICOM series")


def natural(name: str) -> tuple[list[str | int], str]:
  """A key that sorts numbers in names by their value."""
  parts = re.split("([0-9]+)", name)
  return [int(part) if k % 2 else part for k, part in enumerate(parts)], name


def _one_size(names: Sequence[Path], limits: Limits) -> tuple[int, int]:
  sizes: dict[tuple[int, int], int] = {}
  for name in names:
    size = image.size(name, limits)
    sizes[size] = sizes.get(size, 0) + 1
  if len(sizes) > 1:
    common = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    found = ", ".join(f"{count} of {h} x {w}" for (h, w), count in common)
    raise BadRecord("geometry", f"frames of {len(sizes)} sizes ({found}, ...); expected one")
  return next(iter(sizes))


def _choose(count: int, preset: str, options: Options, notes: list[str]) -> np.ndarray:
  if preset == "hulumed":
    notes.append("taken as 3 frames per second, as the released code does")
    return sampling.by_segments(count, _RELEASED_FPS, *sampling.released_rate(options))
  if options.fps is not None:
    raise BadRecord(
      "options", "fps needs a frame rate, which a folder of pictures lacks; give frames instead"
    )
  notes.append("a folder of pictures: no frame rate and no times are known")
  wanted = sampling.DEFAULT_FRAMES if options.frames is None else options.frames
  return sampling.by_count(count, wanted)
