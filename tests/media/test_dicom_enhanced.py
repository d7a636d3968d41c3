"""Volumes in one file: enhanced ones, split by their functional groups, and Siemens mosaics."""

import gzip
from pathlib import Path
import re

from nibabel import nicom
from nibabel.nicom import csareader
import numpy as np
import pydicom
from pydicom.dataset import Dataset
import pytest

from hulu_jax.media import DEFAULT
from hulu_jax.media import BadRecord
from hulu_jax.media import read
from hulu_jax.media.dicom import mosaic
from hulu_jax.media.dicom.reader import phases
from tests.media.made import CANARY
from tests.media.made import dicom_dataset
from tests.media.made import dicom_voxels
from tests.media.made import phantom

NICOM = Path(nicom.__file__).parent / "tests" / "data"


def check(folder: Path, names: tuple[str, ...]) -> None:
  """Volume k of `names` is phantom volume k."""
  assert phases(folder, DEFAULT) == names
  for number, name in enumerate(names):
    values = dicom_voxels(folder, name).values
    np.testing.assert_array_equal(values, phantom() + 1000 * number)


DIRECTIONS = ([1, 0, 0], [0, 1, 0], [0, 0, 1])


def item(**elements) -> Dataset:
  dataset = Dataset()
  for keyword, value in elements.items():
    setattr(dataset, keyword, value)
  return dataset


def enhanced(volumes, **elements) -> pydicom.FileDataset:
  """One file of phantom volumes, its frames shuffled; volumes: functional groups of each."""
  frames, groups = [], []
  for number, of_volume in enumerate(volumes):
    for k in range(8):
      place = item(ImagePositionPatient=[0, 0, k])
      groups.append(item(PlanePositionSequence=[place], **of_volume))
      frames.append(phantom()[:, :, k] + 1000 * number)
  order = np.random.default_rng(5).permutation(len(frames))
  dataset = dicom_dataset(np.stack([frames[k] for k in order]), **({"Modality": "MR"} | elements))
  dataset.SharedFunctionalGroupsSequence = [
    item(
      PixelMeasuresSequence=[item(PixelSpacing=[1, 1])],
      PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
  ]
  dataset.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
  return dataset


def content(**elements):
  return {"FrameContentSequence": [item(**elements)]}


def diffusion(b, direction=None):
  macro = item(DiffusionBValue=b) if b else item(DiffusionDirectionality="NONE")
  if direction:
    macro.DiffusionGradientDirectionSequence = [item(DiffusionGradientOrientation=direction)]
  return {"MRDiffusionSequence": [macro]}


def frame_type(value, component="MAGNITUDE"):
  macro = item(FrameType=["ORIGINAL", "PRIMARY", "DIXON", value], ComplexImageComponent=component)
  return {"MRImageFrameTypeSequence": [macro]}


ENHANCED = {
  "temporal": ([content(TemporalPositionIndex=n) for n in (1, 2)], ("temporal-1", "temporal-2")),
  "echo": (
    [{"MREchoSequence": [item(EffectiveEchoTime=t)]} for t in (2.3, 4.6)],
    ("echo-1", "echo-2"),
  ),
  "b-value": ([diffusion(0), diffusion(1000.0)], ("b-0", "b-1000")),
  "directions": (
    [diffusion(0), *(diffusion(700.0, d) for d in DIRECTIONS[::-1])],
    ("direction-0", "direction-1", "direction-2", "direction-3"),
  ),
  "b and direction": (
    [diffusion(b, d) for b in (500.0, 900.0) for d in DIRECTIONS[1::-1]],
    ("b-500/direction-0", "b-500/direction-1", "b-900/direction-0", "b-900/direction-1"),
  ),
  "type": ([frame_type("FAT"), frame_type("WATER")], ("type-FAT", "type-WATER")),
  "component": (
    [frame_type("NONE"), frame_type("NONE", "PHASE")],
    ("type-MAGNITUDE", "type-PHASE"),
  ),
  "heart": (
    [
      {"CardiacSynchronizationSequence": [item(NominalCardiacTriggerDelayTime=t)]}
      for t in (0.0, 33.0)
    ],
    ("trigger-0ms", "trigger-33ms"),
  ),
  "stack": ([content(StackID=name) for name in ("1", CANARY)], ("stack-1", "stack-2")),
  "acquisition": (
    [content(FrameAcquisitionNumber=n) for n in (4, 7)],
    ("acquisition-4", "acquisition-7"),
  ),
  "energy": (
    [{"CTXRayDetailsSequence": [item(KVP=v)]} for v in (70.0, 150.0)],
    ("kvp-70", "kvp-150"),
  ),
}


@pytest.mark.parametrize("case", ENHANCED)
def test_enhanced_files_are_split_by_their_functional_groups(case, tmp_path):
  groups, names = ENHANCED[case]
  path = tmp_path / "a"
  enhanced(groups).save_as(path, enforce_file_format=True)
  check(path, names)
  assert phases(tmp_path, DEFAULT) == names
  with pytest.raises(BadRecord, match=re.escape(", ".join(names))):
    read(path)


def test_enhanced_ct_mr_and_pet_are_volumes_scaled_frame_by_frame(tmp_path):
  for modality in ("CT", "MR", "PT"):
    dataset = enhanced([{}], Modality=modality)
    for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
      group.PixelValueTransformationSequence = [item(RescaleSlope=k + 1, RescaleIntercept=-k)]
    dataset.save_as(tmp_path / modality, enforce_file_format=True)
    values = dicom_voxels(tmp_path / modality).values
    for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
      z = int(group.PlanePositionSequence[0].ImagePositionPatient[2])
      np.testing.assert_allclose(values[:, :, z], phantom()[:, :, z] * (k + 1.0) - k)


def test_one_series_may_lie_in_several_enhanced_files(tmp_path):
  for number, b in enumerate((0, 800.0)):
    dataset = enhanced([{}] * number + [diffusion(b)])
    dataset.NumberOfFrames = 8
    del dataset.PerFrameFunctionalGroupsSequence[8:]
    dataset.PixelData = dataset.PixelData[: 8 * 240]
    if number:
      whole = enhanced([diffusion(b)])
      whole.PixelData = (np.frombuffer(whole.PixelData, np.int16) + 1000).tobytes()
      dataset = whole
    dataset.save_as(tmp_path / f"{number}", enforce_file_format=True)
  check(tmp_path, ("b-0", "b-800"))


def test_enhanced_files_that_do_not_add_up_are_refused(tmp_path):
  dataset = enhanced([{}])
  del dataset.PerFrameFunctionalGroupsSequence[5]
  dataset.save_as(tmp_path / "a", enforce_file_format=True)
  with pytest.raises(BadRecord, match="7 functional groups for 8 frames"):
    read(tmp_path / "a")
  dataset = enhanced([{}])
  del dataset.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence
  dataset.save_as(tmp_path / "b", enforce_file_format=True)
  with pytest.raises(BadRecord, match="a slice without position"):
    read(tmp_path / "b")


def test_an_enhanced_file_without_places_is_a_cine(tmp_path):
  dataset = enhanced([{}], Modality="XA", FrameTime=100)
  del dataset.SharedFunctionalGroupsSequence
  for group in dataset.PerFrameFunctionalGroupsSequence:
    del group.PlanePositionSequence
    group.FrameContentSequence = [item(StackID="1")]
  dataset.save_as(tmp_path / "a", enforce_file_format=True)
  assert read(tmp_path / "a").kind == "video"


def test_a_real_enhanced_mr_lies_where_nibabel_puts_it(tmp_path):
  """The pixels of this file are all 0, so only its geometry can be compared."""
  path = unpacked(tmp_path, "philips_mprage.dcm.gz")
  wrapper = nicom.dicomwrappers.wrapper_from_file(path)
  assert phases(path, DEFAULT) == ()
  voxels = dicom_voxels(path)
  assert voxels.values.shape == wrapper.image_shape and voxels.plane == "sagittal"
  # nibabel counts the slices the other way and knows their distance only to three digits.
  flipped = voxels.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 175], [0, 0, 0, 1.0]])
  flipped[:2] *= -1
  np.testing.assert_allclose(flipped, wrapper.affine, atol=2e-3)


# --- mosaics


def unpacked(folder: Path, name: str) -> Path:
  path = folder / name.removesuffix(".gz")
  path.write_bytes(gzip.decompress((NICOM / name).read_bytes()))
  return path


def test_a_folder_of_mosaics_is_a_set_of_phases(tmp_path):
  folder = tmp_path / "s"
  folder.mkdir()
  paths = {f"b-{b}": unpacked(folder, f"siemens_dwi_{b}.dcm.gz") for b in (1000, 0)}
  assert phases(folder, DEFAULT) == ("b-0", "b-1000")
  for name, path in paths.items():
    wrapper = nicom.dicomwrappers.wrapper_from_file(path)
    voxels = dicom_voxels(folder, name)
    np.testing.assert_array_equal(voxels.values, wrapper.get_unscaled_data())
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ voxels.affine, wrapper.affine, atol=1e-4)
  media = read(paths["b-0"])
  assert media.kind == "volume" and media.axis_codes == "IPL" and len(media.frames) == 48


def test_mosaic_slices_lie_where_the_protocol_planned_them(tmp_path):
  """The protocol that Siemens stores beside gives the centre of every slice in LPS."""
  path = unpacked(tmp_path, "siemens_dwi_0.dcm.gz")
  text = csareader.get_csa_header(pydicom.dcmread(path), "series")["tags"]["MrPhoenixProtocol"]
  pattern = r"asSlice\[(\d+)\]\.sPosition\.d(Sag|Cor|Tra)\s*=\s*(\S+)"
  planned = np.zeros((48, 3))
  for k, axis, value in re.findall(pattern, text["items"][0]):
    planned[int(k), ("Sag", "Cor", "Tra").index(axis)] = float(value)
  voxels = dicom_voxels(path)
  # The centre of an even number of voxels is the first one past the middle.
  centres = np.array([voxels.affine[:3] @ [64, 64, k, 1] for k in range(48)])
  np.testing.assert_allclose(centres * [-1, -1, 1], planned, atol=1e-3)


def test_mosaic_slices_follow_siemens_normal():
  """In this file they run against the cross product of rows and columns."""
  dataset = pydicom.dcmread(NICOM / "csa_slice_norm.dcm")
  csa = csareader.get_csa_header(dataset)
  frames = mosaic.frames(Path("a"), dataset)
  step = frames[1].plane.position - frames[0].plane.position
  assert len(frames) == csareader.get_n_mosaic(csa)
  np.testing.assert_allclose(step, 1.5 * csareader.get_slice_normal(csa), atol=1e-5)


def test_tiles_are_taken_row_by_row():
  tiles = [np.full((2, 3), n) for n in range(4)]
  picture = np.block([tiles[:2], tiles[2:]])
  for number in (3, 4):
    np.testing.assert_array_equal(mosaic.tiles(picture, number), tiles[:number])


def test_b_values_may_stand_only_in_siemens_own_header(tmp_path):
  for b in (0, 1000):
    path = unpacked(tmp_path, f"siemens_dwi_{b}.dcm.gz")
    dataset = pydicom.dcmread(path)
    dataset.walk(lambda d, e: e.tag.group == 0x19 and d.__delitem__(e.tag))
    dataset.save_as(path)
  assert phases(tmp_path, DEFAULT) == ("b-0", "b-1000")


def test_a_mosaic_without_its_private_header_is_refused(tmp_path):
  path = unpacked(tmp_path, "siemens_dwi_0.dcm.gz")
  dataset = pydicom.dcmread(path)
  dataset.remove_private_tags()
  dataset.save_as(path)
  with pytest.raises(BadRecord, match="a mosaic without Siemens' private header"):
    read(path)
