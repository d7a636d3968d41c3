"""A folder of DICOM files: which series it holds, and which files are no pictures."""

from collections import Counter
from collections.abc import Iterator, Sequence
import dataclasses
import os
from pathlib import Path

from pydicom.dataset import Dataset

from hulu_jax.media.dicom import enhanced
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import marks
from hulu_jax.media.dicom import mosaic
from hulu_jax.media.dicom import slide
from hulu_jax.media.dicom import stack
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits

Files = list[tuple[Path, Dataset]]

_MOST_DEPTH = 8  # folders below the given one: exports nest patient, study and series
# All that placing and telling slices apart needs; a folder's whole headers may take gigabytes.
_KEPT = (
  "AcquisitionNumber BodyPartExamined BurnedInAnnotation Columns ComplexImageComponent "
  "DiffusionBValue DiffusionGradientOrientation EchoNumbers EchoTime FrameReferenceTime "
  "ImageOrientationPatient ImagePositionPatient ImageType KVP LossyImageCompression Modality "
  "MonoenergeticEnergyEquivalent NumberOfFrames PerFrameFunctionalGroupsSequence PixelSpacing Rows "
  "SOPClassUID SharedFunctionalGroupsSequence SliceThickness SpacingBetweenSlices "
  "TemporalPositionIdentifier TemporalPositionIndex TriggerTime"
).split()


@dataclasses.dataclass(frozen=True)
class Series:
  """files: all of one SeriesInstanceUID, in the order of their paths; headers cut to what is used.
  number: SeriesNumber, infinite where absent."""

  uid: str
  number: float
  files: Files

  @property
  def is_placed(self) -> bool:
    """True if some file says where in the patient its pictures lie."""
    return any(enhanced.is_volume(d) or stack.is_placed(d, d, d) for _, d in self.files)

  def describe(self) -> str:
    """ "CT, 120 slices, axial": coded elements and counts only."""
    headers = [dataset for _, dataset in self.files]
    frames = sum(header.shape(dataset)[0] for dataset in headers)
    if slide.is_slide(headers[0]):
      counted = _counted(len(headers), "slide level")
    elif mosaic.is_mosaic(headers[0]):
      counted = _counted(len(headers), "mosaic")
    elif self.is_placed:
      counted = _counted(frames, "slice")
    elif frames > len(headers):
      counted = f"{_counted(len(headers), 'clip')} of {frames} frames"
    else:
      counted = _counted(frames, "picture")
    planes: set[str | None] = set()
    for dataset in headers:
      grouped = enhanced.is_volume(dataset)
      planes |= enhanced.plane_names(dataset) if grouped else {stack.plane_name(dataset)}
    names = sorted(name for name in planes if name is not None)
    plane = [] if not names else names if len(names) == 1 else ["several planes"]
    return ", ".join([header.modality(headers[0]) or "unknown modality", counted, *plane])


def survey(folder: Path, limits: Limits) -> tuple[list[Series], list[str]]:
  """The series in a folder and below it, by SeriesNumber and UID; what was skipped, as notes."""
  found: dict[str, Series] = {}
  skipped: Counter[str] = Counter()
  for path in _paths(folder, limits):
    if not header.has_marker(path):
      skipped["a file that is not DICOM"] += 1
      continue
    dataset = header.read(path, limits)
    reason = header.why_not_picture(dataset)
    if reason is not None:
      skipped[reason] += 1
      continue
    uid = str(dataset.get("SeriesInstanceUID") or "")
    number = marks.number(dataset, "SeriesNumber")
    series = found.setdefault(uid, Series(uid, float("inf") if number is None else number, []))
    series.files.append((path, _cut(dataset)))
  kept = sorted(found.values(), key=lambda series: (series.number, series.uid))
  if any(series.is_placed for series in kept):
    kept = [series for series in kept if series.is_placed or not _is_captured(series, skipped)]
  return kept, [f"skipped {count} x {reason}" for reason, count in sorted(skipped.items())]


def pick(series: Sequence[Series], skipped: Sequence[str], wanted: int | None) -> Series:
  """The only series, or number `wanted`, counted from 1.  Raises BadRecord, listing them."""
  aside = f" ({', '.join(skipped)})" if skipped else ""
  if not series:
    raise BadRecord(
      "format",
      f"0 DICOM series in the folder{aside}; a folder is read as DICOM, or as the frames of a clip "
      "if all its files are pictures: give other files one by one",
    )
  if wanted is None and len(series) == 1:
    return series[0]
  if wanted is not None and 1 <= wanted <= len(series):
    return series[wanted - 1]
  lines = [f"{k}: {one.describe()}" for k, one in enumerate(series, 1)]
  asked = "" if wanted is None else f", none of number {wanted}"
  raise BadRecord(
    "options",
    f"{len(series)} DICOM series in the folder{asked}{aside}; expected series= one of\n"
    + "\n".join(lines),
  )


def _counted(count: int, what: str) -> str:
  return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _paths(folder: Path, limits: Limits) -> Iterator[Path]:
  """Files in and below `folder`, by name, without hidden ones, indexes and linked folders."""
  files = 0
  for place, folders, names in os.walk(folder):
    depth = len(Path(place).relative_to(folder).parts)
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    if folders and depth >= _MOST_DEPTH:
      raise BadRecord("limit", f"folders more than {_MOST_DEPTH} deep; give the inner one")
    for name in sorted(names):
      path = Path(place, name)
      if name.startswith(".") or name.upper() == "DICOMDIR" or not path.is_file():
        continue
      files += 1
      limits.within("files in a folder", files, limits.max_files)
      yield path


def _cut(dataset: Dataset) -> Dataset:
  """Only the elements of `_KEPT`, and the private ones that tell slices apart."""
  cut = Dataset()
  for keyword in _KEPT:
    if keyword in dataset:
      cut[keyword] = dataset[keyword]
  groups = {group for _, group, _ in marks.PRIVATE} | ({0x29} if mosaic.is_mosaic(cut) else set())
  for tag in dataset.keys():
    if tag.is_private and tag.group in groups:
      cut[tag] = dataset[tag]
  return cut


def _is_captured(series: Series, skipped: Counter[str]) -> bool:
  """True, counting its files as skipped, if beside slices of a patient it is a picture of a screen
  or of paper."""
  if not all(header.is_secondary_capture(dataset) for _, dataset in series.files):
    return False
  skipped["a secondary capture"] += len(series.files)
  return True
