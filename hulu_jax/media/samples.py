"""Medical pictures that ship inside installed packages: real input for the quick start and tests.

Every picture was looked at, as cropped here: no name, date or other text is in it.  Left out: files
with burned-in dates (pydicom's examples_palette), with an unclear licence (693_J2KI,
J2K_pixelrep_mismatch, examples_overlay), copies of a picture listed here in another encoding
(examples_jpeg2k is examples_rgb_color, example_nifti2 is a thinned example4d, functional and the
two *_anat_moved lie in the space of anatomical), and pictures of nothing medical.
"""

import dataclasses
import importlib.util
from pathlib import Path

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.read import read
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

_PYDICOM = "pydicom MIT; NEMA WG04 sample sets"
_NIBABEL = "nibabel MIT, sample data of its test suite"
_MNI = (
  "ICBM 152 template, (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal "
  "Neurological Institute, McGill University; free use with this notice"
)
_EXTRA = ("skimage", "nilearn")  # installed by the extra `quickstart`


@dataclasses.dataclass(frozen=True)
class Sample:
  """name; package and path: where it lies; kind: of the `Media` it becomes; split: "train" or
  "test", by file; crop: see `Options`; note: what must be said with it."""

  name: str
  package: str
  path: str
  kind: str
  modality: str | None
  split: str
  licence: str
  crop: tuple[int, int, int, int] | None = None
  time_index: int | None = None
  note: str = ""


_DICOM = "data/test_files/"
_NIFTI = "tests/data/"
TABLE = (
  Sample("ct", "pydicom", _DICOM + "CT_small.dcm", "image", "CT", "train", _PYDICOM),
  Sample("mr", "pydicom", _DICOM + "MR_small.dcm", "image", "MR", "test", _PYDICOM),
  Sample(
    "doppler",
    "pydicom",
    _DICOM + "examples_rgb_color.dcm",
    "image",
    "US",
    "test",
    _PYDICOM,
    crop=(57, 23, 166, 296),  # the file declares no region; clear of the colour bars' labels
  ),
  Sample(
    "cine",
    "pydicom",
    _DICOM + "examples_ybr_color.dcm",
    "video",
    "US",
    "test",
    "pydicom MIT",
    crop=(45, 75, 205, 245),  # the declared region is that of the picture before it was shrunk
  ),
  Sample("fundus", "skimage", "data/retina.jpg", "image", None, "train", "CC0 1.0"),
  Sample("microaneurysms", "skimage", "data/microaneurysms.png", "image", None, "train", "CC0 1.0"),
  Sample(
    "histology",
    "skimage",
    "data/ihc.png",
    "image",
    None,
    "test",
    "no known copyright restrictions (scikit-image)",
  ),
  Sample(
    "brain_epi", "nibabel", _NIFTI + "example4d.nii.gz", "volume", "MR", "train", _NIBABEL, None, 0
  ),
  Sample("brain_t1_crop", "nibabel", _NIFTI + "anatomical.nii", "volume", "MR", "test", _NIBABEL),
  Sample(
    "brain_epi_crop",
    "nibabel",
    _NIFTI + "example4d+orig.HEAD",
    "volume",
    "MR",
    "test",
    _NIBABEL,
    None,
    0,
    "not example4d.nii.gz: another acquisition, grid and field of view",
  ),
  Sample(
    "brain_talairach", "nibabel", _NIFTI + "scaled+tlrc.HEAD", "volume", "MR", "train", _NIBABEL
  ),
  Sample(
    "phantom",
    "nibabel",
    _NIFTI + "phantom_EPI_asc_CLEAR_2_1.PAR",
    "volume",
    "MR",
    "train",
    "nibabel MIT; PDDL 1.0",
    None,
    0,
    "a water bottle, not a patient",
  ),
  Sample(
    "mni_template",
    "nilearn",
    "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "volume",
    "MR",
    "train",
    _MNI,
    note="a template averaged over 152 brains, not a patient",
  ),
)


def names(split: str | None = None) -> tuple[str, ...]:
  """Names of all samples, or of those in `split` ("train" or "test")."""
  if split not in (None, "train", "test"):
    raise ValueError(f"unknown split {split!r}; there are: train, test")
  return tuple(s.name for s in TABLE if split in (None, s.split))


def get(name: str) -> Sample:
  """The table's entry; raises ValueError naming what there is."""
  for sample in TABLE:
    if sample.name == name:
      return sample
  raise ValueError(f"unknown sample {name!r}; there are: {', '.join(names())}")


def locate(name: str) -> Path:
  """Where the sample lies; BadRecord says what to install if its package is absent."""
  sample = get(name)
  found = importlib.util.find_spec(sample.package)
  folders = found.submodule_search_locations if found is not None else None
  if not folders:
    remedy = "pip install 'hulu_jax[quickstart]'" if sample.package in _EXTRA else "reinstall it"
    raise BadRecord("missing", f"sample {name} ships in {sample.package}, not installed: {remedy}")
  path = Path(folders[0]) / sample.path
  if not path.is_file():
    raise BadRecord("missing", f"{sample.package} is installed without {sample.path}: reinstall it")
  return path


def load(name: str, *, preset: str = "radiology") -> Media:
  """The sample, read by `media.read`, cut to where no text is; all frames of a clip."""
  sample = get(name)
  path = locate(name)
  frames = 1000 if sample.kind == "video" else None
  modality = sample.modality if sample.kind == "volume" else None
  options = Options(
    modality=modality, time_index=sample.time_index, frames=frames, crop=sample.crop
  )
  media = read(path, options, preset=preset)
  return dataclasses.replace(
    media,
    modality=sample.modality,
    notes=(*media.notes, *((sample.note,) if sample.note else ())),
  )
