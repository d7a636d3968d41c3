"""A folder of DICOM files: which are slices of its series, which are not pictures."""

from pathlib import Path

from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits


def one_series(folder: Path, limits: Limits) -> tuple[list[tuple[Path, Dataset]], list[str]]:
  """The slices of the only series, in file order; others' objects are counted, not shown."""
  series: dict[str, list[tuple[Path, Dataset]]] = {}
  skipped: dict[str, int] = {}
  for path in sorted(p for p in folder.iterdir() if p.is_file()):
    if not header.has_marker(path):
      skipped["a file that is not DICOM"] = skipped.get("a file that is not DICOM", 0) + 1
      continue
    dataset = header.read(path, limits)
    reason = header.why_not_picture(dataset)
    if reason is not None:
      skipped[reason] = skipped.get(reason, 0) + 1
      continue
    series.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append((path, dataset))
    limits.within("slices", sum(map(len, series.values())), limits.max_frames)
  notes = [f"skipped {count} x {reason}" for reason, count in sorted(skipped.items())]
  if len(series) != 1:
    found = f"{len(series)} DICOM series in the folder" + (
      f" ({', '.join(notes)})" if notes else ""
    )
    raise BadRecord("geometry" if series else "format", f"{found}; expected one per folder")
  return next(iter(series.values())), notes
