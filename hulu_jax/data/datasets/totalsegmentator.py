"""TotalSegmentator: CT and MR volumes, as questions about which organs they show.

Layout, of zenodo.org/records/10047292 (CT) and zenodo.org/records/11367005 (MR): `meta.csv`
(semicolons; `image_id`, `split`, ...) and `<image_id>/{ct.nii.gz or mri.nii.gz,
segmentations/<class>.nii.gz}`, one mask a class.  A folder with `qa.jsonl` beside its volumes is
read as it is.

Example:
  {"id": "ts-s0011-liver", "group": "s0011", "derived": true, "messages": [
    {"role": "user", "content": [
      {"type": "volume", "path": "/data/ts/s0011/ct.nii.gz", "modality": "CT"},
      {"type": "text", "text": "Is the liver visible in this CT volume? Answer yes or no."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets import _tables
from hulu_jax.data.datasets._source import Placed
from hulu_jax.media.errors import BadRecord

CARD = _card.Card(
  title="TotalSegmentator",
  licence="CC BY 4.0 (CT), CC BY-NC-SA 2.0 (MR), Apache-2.0 (the repository's own examples)",
  url="https://doi.org/10.5281/zenodo.6802613",
  kinds=("volume",),
  group="examination; the set has one a patient",
  split="published; by examination for a folder with qa.jsonl",
  caveats=(
    _card.DERIVED,
    "masks are a model's output that people corrected, in the examples of the repository not",
    "an organ cut off at the edge of the volume counts as visible",
  ),
)
# Organs to ask of, unless the caller names others; each is one mask in both sets.
ORGANS = (
  "liver",
  "spleen",
  "kidney_left",
  "kidney_right",
  "stomach",
  "gallbladder",
  "pancreas",
  "urinary_bladder",
  "heart",
  "brain",
  "prostate",
  "aorta",
  "duodenum",
  "colon",
)
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_VOLUMES = {"ct.nii.gz": "CT", "mri.nii.gz": "MR"}

Item = dict[str, Any] | tuple[Path, str, str]


class Source(_source.Base[Item]):
  """One question an organ and examination; a mask is read when its record is asked for.

  root: the folder of the set; split: train, validation, test or all; organs: names of masks, such
  as `ORGANS`; an examination without a mask of that name is not asked.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: a split without rows.
  """

  def __init__(self, *, root: str, split: str, organs: Sequence[str]):
    self._root = _source.folder(root)
    file = _source.first_of(self._root, "qa.jsonl", "meta.csv")
    rows = self._lines if file.suffix == ".jsonl" else self._published
    super().__init__(rows(file, organs), split, [file])

  def _record(self, item: Item) -> dict[str, Any]:
    if isinstance(item, dict):
      return {**_source.from_qa_line(item, self._root), "group": _stem(item["volume"])}
    path, modality, organ = item
    shown = organ.replace("_", " ")
    question = f"Is the {shown} visible in this {modality} volume? Answer yes or no."
    answer = "yes" if _any(path.parent / f"segmentations/{organ}.nii.gz") else "no"
    media = [_source.medium("volume", path, modality)]
    made = _source.record(f"ts-{path.parent.name}-{organ}", question, answer, media)
    return {**made, "answer_type": "closed", "group": path.parent.name, "derived": True}

  def _lines(self, file: Path, organs: Sequence[str]) -> Iterator[Placed[Item]]:
    for row in _tables.objects(file):
      if row["id"].rpartition("-")[2] in organs:
        yield Placed(row, _stem(row["volume"]))

  def _published(self, file: Path, organs: Sequence[str]) -> Iterator[Placed[Item]]:
    for row in _tables.small(file, ("image_id", "split"), ";"):
      folder = self._root / row["image_id"]
      masked = [o for o in organs if (folder / f"segmentations/{o}.nii.gz").is_file()]
      for name, modality in _VOLUMES.items():
        for organ in masked if (folder / name).is_file() else ():
          split = _SPLITS.get(row["split"], row["split"])
          yield Placed((folder / name, modality, organ), folder.name, split)


def _stem(volume: str) -> str:
  return Path(volume).name.removesuffix(".gz").removesuffix(".nii")


def _any(mask: Path) -> bool:
  """Whether a mask has a voxel."""
  try:
    return bool(np.any(np.asanyarray(nibabel.nifti1.load(mask).dataobj)))
  except Exception as error:  # nibabel's messages quote paths
    raise BadRecord("format", f"a mask that cannot be read ({type(error).__name__})") from None
