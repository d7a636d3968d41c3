"""PET: from the values of a slice to SUV by body weight, or the reason why they stay activity.

Follows the vendor-neutral pseudo-code of the QIBA FDG-PET/CT profile, "happy path only" (SUVbw =
activity x weight / dose decayed to the time that the activity refers to), and PS3.3 C.8.9.1.
Weights, doses and times are patient data: none of them stands in a reason.
"""

import dataclasses
import datetime
import math
import re

from pydicom.dataset import Dataset

from hulu_jax.media.dicom import header

SUV, ACTIVITY = "SUVbw", "Bq/ml"
# (0054,1006) SUVType, of values that the scanner has already divided by weight or surface.
_SUV_TYPES = {None: SUV, "BW": SUV, "IBW": "SUVibw", "BSA": "SUVbsa"}
_LEAN = ("LBM", "LBMJAMES128", "LBMJANMA")
_PHILIPS = "Philips PET Private Group"
_GE = "GEMS_PETD_01"
_DAY = 86_400.0
# A scan may start shortly before the injection (dynamic series).
_BEFORE_INJECTION = 600.0
# Beyond, nothing would be left to see: a date or time must be wrong or altered.
_MOST_HALF_LIVES = 10
# An injection given without date can only be put on the day of the scan, or the one before, if
# the tracer would not have lasted for longer.
_LONGEST_WITHOUT_DATE = 6 * 3600.0
# Bounds of what can be meant in Bq and kg: a dose in MBq or a weight in g must not pass.
_LEAST_DOSE, _MOST_DOSE, _MOST_WEIGHT = 1e5, 1e11, 500.0
_DISAGREEMENT = 60.0


@dataclasses.dataclass(frozen=True)
class Scale:
  """Multiply rescaled values by `factor` to have them in `units` (None if unknown)."""

  factor: float
  units: str | None
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Moment:
  """seconds: since one same day for all, or since midnight where the file gives no date."""

  seconds: float
  dated: bool


def scale(dataset: Dataset) -> Scale:
  """How the rescaled values of one PET slice become SUVbw, or Bq/ml, or another known unit.

  GML is grams per millilitre, that is SUV: by body weight unless SUVType says otherwise.  CNTS with
  a Philips factor is taken to SUV by it, or to activity by the other one.
  """
  units = header.text(dataset, "Units")
  kind = header.text(dataset, "SUVType")
  if units == "GML" and kind in _SUV_TYPES:
    return Scale(1.0, _SUV_TYPES[kind])
  if units == "GML" and kind in _LEAN:
    return Scale(1.0, "SUVlbm")
  if units == "CM2ML":
    return Scale(1.0, "SUVbsa")
  if units == "BQML":
    return _from_activity(dataset, 1.0)
  if units == "CNTS":
    factor = _private(dataset, 0x7053, _PHILIPS, 0x00)
    if factor is not None:
      return Scale(factor, SUV)
    to_activity = _private(dataset, 0x7053, _PHILIPS, 0x09)
    if to_activity is not None:
      return _from_activity(dataset, to_activity)
  return Scale(1.0, None, ("PET values in units that cannot be taken to SUV or activity",))


def _from_activity(dataset: Dataset, to_activity: float) -> Scale:
  dose = _dose_left(dataset)
  weight = _number(dataset, "PatientWeight")
  if weight is None or not 0 < weight < _MOST_WEIGHT:
    dose = "no plausible weight in kg"
  if isinstance(dose, str) or weight is None:
    note = f"SUV could not be computed ({dose}): values are activity in {ACTIVITY}"
    return Scale(to_activity, ACTIVITY, (note,))
  return Scale(to_activity * weight * 1000 / dose, SUV, _disagreement(dataset))


def _dose_left(dataset: Dataset) -> float | str:
  """Bq of the injected dose that are left when the values were valid; else why it is unknown."""
  items = list(dataset.get("RadiopharmaceuticalInformationSequence") or ())
  if len(items) != 1:
    return f"{len(items)} radiopharmaceuticals, expected 1"
  injected = items[0]
  dose = _number(injected, "RadionuclideTotalDose")
  half_life = _number(injected, "RadionuclideHalfLife")
  if dose is None or not _LEAST_DOSE <= dose <= _MOST_DOSE:
    return "no plausible dose in Bq"
  if half_life is None or half_life <= 0:
    return "no half-life"
  corrected = [str(v) for v in _values(dataset, "CorrectedImage")]
  if corrected and "ATTN" not in corrected:
    return "not corrected for attenuation"
  decay = header.text(dataset, "DecayCorrection")
  if decay in ("START", "ADMIN") and corrected and "DECY" not in corrected:
    return "the header contradicts itself on decay correction"
  if decay == "ADMIN":
    return dose
  if decay == "START":
    valid: _Moment | str = _series_start(dataset, half_life)
  elif decay == "NONE":
    valid = _moment(dataset, "Acquisition") or "no acquisition time"
  else:
    return "decay correction is not told"
  if isinstance(valid, str):
    return valid
  elapsed = _elapsed(injected, valid, half_life, header.text(dataset, "TimezoneOffsetFromUTC"))
  if isinstance(elapsed, str):
    return elapsed
  left = dose * 2 ** (-elapsed / half_life)
  return left * _mean_over_frame(dataset, half_life) if decay == "NONE" else left


def _mean_over_frame(dataset: Dataset, half_life: float) -> float:
  """Mean activity while a frame is taken, over that at its start; 1 if its duration is not told."""
  x = math.log(2) / half_life * _frame_seconds(dataset)
  return -math.expm1(-x) / x if x > 0 else 1.0


def _series_start(dataset: Dataset, half_life: float) -> _Moment | str:
  """The moment that START refers to.

  A series made afterwards carries the time of its making, later than the acquisition: then the
  scanner's own scan time (GE), or what FrameReferenceTime counts from, is taken.
  """
  series = _moment(dataset, "Series")
  acquired = _moment(dataset, "Acquisition")
  if series is not None and (acquired is None or _gap(series, acquired) >= 0):
    return series
  made = _private_text(dataset, 0x0009, _GE, 0x0D)
  scanned = _parse(made[:8], made[8:]) if made else None
  if scanned is not None:
    return scanned
  counted = _counted_start(dataset, half_life)
  return "the series time lies after the acquisition" if counted is None else counted


def _counted_start(dataset: Dataset, half_life: float) -> _Moment | None:
  """Where FrameReferenceTime counts from: it points to the moment within the frame at which the
  activity equals its mean."""
  acquired = _moment(dataset, "Acquisition")
  reference = _number(dataset, "FrameReferenceTime")
  duration = _frame_seconds(dataset)
  if acquired is None or not reference or duration <= 0:
    return None
  mean = _mean_over_frame(dataset, half_life)
  within = -math.log2(mean) * half_life
  return _Moment(acquired.seconds + within - reference / 1000, acquired.dated)


def _disagreement(dataset: Dataset) -> tuple[str, ...]:
  """A warning if DecayCorrection START has two times in the file that are far apart."""
  items = list(dataset.get("RadiopharmaceuticalInformationSequence") or ())
  half_life = _number(items[0], "RadionuclideHalfLife") or 0.0
  if header.text(dataset, "DecayCorrection") != "START":
    return ()
  used, counted = _series_start(dataset, half_life), _counted_start(dataset, half_life)
  if isinstance(used, str) or counted is None or abs(_gap(used, counted)) <= _DISAGREEMENT:
    return ()
  return ("series time and frame reference time disagree: SUV may be off by the decay between",)


def _elapsed(injected: Dataset, valid: _Moment, half_life: float, zone: str | None) -> float | str:
  """Seconds from the injection to `valid`, a time in `zone` ("+0100"), or why they are unknown."""
  start = _dated_start(injected, zone)
  if start is not None and start.dated and valid.dated:
    elapsed = valid.seconds - start.seconds
  else:
    time = header.text(injected, "RadiopharmaceuticalStartTime")
    start = _parse(None, time) if time else start
    if start is None:
      return "no injection time"
    if half_life > _LONGEST_WITHOUT_DATE:
      return "no injection date for a long-lived tracer"
    # Midnight may lie between, or the scan may start just before the injection.
    elapsed = (valid.seconds - start.seconds) % _DAY
    if elapsed > _DAY - _BEFORE_INJECTION:
      elapsed -= _DAY
  if not -_BEFORE_INJECTION <= elapsed <= _MOST_HALF_LIVES * half_life:
    return "injection and scan lie implausibly far apart; dates or times may have been altered"
  return elapsed


def _dated_start(injected: Dataset, zone: str | None) -> _Moment | None:
  """RadiopharmaceuticalStartDateTime as a time in `zone`; None if absent, or if it names a time
  zone while the times of the scan name none."""
  text = header.text(injected, "RadiopharmaceuticalStartDateTime") or ""
  found = re.fullmatch(r"(\d{8})([\d.]+)([-+]\d{4})?", text)
  start = _parse(found[1], found[2]) if found else None
  if found is None or start is None or found[3] is None:
    return start
  if zone is None or not re.fullmatch(r"[-+]\d{4}", zone):
    return None
  return dataclasses.replace(start, seconds=start.seconds + _east(zone) - _east(found[3]))


def _east(zone: str) -> float:
  """Seconds that a time zone is ahead of UTC."""
  seconds = int(zone[1:3]) * 3600 + int(zone[3:]) * 60
  return -seconds if zone[0] == "-" else seconds


def _gap(earlier: _Moment, later: _Moment) -> float:
  """Seconds between; without dates the shorter way around midnight."""
  seconds = later.seconds - earlier.seconds
  if earlier.dated and later.dated:
    return seconds
  return (seconds + _DAY / 2) % _DAY - _DAY / 2


def _moment(dataset: Dataset, what: str) -> _Moment | None:
  """Of "Series" or "Acquisition"; no date is borrowed, since midnight may lie between."""
  date, time = header.text(dataset, f"{what}Date"), header.text(dataset, f"{what}Time")
  return _parse(date, time)


def _parse(date: str | None, time: str | None) -> _Moment | None:
  """DICOM DA (or none) and TM, also with the separators of ACR-NEMA; None if not a time."""
  found = re.fullmatch(
    r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?)?)?", (time or "").strip()
  )
  if found is None:
    return None
  hours, minutes, whole, part = (float(n or 0) for n in found.groups())
  seconds = hours * 3600 + minutes * 60 + whole + part
  digits = re.fullmatch(r"(\d{4})[.]?(\d\d)[.]?(\d\d)", (date or "").strip())
  if digits is None:
    return _Moment(seconds, dated=False)
  try:
    day = datetime.date(*(int(d) for d in digits.groups())).toordinal()
  except ValueError:  # February 30th: as good as no date
    return _Moment(seconds, dated=False)
  return _Moment(day * _DAY + seconds, dated=True)


def _frame_seconds(dataset: Dataset) -> float:
  return max(_number(dataset, "ActualFrameDuration") or 0.0, 0.0) / 1000


def _number(dataset: Dataset, keyword: str) -> float | None:
  value = dataset.get(keyword)
  number = None if value in (None, "") else float(value)
  return number if number is not None and math.isfinite(number) else None


def _values(dataset: Dataset, keyword: str) -> list[object]:
  value = dataset.get(keyword)
  if value in (None, ""):
    return []
  return [value] if isinstance(value, str) else list(value)


def _private_text(dataset: Dataset, group: int, creator: str, element: int) -> str | None:
  if creator not in dataset.private_creators(group):
    return None
  block = dataset.private_block(group, creator)
  if element not in block:
    return None
  value = block[element].value
  # Of unknown representation (UN) where a file was re-encoded.
  text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
  return text.strip(" \0") or None


def _private(dataset: Dataset, group: int, creator: str, element: int) -> float | None:
  """A positive number in a private element, None if there is none."""
  text = _private_text(dataset, group, creator, element) or ""
  if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
    return None
  return float(text) if float(text) > 0 else None
