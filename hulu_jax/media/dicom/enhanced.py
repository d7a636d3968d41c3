"""Enhanced multi-frame files: each frame placed, scaled and marked by its functional groups."""

from pathlib import Path

from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import marks
from hulu_jax.media.dicom import stack
from hulu_jax.media.errors import BadRecord

# What scales and windows a frame's values, in the order in which later ones win.
_SCALES = (
  "RealWorldValueMappingSequence",
  "FrameVOILUTSequence",
  "PixelValueTransformationSequence",
)
_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")


def is_volume(dataset: Dataset) -> bool:
  """True if functional groups place the frames in the patient; else it is a picture or a cine."""
  return any(
    group.get("PlanePositionSequence")
    for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
    for group in list(dataset.get(keyword) or ())[:1]
  )


def frames(path: Path, dataset: Dataset) -> list[marks.Frame]:
  """All frames of an enhanced file.  Raises BadRecord if one is not placed in the patient."""
  count, rows, columns = header.shape(dataset)
  groups = dataset.get("PerFrameFunctionalGroupsSequence")
  if groups is not None and len(groups) != count:
    raise BadRecord("geometry", f"{len(groups)} functional groups for {count} frames")
  found = []
  for k in range(count):
    own = stack.plane(
      _macro(dataset, k, "PlanePositionSequence"),
      _macro(dataset, k, "PlaneOrientationSequence"),
      _macro(dataset, k, "PixelMeasuresSequence"),
    )
    found.append(marks.Frame(path, k, (rows, columns), own, _marks(dataset, k)))
  return found


def plane_names(dataset: Dataset) -> set[str | None]:
  """The anatomical planes of all frames, None among them where one is not placed."""
  turns = [_macro(dataset, k, "PlaneOrientationSequence") for k in range(header.shape(dataset)[0])]
  return {stack.plane_name(turn) for turn in turns}


def scale(dataset: Dataset, frame: int) -> Dataset:
  """The elements of rescale and window of a frame, as a file with one picture has them."""
  merged = Dataset()
  for keyword in _SCALES:
    macro = _macro(dataset, frame, keyword)
    if keyword == "RealWorldValueMappingSequence":
      if macro:
        merged.RealWorldValueMappingSequence = [macro]
    else:
      merged.update(macro)
  return merged


def _marks(dataset: Dataset, frame: int) -> marks.Marks:
  content = _macro(dataset, frame, "FrameContentSequence")
  diffusion = _macro(dataset, frame, "MRDiffusionSequence")
  direction = (diffusion.get("DiffusionGradientDirectionSequence") or [Dataset()])[0]
  heart = _macro(dataset, frame, "CardiacSynchronizationSequence")
  rays = _macro(dataset, frame, "CTXRayDetailsSequence")
  kind = next((m for m in (_macro(dataset, frame, t) for t in _TYPES) if m), Dataset())
  b_value = marks.number(diffusion, "DiffusionBValue")
  if b_value is None and header.text(diffusion, "DiffusionDirectionality") == "NONE":
    b_value = 0.0
  return marks.Marks(
    stack=header.text(content, "StackID"),
    b_value=b_value,
    echo_ms=marks.number(_macro(dataset, frame, "MREchoSequence"), "EffectiveEchoTime"),
    types=marks.strings(kind, "FrameType") + marks.strings(kind, "ComplexImageComponent"),
    kvp=marks.number(rays, "KVP"),
    energy_kev=marks.number(rays, "MonoenergeticEnergyEquivalent"),
    temporal=marks.whole(content, "TemporalPositionIndex"),
    trigger_ms=marks.number(heart, "NominalCardiacTriggerDelayTime"),
    acquisition=marks.whole(content, "FrameAcquisitionNumber"),
    direction=marks.vector(direction, "DiffusionGradientOrientation"),
  )


def _macro(dataset: Dataset, frame: int, keyword: str) -> Dataset:
  """The functional group `keyword` of a frame, else the shared one, else empty."""
  groups = [
    *dataset.get("PerFrameFunctionalGroupsSequence", [])[frame : frame + 1],
    *dataset.get("SharedFunctionalGroupsSequence", [])[:1],
  ]
  for group in groups:
    if group.get(keyword):
      return group[keyword].value[0]
  return Dataset()
