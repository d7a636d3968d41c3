"""Slices that share positions told apart by what was varied (echo, b-value, time) into volumes."""

from collections.abc import Callable, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from hulu_jax.media.dicom import stack
from hulu_jax.media.dicom.marks import Frame
from hulu_jax.media.dicom.marks import Marks

# ImageType, FrameType and ComplexImageComponent are coded but open to the maker: only values known
# to name a kind of picture are repeated, makers' short forms as the standard's words.
_TYPES = {
  "M": "MAGNITUDE",
  "M_FFE": "MAGNITUDE",
  "M_SE": "MAGNITUDE",
  "P": "PHASE",
  "PHASE MAP": "PHASE",
  "R": "REAL",
  "I": "IMAGINARY",
  "W": "WATER",
  "F": "FAT",
  "IP": "IN_PHASE",
  "OP": "OUT_PHASE",
  "OPP_PHASE": "OUT_PHASE",
  "TRACEW": "TRACE",
  "FA": "FRACTIONAL_ANISOTROPY",
  "VELOCITY MAP": "VELOCITY",
  **{
    name: name
    for name in (
      "ADC AVERAGE DETECTOR_A DETECTOR_B DIFFUSION DYNAMIC EADC EFF_ATOMIC_NUM ELECTRON_DENSITY "
      "FAT FAT_FRACTION FRACTIONAL_ANISOTROPY IMAGINARY IN_PHASE IODINE LATE MAGNITUDE "
      "MAT_FRACTIONAL MAT_MODIFIED MAT_REMOVED MAT_SPECIFIC MAT_VALUE_BASED MAXIMUM MEAN MINIMUM "
      "MOTION_CORRECTED MTT ND NORM OUT_PHASE PERFUSION PHASE R2_MAP R2STAR_MAP RCBF RCBV REAL "
      "STANDARD T1_MAP T2_MAP T2STAR_MAP TRACE TTP VELOCITY VMI VNC WATER"
    ).split()
  },
}
_MOST_CRITERIA = 3
_LEAST_SLICES = 3  # of a volume, where volumes do not cover the same positions


_Names = Callable[[list[Any]], list[str]]


@dataclasses.dataclass(frozen=True)
class _Criterion:
  """key: what is compared, sortable; names: of the distinct keys, in ascending order."""

  key: Callable[[Marks], Any]
  names: _Names


def _valued(word: str, unit: str = "") -> _Names:
  """Names by value, for values that mean something by themselves."""

  def names(keys: list[Any]) -> list[str]:
    return [f"{word}-none" if k is None else f"{word}-{np.round(k, 3):.10g}{unit}" for k in keys]

  return names


def _ranked(word: str, start: int = 1) -> _Names:
  """Names by order, for values that mean something only beside each other."""

  def names(keys: list[Any]) -> list[str]:
    return [f"{word}-{k + start}" for k in range(len(keys))]

  return names


def _echo_names(keys: list[Any]) -> list[str]:
  """By EchoNumbers where these are enough, else by the order of echo times."""
  numbers = [key[1] for key in keys]
  if None in numbers or len(set(numbers)) < len(numbers):
    return _ranked("echo")(keys)
  return [f"echo-{n}" for n in numbers]


def _type_names(keys: list[Any]) -> list[str]:
  """By the known values that not all share; numbered where these do not tell them apart."""
  shared = set.intersection(*(set(key) for key in keys))
  names = []
  for key in keys:
    own = dict.fromkeys(_TYPES[v] for v in key if v not in shared and v in _TYPES)
    names.append("type-" + "+".join(own))
  distinct = len(set(names)) == len(names) and "type-" not in names
  return names if distinct else _ranked("type")(keys)


def _rounded(value: float | None, digits: int = 0) -> float | None:
  return None if value is None else round(value, digits)


# What was measured comes before when it was measured: "b-1000" says more than "acquisition-2".
_CRITERIA = (
  _Criterion(lambda m: m.stack, _ranked("stack")),
  _Criterion(lambda m: _rounded(m.b_value), _valued("b")),
  _Criterion(lambda m: (_rounded(m.echo_ms, 2), m.echo_number), _echo_names),
  _Criterion(lambda m: m.types, _type_names),
  _Criterion(lambda m: m.energy_kev, _valued("mono", "keV")),
  _Criterion(lambda m: m.kvp, _valued("kvp")),
  _Criterion(lambda m: m.temporal, _valued("temporal")),
  _Criterion(lambda m: _rounded(m.trigger_ms), _valued("trigger", "ms")),
  _Criterion(lambda m: m.reference_ms, _ranked("time")),
  _Criterion(lambda m: m.acquisition, _valued("acquisition")),
  _Criterion(lambda m: m.direction, _ranked("direction", start=0)),
)
_Labels = tuple[np.ndarray, list[str]]  # int [n] codes, and the name of each code
Volumes = dict[str, list[int]]


@dataclasses.dataclass(frozen=True)
class _Places:
  """turn, slot: int [n], which orientation and which position a slice has; depth: float [n], mm."""

  turn: np.ndarray
  slot: np.ndarray
  depth: np.ndarray


def split(frames: Sequence[Frame], *, whole: bool) -> Volumes | None:
  """Indices of the slices of each volume by its name, "" for a lone one; None if nothing helps.

  The fewest criteria are used that leave no position twice in a volume.  whole: accept only volumes
  that cover all the same positions; otherwise some may be longer than others.
  """
  places = _places(frames)
  marks = [frame.marks for frame in frames]
  labels = _labels(marks)
  if len(np.unique(places.slot)) == len(frames) and not places.turn.any():
    return _interleaved(places, labels) or {"": list(range(len(frames)))}
  accept = _covers_all if whole else _fits
  for count in range(1, _MOST_CRITERIA + 1):
    for chosen in itertools.combinations(labels, count):
      codes, names = _joined(chosen)
      if accept(codes, places):
        return _volumes(codes, names)
  return _by_trigger_order(marks, places, labels)


def shared_positions(frames: Sequence[Frame]) -> list[list[int]]:
  """Indices of the slices at each position that several share."""
  places = _places(frames)
  shared = np.flatnonzero(np.bincount(places.slot) > 1)
  return [[int(k) for k in np.flatnonzero(places.slot == s)] for s in shared]


def _places(frames: Sequence[Frame]) -> _Places:
  planes = [frame.plane for frame in frames]
  turn = stack.turns(planes)
  depth, slot, used = np.empty(len(planes)), np.empty(len(planes), np.int64), 0
  for t in range(turn.max() + 1):  # two orientations never share a position
    own = np.flatnonzero(turn == t)
    depth[own] = stack.depths([planes[k] for k in own])
    slot[own] = used + stack.slots(depth[own])
    used = int(slot[own].max()) + 1
  return _Places(turn, slot, depth)


def _labels(marks: Sequence[Marks]) -> list[_Labels]:
  """Of the criteria that not all slices share."""
  found = []
  for criterion in _CRITERIA:
    keys = [criterion.key(m) for m in marks]
    distinct = sorted(set(keys), key=_sortable)
    if len(distinct) > 1:
      code = {key: k for k, key in enumerate(distinct)}
      found.append((np.array([code[key] for key in keys]), criterion.names(distinct)))
  return found


def _sortable(key: Any) -> tuple[Any, ...]:
  """Nothing comes before any value."""
  values = key if isinstance(key, tuple) else (key,)
  return tuple((v is not None, 0 if v is None else v) for v in values)


def _joined(chosen: Sequence[_Labels]) -> _Labels:
  """One labelling from several; its order is that of the first, then of the second."""
  codes = chosen[0][0]
  for other, names in chosen[1:]:
    codes = codes * len(names) + other
  _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
  return codes, ["/".join(names[own[k]] for own, names in chosen) for k in first]


def _volumes(codes: np.ndarray, names: Sequence[str]) -> Volumes:
  return {name: [int(k) for k in np.flatnonzero(codes == c)] for c, name in enumerate(names)}


def _pairs(a: np.ndarray, b: np.ndarray) -> int:
  """How many distinct pairs two labellings form."""
  return len(np.unique(a * (b.max() + 1) + b))


def _covers_all(codes: np.ndarray, places: _Places) -> bool:
  """Each volume has every position once."""
  volumes, positions = codes.max() + 1, len(np.unique(places.slot))
  return len(codes) == volumes * positions and _is_stacked(codes, places)


def _fits(codes: np.ndarray, places: _Places) -> bool:
  """No more volumes than slices at some position, or none too small to be a volume: a number that
  each slice has to itself tells nothing."""
  needed = codes.max() + 1 == np.bincount(places.slot).max()
  return bool(needed or np.bincount(codes).min() >= _LEAST_SLICES) and _is_stacked(codes, places)


def _is_stacked(codes: np.ndarray, places: _Places) -> bool:
  """No position twice in a volume, and one orientation in each."""
  return _pairs(codes, places.slot) == len(codes) and _pairs(codes, places.turn) == codes.max() + 1


def _by_trigger_order(
  marks: Sequence[Marks], places: _Places, labels: Sequence[_Labels]
) -> Volumes | None:
  """Heart phases by their order at each position, as trigger times drift with the heart rate."""
  times = np.array([np.nan if m.trigger_ms is None else m.trigger_ms for m in marks])
  if np.isnan(times).any():
    return None
  whole: _Labels = (np.zeros(len(marks), np.int64), [])
  for own in (whole, *labels):
    kind = own[0] * (places.slot.max() + 1) + places.slot
    order = np.lexsort([times, kind])
    new = np.diff(kind[order], prepend=-1) != 0
    if np.any(~new & (np.diff(times[order], prepend=0) == 0)):  # two at one time
      continue
    rank = np.empty(len(order), np.int64)
    count = np.arange(len(order))
    rank[order] = count - np.maximum.accumulate(np.where(new, count, 0))
    typical = [np.median(times[rank == r]) for r in range(rank.max() + 1)]
    ranked: _Labels = (rank, [f"trigger-{t:.0f}ms" for t in typical])
    codes, names = _joined([own, ranked] if own[1] else [ranked])
    if len(set(names)) == len(names) and _covers_all(codes, places):
      return _volumes(codes, names)
  return None


def _interleaved(places: _Places, labels: Sequence[_Labels]) -> Volumes | None:
  """Even volumes whose slices lie between each other's; None if it is one volume."""
  if stack.is_even(places.depth):
    return None
  for codes, names in labels:
    groups = [places.depth[codes == c] for c in range(codes.max() + 1)]
    overlap = max(g.min() for g in groups) < min(g.max() for g in groups)
    if overlap and all(len(g) >= _LEAST_SLICES and stack.is_even(g) for g in groups):
      return _volumes(codes, names)
  return None
