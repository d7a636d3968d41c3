"""Says whether the data of a run are still the data it was started on."""

from collections import Counter
from collections.abc import Mapping, Sequence
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

# Fields of an entry that say where data lie: they may move while a run waits.
_PLACES = ("root", "path", "reports", "lengths")
# A dataset of more files has one digest per folder: the fingerprint stands in every checkpoint.
_MOST_FILES = 256


def of(mixture: Sequence[Mapping[str, Any]], datasets: Sequence[Any]) -> dict[str, str]:
  """Names to digests: every entry of the mixture with its number of records, and its `files`.

  A file is named by the entry's place in the mixture and by as much of its own path as tells it
  from the dataset's others, so the data may lie elsewhere; its digest is of all its bytes.  Media
  are no part of it.
  """
  found = {}
  for number, (entry, dataset) in enumerate(zip(mixture, datasets, strict=True)):
    label = f"{number}:{entry['label']}"
    said = {key: value for key, value in entry.items() if key not in _PLACES}
    fields = json.dumps({**said, "records": len(dataset)}, sort_keys=True, default=str)
    found[label] = _short(fields.encode())
    for name, digest in _of_files(dataset.files).items():
      found[f"{label}:{name}"] = digest
  return found


def check(before: Mapping[str, str], now: Mapping[str, str]) -> None:
  """Raises ValueError naming what changed, came or went since the run was started."""
  changed = sorted(k for k in before.keys() & now.keys() if before[k] != now[k])
  gone, new = sorted(before.keys() - now.keys()), sorted(now.keys() - before.keys())
  said = [
    f"{what}: {', '.join(names)}"
    for what, names in (("changed", changed), ("gone", gone), ("new", new))
    if names
  ]
  if said:
    raise ValueError(
      f"the data are not those this run was started on ({'; '.join(said)}): restore them, or start "
      "another run from this one's weights (init_from)"
    )


def _of_files(files: Sequence[Path]) -> dict[str, str]:
  digests = {path: _digest(path) for path in files}
  if len(digests) <= _MOST_FILES:
    names = _names(list(digests))
    return {names[path]: digest for path, digest in digests.items()}
  folders: dict[Path, dict[str, str]] = {}
  for path, digest in digests.items():
    folders.setdefault(path.parent, {})[path.name] = digest
  names = _names(list(folders))
  return {
    f"{names[folder]}/": _short(json.dumps(held, sort_keys=True).encode())
    for folder, held in folders.items()
  }


def _names(paths: Sequence[Path]) -> dict[Path, str]:
  """The last parts of every path, as many as it takes to tell all of them apart."""
  most = max((len(path.parts) for path in paths), default=0)
  for depth in range(1, most + 1):
    names = {path: "/".join(path.parts[-depth:]) for path in paths}
    if max(Counter(names.values()).values()) == 1:
      return names
  return {}


def _digest(path: Path) -> str:
  found = path.stat()
  return _digest_of(path, found.st_size, found.st_mtime_ns)


# Several datasets of a run, and its evaluations, read one file; size and time say if it changed.
@functools.cache
def _digest_of(path: Path, size: int, changed_ns: int) -> str:
  del size, changed_ns  # of the cache's key only
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _short(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()[:32]
