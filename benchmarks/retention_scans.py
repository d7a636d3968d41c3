"""Real scans with what is outlined in them, as the visual tokens that the encoder would get.

Masks are brought onto the voxels of their scan by the two affines, and then go the scan's own way:
the same view, slices, square pixels, resize and patches.  A token of a mask is the share of its
pixels that the mask covers.
"""

from collections.abc import Mapping
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import einops
import nibabel
import numpy as np

from hulu_jax.data import vision
from hulu_jax.data.vision import Policy
from hulu_jax.media import DEFAULT
from hulu_jax.media import Media
from hulu_jax.media import Options
from hulu_jax.media import geometry
from hulu_jax.media import intensity
from hulu_jax.media import volume
from hulu_jax.media.dicom import folder
from hulu_jax.media.dicom import series
from hulu_jax.media.volume import Voxels

# Numbers of TotalSegmentator's classes (its tasks `total` and `total_mr`), checked against the
# volumes in its own JSON files by tests/benchmarks/test_retention_real.py.
CT_LABELS = {
  "liver": (5,),
  "spleen": (1,),
  "kidneys": (2, 3),
  "lungs": (10, 11, 12, 13, 14),
  "aorta": (52,),
  "spinal cord": (79,),
}
MR_LABELS = {"liver": (5,), "spleen": (1,), "kidneys": (2, 3), "spinal cord": (21,)}
ANY = "all outlined"


@dataclasses.dataclass(frozen=True)
class Scan:
  """voxels: as read, before display; options: how it is shown, less the window; masks: bool like
  the voxels, by name; policy: of the encoder's size and tokens."""

  name: str
  voxels: Voxels
  options: Options
  masks: Mapping[str, np.ndarray]
  policy: Policy

  @property
  def steps_mm(self) -> tuple[float, float, float]:
    """Between voxels along i, j, k."""
    assert self.voxels.affine is not None
    return geometry.steps_mm(self.voxels.affine)


class Shown(NamedTuple):
  """media: the frames; tokens: uint8 [T, N, values], in reading order; rows, columns: of tokens."""

  media: Media
  tokens: np.ndarray
  rows: int
  columns: int

  @property
  def token_mm(self) -> float:
    """Side of a token in the patient, down the frame."""
    assert self.media.spacing_mm is not None
    return self.media.frames.shape[1] * self.media.spacing_mm[1] / self.rows


def tokenized(media: Media, policy: Policy) -> Shown:
  """What the encoder gets of one medium."""
  visual = vision.visuals([media], policy)[0]
  tokens = einops.rearrange(visual.patches, "t (n m) v -> t n (m v)", m=visual.merge**2)
  rows, columns = (n // visual.merge for n in visual.grid)
  return Shown(media, tokens, rows, columns)


def show(scan: Scan, options: Options, values: np.ndarray | None = None) -> Shown:
  """The scan, or other `values` in its place, as `media.read` would show it with `options`."""
  voxels = scan.voxels
  if values is not None:
    voxels = dataclasses.replace(voxels, values=values)
  return tokenized(volume.render(voxels, "radiology", options, DEFAULT), scan.policy)


def covered(scan: Scan, weights: np.ndarray) -> np.ndarray:
  """Weights uint8 [i, j, k], the scan's own way -> uint8 [T, N, values], 255 is all of it."""
  blank = dataclasses.replace(scan.voxels, look=intensity.Look(), padding=None)
  options = Options(plane=scan.options.plane, value_range=(0.0, 255.0))
  return show(dataclasses.replace(scan, voxels=blank), options, weights).tokens


def share(scan: Scan, mask: np.ndarray) -> np.ndarray:
  """float64 [T, N]: the share of each token's pixels that a mask covers by half or more."""
  return (covered(scan, mask * np.uint8(255)) >= 128).mean(axis=-1)


def across(scan: Scan, shown: Shown) -> int:
  """Along which stored axis the shown slices follow each other."""
  assert shown.media.affine is not None and scan.voxels.affine is not None
  return int(np.abs((np.linalg.inv(shown.media.affine) @ scan.voxels.affine)[0, :3]).argmax())


def onto(mask: np.ndarray, affine: np.ndarray, voxels: Voxels) -> np.ndarray:
  """A mask [i, j, k] with its own affine, on the voxels of a scan.

  Raises ValueError unless every voxel of the scan lies on one of the mask, to a twentieth of one.
  """
  assert voxels.affine is not None
  exact = np.linalg.inv(affine) @ voxels.affine
  step = np.rint(exact)
  axes = np.abs(step[:3, :3]).argmax(axis=0)
  far = np.abs((exact - step) @ [*voxels.values.shape, 1.0]).max()
  if sorted(axes) != [0, 1, 2] or np.abs(step[:3, :3]).sum() != 3 or far > 0.05:
    raise ValueError(f"the mask's grid is not the scan's: {far:.3f} of a voxel apart")
  index: list[np.ndarray] = [np.zeros(0)] * 3
  for own, (other, count) in enumerate(zip(axes, voxels.values.shape, strict=True)):
    index[other] = (step[other, own] * np.arange(count) + step[other, 3]).astype(int)
    if index[other].min() < 0 or index[other].max() >= mask.shape[other]:
      raise ValueError(f"the mask's {mask.shape} voxels end before the scan's")
  return mask[np.ix_(*index)].transpose(axes)


def nifti_voxels(path: Path, options: Options) -> Voxels:
  """A NIfTI volume of whole numbers as `media.read` has it before display."""
  image: Any = nibabel.load(path)
  values = np.asarray(image.dataobj)
  affine = np.asarray(image.affine, np.float64)
  return Voxels(values, affine, geometry.steps_mm(affine), look=intensity.declared(options))


def dicom_voxels(path: Path) -> Voxels:
  """The only series of a folder."""
  return series.read(folder.pick(*folder.survey(path, DEFAULT), None).files, None, DEFAULT)


def organs(
  path: Path, voxels: Voxels, labels: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Masks of the labels that a file has, and of all its labels together, on a scan's voxels."""
  image: Any = nibabel.load(path)
  found = onto(np.asarray(image.dataobj), np.asarray(image.affine, np.float64), voxels)
  masks = {name: np.isin(found, numbers) for name, numbers in labels.items()}
  if len(masks) > 1:
    masks = {ANY: found > 0, **masks}
  return {name: mask for name, mask in masks.items() if mask.any()}


def smaller(scan: Scan, name: str, tokens_per_frame: int) -> Scan:
  """The scan under the token budget that it would have as a part of a longer one."""
  most = tokens_per_frame * scan.voxels.values.shape[2]
  return dataclasses.replace(
    scan, name=name, policy=dataclasses.replace(scan.policy, max_tokens=most)
  )


def smoothed(scan: Scan, name: str) -> Scan:
  """The scan with less noise: every voxel the mean of 3 x 3 in its slice (along i and j)."""
  values = np.pad(scan.voxels.values.astype(np.float64), ((1, 1), (1, 1), (0, 0)), "edge")
  rows, columns = (n - 2 for n in values.shape[:2])
  mean = sum(values[i : i + rows, j : j + columns] for i in range(3) for j in range(3)) / 9
  kept = np.rint(mean).astype(scan.voxels.values.dtype)
  return dataclasses.replace(scan, name=name, voxels=dataclasses.replace(scan.voxels, values=kept))


def ct(data: Path) -> list[Scan]:
  """A CT of 1 mm pixels, the same with the tokens of a 180-slice study and with less noise, and
  one of 3 mm voxels of another patient."""
  root, options = data / "vol_totalsegmentator" / "public", Options(modality="CT")
  fine = dicom_voxels(root / "example_ct_dicom")
  coarse = nifti_voxels(root / "example_ct_sm.nii.gz", options)
  first = Scan(
    "CT A",
    fine,
    options,
    organs(root / "example_ct_dicom_seg.nii.gz", fine, CT_LABELS),
    vision.HULUMED,
  )
  second = Scan(
    "CT B",
    coarse,
    options,
    organs(root / "example_seg.nii.gz", coarse, CT_LABELS),
    vision.HULUMED,
  )
  # 16,384 tokens over 180 slices are 91 each: 9 x 9.
  return [
    first,
    smaller(first, "CT A, as of 180 slices", 91),
    smoothed(first, "CT A, smoothed"),
    second,
  ]


def mr(data: Path) -> list[Scan]:
  """The MR volumes that have masks."""
  options, trunk = Options(modality="MR"), data / "vol_totalsegmentator" / "public"
  cord = data / "vol_spinalcord_mr" / "public"
  files = (
    ("MR trunk", trunk / "example_mr_sm.nii.gz", trunk / "example_seg_mr.nii.gz", MR_LABELS),
    ("MR neck T2", cord / "t2.nii.gz", cord / "t2_seg-manual.nii.gz", {"spinal cord": (1,)}),
    (
      "MR neck T2*",
      cord / "t2s_uncropped.nii.gz",
      cord / "t2s_uncropped_gmseg_manual.nii.gz",
      {"grey matter of the cord": (1,)},
    ),
  )
  scans = []
  for name, path, mask, labels in files:
    voxels = nifti_voxels(path, options)
    scans.append(Scan(name, voxels, options, organs(mask, voxels, labels), vision.HULUMED))
  return scans


def clips(data: Path) -> list[tuple[str, Path]]:
  """Patient and file of every lung-ultrasound clip."""
  root = data / "vid_pocus_lung" / "public"
  rows = [json.loads(line) for line in (root / "clips.jsonl").read_text().splitlines()]
  return [(row["patient"], root / row["clip"]) for row in rows]
