"""`hulu checkpoint`: which steps a run has, whether their bytes are whole, how two differ."""

import argparse
import datetime
from pathlib import Path
import sys

import numpy as np
from rich.console import Console
from rich.table import Table

from hulu_jax.weights import checkpoint
from hulu_jax.weights import manifest

_EXAMPLE = """examples:
  hulu checkpoint list runs/mine
  hulu checkpoint verify runs/mine
  hulu checkpoint diff runs/mine runs/other --step=200

list shows the steps of a run; verify hashes every file of them and compares with MANIFEST.json;
diff compares parameters, by default those of the newest steps."""


def main(argv: list[str]) -> int:
  """Exit code 0: whole, equal; 1: damage or a difference; 2: bad input."""
  parser = argparse.ArgumentParser(
    prog="hulu checkpoint",
    description=__doc__,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("action", choices=("list", "verify", "diff"))
  parser.add_argument("run", type=Path, help="a folder `hulu train` wrote")
  parser.add_argument("other", type=Path, nargs="?", help="for diff: another")
  parser.add_argument("--step", type=int, help="this one, not all (verify) or the newest (diff)")
  args = parser.parse_args(argv)
  try:
    if (args.other is None) == (args.action == "diff"):
      raise ValueError(f"{args.action} takes {'two runs' if args.action == 'diff' else 'one run'}")
    action = {"list": _list, "verify": _verify, "diff": _diff}[args.action]
    return action(args)
  except (ValueError, OSError) as error:
    print(f"hulu checkpoint: {error}", file=sys.stderr)
    return 2


def _steps(run: Path, wanted: int | None) -> list[int]:
  """The steps of a run, or the wanted one; FileNotFoundError where there is none."""
  found = manifest.numbers(checkpoint.folder(run))
  if not found or (wanted is not None and wanted not in found):
    said = "no checkpoint" if wanted is None else f"no step {wanted}"
    there = f"; there are: {', '.join(map(str, found))}" if found else ""
    raise FileNotFoundError(f"{said} in {checkpoint.folder(run)}{there}")
  return found if wanted is None else [wanted]


def _list(args: argparse.Namespace) -> int:
  table = Table("step", "saved (UTC)", "files", "size", "manifest")
  for step in _steps(args.run, args.step):
    place = checkpoint.folder(args.run) / str(step)
    files = [place / name for name in manifest.names(place)]
    saved = datetime.datetime.fromtimestamp(place.stat().st_mtime, datetime.UTC)
    size = sum(file.stat().st_size for file in files)
    hashed = "yes" if (place / manifest.NAME).exists() else "no"
    table.add_row(f"{step}", f"{saved:%Y-%m-%d %H:%M:%S}", f"{len(files)}", _size(size), hashed)
  Console().print(table)
  return 0


def _verify(args: argparse.Namespace) -> int:
  damaged = False
  for step in _steps(args.run, args.step):
    wrong = manifest.problems(checkpoint.folder(args.run) / str(step))
    damaged |= bool(wrong)
    unknown = "has no manifest, so nothing says whether it is whole"
    said = unknown if wrong is None else "; ".join(wrong) or "whole"
    print(f"step {step}: {said}")
  checkpoint.check_base(args.run)
  return int(damaged)


def _diff(args: argparse.Namespace) -> int:
  sides = []
  for run in (args.run, args.other):
    step = _steps(run, args.step)[-1]
    sides.append(checkpoint.folder(run) / str(step) / "state")
  here, there = (checkpoint.shapes(side) for side in sides)
  table = Table("parameter", *(str(side.parent) for side in sides), "largest difference")
  for name in sorted(here.keys() | there.keys()):
    if here.get(name) != there.get(name):
      table.add_row(name, str(here.get(name)), str(there.get(name)), "")
      continue
    one, two = (checkpoint.read_leaf(side, name).astype(np.float64) for side in sides)
    if not np.array_equal(one, two, equal_nan=True):
      table.add_row(name, "", "", f"{np.nanmax(np.abs(one - two)):.3g}")
  if table.row_count:
    Console().print(table)
    return 1
  print(f"all {len(here)} parameters are equal")
  return 0


def _size(size: float) -> str:
  for unit in ("bytes", "kB", "MB"):
    if size < 1000:
      return f"{size:.4g} {unit}"
    size /= 1000
  return f"{size:.4g} GB"
