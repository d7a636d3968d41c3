"""MIMIC-CXR: chest X-ray studies with free-text reports.

Layout, of physionet.org/content/mimic-cxr-jpg/2.1.0 and physionet.org/content/mimic-cxr/2.1.0:
`files/p10/p10000032/s50414267/<dicom_id>.jpg` or `.dcm`, reports as
`files/p10/p10000032/s50414267.txt`, and, packed or not, `mimic-cxr-2.0.0-split.csv.gz`
(`dicom_id`, `study_id`, `subject_id`, `split`) and `mimic-cxr-2.0.0-metadata.csv.gz` (`dicom_id`,
`ViewPosition`, ...).  Findings and impressions alone are those of `mimic_cxr_sectioned.csv`, which
`txt/create_section_files.py` of github.com/MIT-LCP/mimic-cxr writes.

Example (the text is invented: the set may not be quoted):
  {"id": "mimic-cxr-s50000001", "group": "p10000001", "answer_type": "open", "messages": [
    {"role": "user", "content": [
      {"type": "image", "path": "/data/mimic-cxr-jpg/files/p10/p10000001/s50000001/0a1b-....jpg"},
      {"type": "text", "text": "Write the impression of the report of this chest X-ray study."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "No acute findings."}]}]}
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed
from hulu_jax.media.errors import BadRecord

CARD = _card.Card(
  title="MIMIC-CXR",
  licence="PhysioNet Credentialed Health Data License 1.5.0",
  url="https://physionet.org/content/mimic-cxr-jpg/2.1.0/",
  kinds=("image",),
  group="patient",
  split="published",
  caveats=(
    "credentialed access: neither records nor prepared shards nor what they are sent to may leave "
    "the circle of those who signed",
    "reports compare with earlier studies that the record does not show",
    "a model trained on it may repeat its text: ask before weights are passed on",
    "probably part of Hulu-Med's own training mix",
  ),
)
_SPLIT_TABLE, _METADATA = "mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.0.0-metadata.csv"
_SECTIONED = "mimic_cxr_sectioned.csv"
SECTIONS = ("report", "findings", "impression")
VIEWS = {"all": None, "frontal": ("AP", "PA")}
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}

Item = tuple[str, str, tuple[str, ...], str | None]


class Source(_source.Base[Item]):
  """One report a study, with all its images.

  root: the folder of the images and tables; reports: of the tree of reports; it may be the same.
  split: train, validation, test or all; section: the whole report, or its findings or impression:
  studies without them are left out; views: "all", or "frontal" for AP and PA only.

  Raises:
    FileNotFoundError: a table is not there.
    ValueError: an unknown section or view, a table of other columns, or a split without rows.
  """

  def __init__(self, *, root: str, reports: str, split: str, section: str, views: str):
    if section not in SECTIONS or views not in VIEWS:
      raise ValueError(
        f"section={section!r}, views={views!r}; sections are {', '.join(SECTIONS)}, views are "
        f"{', '.join(VIEWS)}"
      )
    self._root, self._reports = _source.folder(root), _source.folder(reports)
    self._section = section
    wanted = _views(self._root, views)
    told = None if section == "report" else _sections(self._root, section)
    tables = [_SPLIT_TABLE]
    tables += [_METADATA] if VIEWS[views] is not None else []
    tables += [_SECTIONED] if told is not None else []
    files = (_tables.packed_or_not(self._root / name) for name in tables)
    super().__init__(self._studies(wanted, told), split, files)

  def _record(self, item: Item) -> dict[str, Any]:
    patient, study, images, text = item
    what = "report" if self._section == "report" else f"{self._section} of the report"
    question = f"Write the {what} of this chest X-ray study."
    media = [self._image(_place(patient) / study / image) for image in images]
    answer = self._report(patient, study) if text is None else text
    made = _source.record(f"mimic-cxr-{study}", question, answer, media)
    return {**made, "answer_type": "open", "group": patient}

  def _image(self, stem: Path) -> dict[str, Any]:
    packed = self._root / "files" / f"{stem}.dcm"
    return _source.medium("image", packed if packed.is_file() else packed.with_suffix(".jpg"))

  def _report(self, patient: str, study: str) -> str:
    if not (patient + study).isalnum():
      raise BadRecord("path", "numbers of patient and study that are none")
    path = self._reports / "files" / _place(patient) / f"{study}.txt"
    try:
      return path.read_text().strip()
    except FileNotFoundError:
      raise BadRecord("missing", "a study without its report") from None
    except UnicodeDecodeError:
      raise BadRecord("format", "a report that is not UTF-8") from None

  def _studies(
    self, wanted: set[str] | None, told: Mapping[str, str] | None
  ) -> Iterator[Placed[Item]]:
    table = self._root / _SPLIT_TABLE
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in _tables.small(table, ("dicom_id", "study_id", "subject_id", "split")):
      if wanted is None or row["dicom_id"] in wanted:
        key = (f"p{row['subject_id']}", f"s{row['study_id']}", row["split"])
        found.setdefault(key, []).append(row["dicom_id"])
    for (patient, study, split), images in found.items():
      text = None if told is None else told.get(study, "")
      if text != "":
        item = (patient, study, tuple(images), text)
        yield Placed(item, patient, _SPLITS.get(split, split))


def _place(patient: str) -> Path:
  """p10/p10000032 of p10000032."""
  return Path(patient[:3]) / patient


def _views(root: Path, views: str) -> set[str] | None:
  shown = VIEWS[views]
  if shown is None:
    return None
  rows = _tables.small(root / _METADATA, ("dicom_id", "ViewPosition"))
  return {row["dicom_id"] for row in rows if row["ViewPosition"] in shown}


def _sections(root: Path, section: str) -> dict[str, str]:
  rows = _tables.small(root / _SECTIONED, ("study", section))
  return {row["study"].removesuffix(".txt"): (row[section] or "").strip() for row in rows}
