"""What the files of a stored step were when it was committed, and whether they still are.

Orbax notices damage to its own metadata and none to the numbers it stores, so every file of a step
is hashed, and a step is read only where all of them are as they were.
"""

from collections.abc import Iterable, Mapping
from concurrent import futures
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

NAME = "MANIFEST.json"
# Hashing releases the GIL; more threads than this wait for the disk.
_THREADS = 8

Digests = Mapping[str, Mapping[str, Any]]  # relative path -> {"bytes", "sha256"}


def names(step: Path) -> list[str]:
  """The files of a step, sorted, by their paths in it."""
  found = (p.relative_to(step).as_posix() for p in step.rglob("*") if p.is_file())
  return sorted(name for name in found if name != NAME and not name.startswith(f".{NAME}"))


def draft(step: Path, number: int) -> Path:
  """Where process `number` leaves its share of a manifest; no file of the step."""
  return step / f".{NAME}.{number}"


def digests(step: Path, of: Iterable[str]) -> Digests:
  """Size and hash of these files of a step."""
  listed = list(of)
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    return dict(zip(listed, pool.map(lambda name: _digest(step / name), listed), strict=True))


def write(step: Path, found: Digests) -> None:
  """Puts MANIFEST.json into a step: it is there whole or not at all."""
  text = json.dumps({"files": found, "sha256": _of(found)}, indent=1, sort_keys=True)
  new = draft(step, 0)
  with new.open("w") as file:
    file.write(text + "\n")
    file.flush()
    os.fsync(file.fileno())
  new.replace(step / NAME)
  folder = os.open(step, os.O_RDONLY)
  os.fsync(folder)
  os.close(folder)


def problems(step: Path, *, quick: bool = False) -> list[str] | None:
  """What of a step is not as it was, a line each; None for a step without a manifest.

  quick: looks at names and sizes only, which costs nothing and misses flipped bits.
  """
  if not (step / NAME).exists():
    return None
  try:
    said = json.loads((step / NAME).read_bytes())
    files = said["files"]
    sound = said["sha256"] == _of(files)
  except (ValueError, KeyError, TypeError) as error:
    return [f"{NAME} is damaged ({type(error).__name__})"]
  if not sound:
    return [f"{NAME} is damaged: it does not hash to what it says"]
  there = names(step)
  wrong = [f"{name} is missing" for name in sorted(files) if name not in there]
  wrong += [f"{name} was not there" for name in there if name not in files]
  both = [name for name in there if name in files]
  sizes = {name: (step / name).stat().st_size for name in both}
  wrong += [
    f"{name} has {sizes[name]} bytes, expected {files[name]['bytes']}"
    for name in both
    if sizes[name] != files[name]["bytes"]
  ]
  if quick:
    return wrong
  found = digests(step, [name for name in both if sizes[name] == files[name]["bytes"]])
  return wrong + [
    f"{name} has sha256 {now['sha256'][:12]}..., expected {files[name]['sha256'][:12]}..."
    for name, now in found.items()
    if now != files[name]
  ]


class Newest(NamedTuple):
  """The newest step that is whole, None where none is; hashed: whether it has a manifest to tell;
  skipped: newer ones and what is wrong with them."""

  step: int | None
  hashed: bool
  skipped: Mapping[int, list[str]]


def newest(steps: Path, *, quick: bool = False) -> Newest:
  """Walks back over the steps of a folder.

  A step without a manifest was committed, but its writer was killed before it was hashed, or is of
  a program that hashes nothing: it is taken, for nothing says that it is damaged.  quick: as for
  `problems`.
  """
  skipped: dict[int, list[str]] = {}
  for step in sorted(numbers(steps), reverse=True):
    wrong = problems(steps / str(step), quick=quick)
    if not wrong:
      return Newest(step, wrong is not None, skipped)
    skipped[step] = wrong
  return Newest(None, False, skipped)


def numbers(steps: Path) -> list[int]:
  """The steps of a folder, ascending."""
  return sorted(int(path.name) for path in steps.glob("*") if path.name.isdigit())


def _digest(path: Path) -> dict[str, Any]:
  with path.open("rb") as file:
    return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _of(found: Digests) -> str:
  return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
