"""What compression keeps where it matters: organs and inserted lesions of real scans, and clips.

  PYTHONPATH=. .venv/bin/python benchmarks/retention.py [--data=../shared/data] [--picture=PNG]

Reads the licensed samples beside the repository (`SOURCE.txt` and `LICENSE.txt` in each folder say
what they are), shows them as `media.read` and the policy of the released model do, and prints
Markdown tables; every measure is defined in `retention_measures.py`.  All places are seeded.  About
two minutes on one core.  With --picture it draws docs/compression.png.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import retention_measures as measures
from benchmarks import retention_picture
from benchmarks import retention_scans as scans
from benchmarks.retention_measures import Case
from benchmarks.retention_measures import Modes
from benchmarks.retention_measures import Wanted
from benchmarks.retention_scans import Scan
from benchmarks.retention_scans import Shown
from hulu_jax.data import vision
from hulu_jax.data.compression import Compression
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media import samples
from hulu_jax.media import windows

DATA = Path(__file__).parents[1].parent / "shared" / "data"
SEED, COUNT = 2026, 40
HU = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)
GREY = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)
DIAMETERS_MM = (5.0, 10.0, 15.0)
CONTRASTS_HU = (10.0, 20.0, 40.0)
# Of the range from black to white: 10, 20 and 40 HU are these shares of the abdomen's 400 HU.
CONTRASTS_MR = (0.025, 0.05, 0.10)
# A solid nodule in air.
NODULE_HU = 600.0
# The share of a token's pixels that makes it inside: in what is thinner than a token, less.
INSIDE, INSIDE_THIN = 0.5, 0.02
THIN = ("spinal cord", "grey matter of the cord", "aorta")
LESION_WINDOWS = ("lung", "mediastinum", "abdomen", "liver", "bone", "brain")
# Organs that lesions are put into, by scan, and the window of all diameters and contrasts.
LESION_ORGANS = {
  "CT A": {"liver": "abdomen", "spleen": "abdomen"},
  "CT A, as of 180 slices": {"liver": "abdomen"},
  "CT A, smoothed": {"liver": "abdomen"},
  "CT B": {"liver": "abdomen", "spleen": "abdomen", "lungs": "lung"},
}
# The lesion whose tokens are to stay, and the share of them, where a threshold is chosen.
CHOSEN_MM, CHOSEN_HU, CHOSEN_MR, CHOSEN_SHARE = 10.0, 20.0, 0.05, 0.9
# A cord is too thin for 10 mm.
CHOSEN_MR_MM = {"liver": CHOSEN_MM, "spinal cord": 5.0}
# Standard deviation over a clip, in grey levels, above which a pixel moves.
MOVES = 5.0
AGAINST = ("previous", "last_kept")


def modes(thresholds: Sequence[float], hounsfield: bool) -> dict[str, Compression]:
  """All modes by name; `fixed` at each threshold, in HU or grey levels, against both versions."""
  found = {mode: Compression(mode=mode) for mode in ("hulumed", "videollama3")}
  for against in AGAINST:
    for t in thresholds:
      found[fixed(t, against)] = Compression(
        mode="fixed", grey=t, hu=t if hounsfield else None, against=against
      )
  return found


def fixed(threshold: float, against: str) -> str:
  """The name of `fixed` in `modes`."""
  return f"{threshold:g} {against}"


def row(*cells: object) -> None:
  """Prints a row of a table."""
  print(f"| {' | '.join(str(cell) for cell in cells)} |")


def head(title: str, *cells: object) -> None:
  """Prints a title and the first two lines of a table."""
  print(f"\n### {title}\n")
  row(*cells)
  print("|" + "---|" * len(cells))


def names(thresholds: Sequence[float], against: str) -> list[str]:
  """Modes as the columns of one table."""
  return ["hulumed", "videollama3", *(fixed(t, against) for t in thresholds)]


def print_change(scan: Scan, organ: str, shown: Shown, inside: np.ndarray) -> None:
  """How much the tokens of an organ change by themselves, in HU or grey levels."""
  found = measures.changes(shown)[inside[1:]]
  if not found.size:
    print(f"\n{scan.name}, {organ}: no token is inside.")
    return
  low, middle, high = np.percentile(found, (10, 50, 90))
  unit = "grey levels" if shown.media.window is None else "HU"
  print(
    f"\n{scan.name}, {organ}: {found.size} tokens change by {middle:.1f} {unit} from frame to frame"
    f" (median; 10 % by less than {low:.1f}, 10 % by more than {high:.1f})."
  )


class Kept(NamedTuple):
  """Of one scan in one window: kept fractions by mode over the whole, and by outline."""

  whole: Mapping[str, float]
  inside: Mapping[str, Mapping[str, float]]


def kept(shown: Shown, inside: Mapping[str, np.ndarray], all_modes: Modes) -> Kept:
  """inside: bool [T, N] by name."""
  masks = {
    name: measures.kept(shown.tokens, mode, shown.media.window) for name, mode in all_modes.items()
  }
  return Kept(
    {name: measures.fraction(keep) for name, keep in masks.items()},
    {
      outline: {name: measures.fraction(keep, where) for name, keep in masks.items()}
      for outline, where in inside.items()
    },
  )


def insides(scan: Scan) -> dict[str, np.ndarray]:
  """bool [T, N] by outline: tokens that count as inside of it."""
  return {
    name: scans.share(scan, mask) >= (INSIDE_THIN if name in THIN else INSIDE)
    for name, mask in scan.masks.items()
  }


def print_scans(all_scans: Sequence[Scan]) -> None:
  """What was measured: geometry, and how many tokens lie inside each outline."""
  head("Scans", "scan", "slices, mm", "pixels shown, mm", "tokens", "token, mm", "inside (tokens)")
  for scan in all_scans:
    shown = scans.show(scan, scan.options)
    between, pixel, _ = shown.media.spacing_mm or (0.0, 0.0, 0.0)
    height, width = shown.media.frames.shape[1:3]
    counted = (f"{name} {where[1:].sum()}" for name, where in insides(scan).items())
    row(
      scan.name,
      f"{len(shown.tokens)} x {between:.3g}",
      f"{height} x {width}, {pixel:.2g}",
      f"{shown.rows} x {shown.columns}",
      f"{shown.token_mm:.0f}",
      ", ".join(counted),
    )


def print_kept(scan: Scan, found: Mapping[str, Kept], thresholds: Sequence[float]) -> None:
  """One table per version compared with: rows are windows, cells whole / all outlined / each."""
  first = next(iter(found.values()))
  for against in AGAINST:
    columns = names(thresholds, against)
    outlines = " / ".join(["whole", *first.inside])
    head(f"{scan.name}, kept, against {against}: {outlines}", "window", *columns)
    for window, each in found.items():
      cells = [
        " / ".join(
          "-" if np.isnan(v) else f"{v:.2f}"
          for v in (each.whole[m], *(i[m] for i in each.inside.values()))
        )
        for m in columns
      ]
      row(window, *cells)


def print_grid(scan: Scan, found: Sequence[Case], columns: Sequence[str]) -> None:
  """All diameters and contrasts in one window: tokens kept with the lesion, and without it."""
  first = found[0]
  head(
    f"{scan.name}, {first.organ}, window {first.window}: lesions' tokens kept (without the lesion)",
    *("mm", "contrast", "n", "alone", *columns),
  )
  for case in found:
    each = [case.by_mode[m] for m in columns]
    cells = (f"{s.tokens:.2f} ({s.anyway:.2f})" for s in each)
    row(f"{case.diameter_mm:g}", f"{case.contrast:g}", each[0].n, f"{case.alone:.2f}", *cells)


def print_by_window(scan: Scan, found: Sequence[Case], keeps: Mapping[str, Kept]) -> None:
  """The chosen lesion in every window, each measure with its interval."""
  first = found[0]
  head(
    f"{scan.name}, {first.organ}, {first.diameter_mm:g} mm, {first.contrast:g}: every measure",
    *("window", "mode", "whole", first.organ),
    *("n", "tokens", "without", "detected", "without", "entry", "exit"),
  )
  for case in found:
    each = keeps[case.window]
    inside = each.inside[case.organ]
    for name, s in case.by_mode.items():
      row(
        *(case.window, name, f"{each.whole[name]:.2f}", f"{inside[name]:.2f}", s.n),
        f"{s.tokens:.2f} ({s.tokens_interval[0]:.2f} to {s.tokens_interval[1]:.2f})",
        f"{s.anyway:.2f}",
        f"{s.detected:.2f} ({s.detected_interval[0]:.2f} to {s.detected_interval[1]:.2f})",
        *(f"{v:.2f}" for v in (s.detected_anyway, s.entry, s.exit)),
      )


def largest(case: Case, thresholds: Sequence[float], against: str) -> float | None:
  """The largest threshold that keeps the chosen share of the lesions' tokens, if one does."""
  good = [t for t in thresholds if case.by_mode[fixed(t, against)].tokens >= CHOSEN_SHARE]
  return max(good, default=None)


def print_chosen(
  scan: Scan, found: Sequence[Case], keeps: Mapping[str, Kept], thresholds: Sequence[float]
) -> None:
  """The largest threshold by window, and what it costs."""
  columns = [f"{what}, {against}" for against in AGAINST for what in ("threshold", "kept, tokens")]
  first = found[0]
  title = f"largest threshold that keeps {CHOSEN_SHARE:g} of the tokens of the lesion"
  head(f"{scan.name}, {first.organ}, {first.diameter_mm:g} mm, {first.contrast:g}: {title}",
       "window", *columns)  # fmt: skip
  for case in found:
    cells = []
    for against in AGAINST:
      t = largest(case, thresholds, against)
      if t is None:
        cells += ["none", "-"]
        continue
      s, whole = case.by_mode[fixed(t, against)], keeps[case.window].whole[fixed(t, against)]
      cells += [f"{t:g}", f"{whole:.2f}, {s.tokens:.2f} ({s.anyway:.2f})"]
    row(case.window, *cells)


def run_ct(scan: Scan, organs: Mapping[str, str]) -> None:
  """Everything for one CT; organs: to put lesions into, and the window of all sizes."""
  all_modes, inside = modes(HU, True), insides(scan)
  shown_as = {name: dataclasses.replace(scan.options, window=name) for name in windows.TABLE}
  keeps = {
    name: kept(scans.show(scan, options), inside, all_modes) for name, options in shown_as.items()
  }
  print_kept(scan, keeps, HU)
  for organ, window in organs.items():
    print_change(scan, organ, scans.show(scan, shown_as[window]), inside[organ])
    contrasts = (*CONTRASTS_HU, NODULE_HU) if organ == "lungs" else CONTRASTS_HU
    grid = [Wanted(window, shown_as[window], d, c) for d in DIAMETERS_MM for c in contrasts]
    chosen = [Wanted(w, shown_as[w], CHOSEN_MM, CHOSEN_HU) for w in LESION_WINDOWS]
    run_lesions(scan, organ, keeps, grid, chosen)


def run_mr(scan: Scan) -> None:
  """Everything for one MR: shown over the percentiles of its foreground, fixed from here on."""
  base = scans.show(scan, scan.options)
  assert base.media.value_range is not None
  low, high = base.media.value_range
  options = dataclasses.replace(scan.options, value_range=(low, high))
  inside = insides(scan)
  keeps = {"percentiles": kept(base, inside, modes(GREY, False))}
  print_kept(scan, keeps, GREY)
  for organ, size in CHOSEN_MR_MM.items():
    if organ not in scan.masks:
      continue
    print_change(scan, organ, base, inside[organ])
    grid = [
      Wanted("percentiles", options, d, (high - low) * c)
      for d in DIAMETERS_MM
      for c in CONTRASTS_MR
    ]
    chosen = [Wanted("percentiles", options, size, (high - low) * CHOSEN_MR)]
    run_lesions(scan, organ, keeps, grid, chosen)


def run_lesions(
  scan: Scan,
  organ: str,
  keeps: Mapping[str, Kept],
  grid: Sequence[Wanted],
  chosen: Sequence[Wanted],
) -> None:
  """Lesions of one organ: all sizes and contrasts, and the chosen one in every window."""
  hounsfield = scan.options.modality == "CT"
  thresholds = HU if hounsfield else GREY
  all_modes = modes(thresholds, hounsfield)
  found = list(measures.cases(scan, organ, all_modes, grid, SEED, COUNT))
  for against in AGAINST:
    print_grid(scan, found, names(thresholds, against))
  found = list(measures.cases(scan, organ, all_modes, chosen, SEED, COUNT))
  print_by_window(scan, found, keeps)
  print_chosen(scan, found, keeps, thresholds)


def run_clips(data: Path) -> None:
  """The cine and the lung-ultrasound clips, 32 frames each at most, as `read` takes them."""
  all_modes = modes(GREY, False)
  cine = data / "dicom_pydicom" / "public" / "examples_ybr_color.dcm"
  shown = scans.tokenized(read(cine, Options(crop=samples.get("cine").crop)), vision.HULUMED)
  found = {"cine": [("-", shown)], "lung": []}
  for patient, path in scans.clips(data):
    found["lung"].append((patient, scans.tokenized(read(path), vision.HULUMED)))
  for kind, group in found.items():
    each = [_of_clip(shown, all_modes) for _, shown in group]
    patients = len({patient for patient, _ in group})
    for against in AGAINST:
      head(
        f"{kind}, clips: {len(group)}, patients: {patients}, against {against}, mean (range)",
        *("where", *names(GREY, against)),
      )
      for where in ("whole", "moving"):
        row(where, *(_spread([c[where][m] for c in each]) for m in names(GREY, against)))


def _of_clip(shown: Shown, all_modes: Modes) -> dict[str, Mapping[str, float]]:
  found = kept(shown, {"moving": measures.moving(shown.tokens, MOVES)}, all_modes)
  return {"whole": found.whole, **found.inside}


def _spread(values: Sequence[float]) -> str:
  known = [v for v in values if not np.isnan(v)]
  if len(known) == 1:
    return f"{known[0]:.2f}"
  return f"{np.mean(known):.2f} ({min(known):.2f} to {max(known):.2f})"


def main() -> None:
  """Prints every table; with --picture draws the figure too."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--data", type=Path, default=DATA, help="the folder of licensed samples")
  parser.add_argument("--picture", type=Path, help="where to write the figure")
  args = parser.parse_args()
  if not args.data.is_dir():
    parser.error(f"{args.data} is no folder; expected the samples that docs/compression.md names")
  ct, mr = scans.ct(args.data), scans.mr(args.data)
  print_scans([*ct, *mr])
  for scan in ct:
    run_ct(scan, LESION_ORGANS[scan.name])
  for scan in mr:
    run_mr(scan)
  run_clips(args.data)
  if args.picture:
    draw(ct[0], args.picture)


def draw(scan: Scan, path: Path) -> None:
  """The figure, of lesions in the liver."""
  all_modes, window = modes(HU, True), "abdomen"
  options = dataclasses.replace(scan.options, window=window)
  wanted = [Wanted(window, options, *each) for each in ((10.0, 20.0), (15.0, 40.0))]
  found = measures.cases(scan, "liver", all_modes, wanted, SEED, COUNT)
  labelled = {f"touched by {c.diameter_mm:g} mm, {c.contrast:g} HU lesions": c for c in found}
  whole = kept(scans.show(scan, options), {}, all_modes).whole
  retention_picture.draw(scan, "liver", options, labelled, whole, path)


if __name__ == "__main__":
  main()
