"""Where text about a patient may stand in the pixels themselves."""

from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header
from hulu_jax.media.errors import BadRecord

_SPATIAL_2D = 1
_OFTEN_ANNOTATED = {"US", "IVUS", "SC", "OT", "XA", "RF", "ES"}


def ultrasound_region(dataset: Dataset) -> tuple[int, int, int, int]:
  """(top, left, bottom, right) around all 2D regions of SequenceOfUltrasoundRegions.

  Outside of it scanners write names, dates and findings.  Raises BadRecord if none is declared.
  """
  regions = list(dataset.get("SequenceOfUltrasoundRegions") or ())
  flat = [r for r in regions if r.get("RegionSpatialFormat") == _SPATIAL_2D]
  if not flat:
    raise BadRecord(
      "geometry", "no 2D ultrasound region is declared; give top, left, bottom, right"
    )
  return (
    min(int(r.RegionLocationMinY0) for r in flat),
    min(int(r.RegionLocationMinX0) for r in flat),
    max(int(r.RegionLocationMaxY1) for r in flat) + 1,
    max(int(r.RegionLocationMaxX1) for r in flat) + 1,
  )


def warnings(dataset: Dataset, cropped: bool) -> list[str]:
  """What a user must know before such pixels leave the house."""
  if header.text(dataset, "BurnedInAnnotation") == "YES":
    return ["the file says that text is burned into its pixels"]
  if not cropped and header.modality(dataset) in _OFTEN_ANNOTATED:
    return ["this kind of picture often carries burned-in text: look before sharing it"]
  return []
