"""What each mode of compression keeps: of tokens, inside an outline, and of an inserted lesion.

Every fraction leaves out the first frame of a volume or clip, which `fixed` and `videollama3` keep
whole and `hulumed` drops: it says nothing of a threshold.

A **kept fraction** is kept tokens over tokens; inside a mask, over the tokens of which the mask
covers at least a stated share of the pixels.

A **lesion** (`retention_lesions`) *touches* a token of a frame if at least one of that token's
pixels, as the encoder gets it, has at least half of the greatest weight that this lesion has in any
such pixel (that is 1 but for small lesions in large voxels).  Of one lesion is measured:

- *tokens*: how many it touches, in all frames; how many of them are kept; and how many of the same
  are kept of the scan without the lesion, which is what anatomy and noise keep anyway;
- *detected*: at least one touched token is kept in a frame where the lesion's part of it differs
  from that in the frame before (its weight by 1 / 255 or more); also without it;
- *alone*: the largest mean change, in the units of the contrast, that the lesion by itself would
  make in any token from one frame to the next, in a scan without noise, anatomy or clipping: a
  threshold above it could never be passed because of the lesion;
- *entry*: a touched token of the first frame that it touches is kept; *exit*: one of the tokens
  that it touches in its last frame is kept in the next frame, so that it is seen to be gone.

Lesions whose tokens do not overlap are inserted together: a token is compared with its own place
only, so each is measured as if alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks import retention_lesions as lesions
from benchmarks import retention_scans as scans
from benchmarks.retention_lesions import Sphere
from benchmarks.retention_scans import Scan
from benchmarks.retention_scans import Shown
from hulu_jax.data import compression as compression_lib
from hulu_jax.data.compression import Compression
from hulu_jax.data.schema import PATCH
from hulu_jax.eval import stats
from hulu_jax.media import Options
from hulu_jax.media.types import Range

Modes = Mapping[str, Compression]
RESAMPLES = 1000


class Seen(NamedTuple):
  """Spheres to insert together.  columns: which tokens of a frame each may change.  touched,
  differs: bool [T, columns], one array per sphere.  alone: see above, for a contrast of 1."""

  spheres: list[Sphere]
  columns: list[np.ndarray]
  touched: list[np.ndarray]
  differs: list[np.ndarray]
  alone: list[float]


class Outcome(NamedTuple):
  """Of one lesion under one mode; `anyway`: the same of the scan without the lesion."""

  touched: int
  kept: int
  anyway: int
  detected: bool
  detected_anyway: bool
  entry: bool
  exit: bool


def kept(tokens: np.ndarray, compression: Compression, window: Range | None) -> np.ndarray:
  """bool [T, N] of some tokens of every frame, decided as within the whole frame.

  A token that always changes from black to white stands first, so that the rule that a frame keeps
  at least one token does not fall on these.
  """
  blink = np.zeros((len(tokens), 1, tokens.shape[2]), np.uint8)
  blink[1::2] = 255
  whole = np.concatenate([blink, tokens], axis=1)
  return compression_lib.keep_mask(whole, compression, window)[:, 1:]


def fraction(keep: np.ndarray, inside: np.ndarray | None = None) -> float:
  """Of the frames after the first; inside: bool like `keep`.  Not-a-number of no tokens."""
  chosen = keep[1:] if inside is None else keep[1:][inside[1:]]
  return float(chosen.mean()) if chosen.size else float("nan")


def changes(shown: Shown) -> np.ndarray:
  """float64 [T - 1, N]: mean change of each token to the frame before, in HU where a window is
  known, else in grey levels."""
  grey = compression_lib.change_scores(shown.tokens[:-1], shown.tokens[1:]) / shown.tokens.shape[-1]
  return grey if shown.media.window is None else grey * shown.media.window[1] / 255


def moving(tokens: np.ndarray, grey: float) -> np.ndarray:
  """bool [T, N]: at least half of the token's values have a standard deviation over time > grey."""
  own = (tokens.std(axis=0) > grey).mean(axis=-1) >= 0.5
  return np.broadcast_to(own, tokens.shape[:2])


def columns_of(sphere: Sphere, scan: Scan, shown: Shown) -> np.ndarray:
  """Numbers of the tokens that a sphere may change, whatever the frame."""
  assert shown.media.affine is not None and scan.voxels.affine is not None
  to_shown = np.linalg.inv(shown.media.affine) @ scan.voxels.affine
  side = PATCH * scan.policy.merge["volume"]
  ends = []
  for axis, count in ((1, shown.rows), (2, shown.columns)):
    at = lesions.corners(sphere, scan.steps_mm) @ to_shown[axis]
    scale = count / shown.media.frames.shape[axis]
    # The bicubic filter reaches two pixels of the coarser grid, and one for rounding.
    margin = (2 * max(scale * side, 1.0) + 1) / side
    low = int(np.floor((at.min() + 0.5) * scale - margin))
    high = int(np.floor((at.max() + 0.5) * scale + margin))
    ends.append(np.arange(max(low, 0), min(high, count - 1) + 1))
  return (ends[0][:, None] * shown.columns + ends[1]).ravel()


def together(spheres: Sequence[Sphere], scan: Scan, shown: Shown) -> list[Seen]:
  """Spheres dealt into as few insertions as first fit finds, no token shared within one."""
  rounds: list[list[tuple[Sphere, np.ndarray]]] = []
  used: list[set[int]] = []
  for sphere in spheres:
    columns = columns_of(sphere, scan, shown)
    free = [k for k, taken in enumerate(used) if taken.isdisjoint(columns.tolist())]
    if not free:
      rounds.append([])
      used.append(set())
    place = free[0] if free else len(rounds) - 1
    rounds[place].append((sphere, columns))
    used[place].update(columns.tolist())
  return [_seen(scan, [s for s, _ in own], [c for _, c in own]) for own in rounds]


def _seen(scan: Scan, spheres: list[Sphere], columns: list[np.ndarray]) -> Seen:
  weights = scans.covered(
    scan, lesions.weight_map(spheres, scan.voxels.values.shape, scan.steps_mm)
  )
  touched, differs, alone = [], [], []
  for own in columns:
    part = weights[:, own]
    touched.append((part >= part.max() / 2).any(axis=-1))
    changes = compression_lib.change_scores(part[:-1], part[1:])
    differs.append(np.concatenate([part[:1].any(axis=-1), changes > 0]))
    alone.append(float(changes.max()) / (255 * part.shape[-1]))
  return Seen(spheres, columns, touched, differs, alone)


class Wanted(NamedTuple):
  """Lesions to measure: how the scan is shown, in mm, and in the scan's units."""

  window: str
  options: Options
  diameter_mm: float
  contrast: float


class Case(NamedTuple):
  """Lesions of one diameter and contrast in one organ and window, by mode; alone: their median."""

  organ: str
  window: str
  diameter_mm: float
  contrast: float
  alone: float
  by_mode: Mapping[str, "Summary"]


def cases(
  scan: Scan, organ: str, modes: Modes, wanted: Sequence[Wanted], seed: int, count: int
) -> Iterator[Case]:
  """At most `count` seeded lesions each; those wanted of which none fits are left out.

  The same diameter has the same places in every window and contrast.
  """
  bases: dict[str, Shown] = {}
  dealt: dict[float, list[Seen]] = {}
  for window, options, diameter, contrast in wanted:
    base = bases.get(window) or scans.show(scan, options)
    bases[window] = base
    if diameter not in dealt:
      places = lesions.places(
        scan.masks[organ], scan.steps_mm, diameter, count, seed, scans.across(scan, base)
      )
      dealt[diameter] = together(places, scan, base)
    if not dealt[diameter]:
      continue
    found = outcomes(scan, base, options, dealt[diameter], contrast, modes)
    alone = contrast * float(np.median([a for seen in dealt[diameter] for a in seen.alone]))
    by_mode = {name: summary(own) for name, own in found.items()}
    yield Case(organ, window, diameter, contrast, alone, by_mode)


def outcomes(
  scan: Scan, base: Shown, options: Options, rounds: Sequence[Seen], contrast: float, modes: Modes
) -> dict[str, list[Outcome]]:
  """What every mode does to every lesion; base: the scan shown with `options`, without lesions."""
  found: dict[str, list[Outcome]] = {name: [] for name in modes}
  window = base.media.window
  for seen in rounds:
    values = lesions.insert(scan.voxels.values, seen.spheres, contrast, scan.steps_mm)
    everywhere = np.concatenate(seen.columns)
    changed = scans.show(scan, options, values).tokens[:, everywhere]
    plain = base.tokens[:, everywhere]
    ends = np.cumsum([len(c) for c in seen.columns])[:-1]
    for name, compression in modes.items():
      now = np.split(kept(changed, compression, window), ends, axis=1)
      before = np.split(kept(plain, compression, window), ends, axis=1)
      found[name] += [
        _outcome(*each) for each in zip(now, before, seen.touched, seen.differs, strict=True)
      ]
  return found


def _outcome(
  now: np.ndarray, before: np.ndarray, touched: np.ndarray, differs: np.ndarray
) -> Outcome:
  frames = np.flatnonzero(touched.any(axis=1))
  first, last = int(frames[0]), int(frames[-1])
  new = touched & differs
  return Outcome(
    touched=int(touched.sum()),
    kept=int(now[touched].sum()),
    anyway=int(before[touched].sum()),
    detected=bool(now[new].any()),
    detected_anyway=bool(before[new].any()),
    entry=bool(now[first, touched[first]].any()),
    exit=bool(now[last + 1, touched[last]].any()),
  )


class Summary(NamedTuple):
  """Over n lesions: shares, and 95 % intervals of the first two.

  tokens: kept of all touched, anyway: without the lesion; the interval resamples lesions.
  detected, detected_anyway, entry, exit: of lesions; the interval is Wilson's.
  """

  n: int
  tokens: float
  tokens_interval: tuple[float, float]
  anyway: float
  detected: float
  detected_interval: tuple[float, float]
  detected_anyway: float
  entry: float
  exit: float


def summary(found: Sequence[Outcome]) -> Summary:
  """Raises ValueError for no lesions."""
  if not found:
    raise ValueError("no lesion to sum up; expected at least 1")
  table = np.array(found, float)
  share = table[:, 1:3].sum(axis=0) / table[:, 0].sum()
  drawn = table[np.random.default_rng(0).integers(0, len(table), (RESAMPLES, len(table)))]
  spread = drawn[..., 1].sum(axis=1) / drawn[..., 0].sum(axis=1)
  low, high = np.percentile(spread, [2.5, 97.5])
  detected, anyway, entry, exit_ = table[:, 3:].mean(axis=0).tolist()
  interval = stats.wilson(int(table[:, 3].sum()), len(table))
  return Summary(
    len(table),
    float(share[0]),
    (float(low), float(high)),
    float(share[1]),
    detected,
    interval,
    anyway,
    entry,
    exit_,
  )
