"""Says whether the data of a run are still the data it was started on."""

from collections.abc import Mapping, Sequence
import hashlib
import json
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def of(mixture: Sequence[Mapping[str, Any]], datasets: Sequence[Any]) -> dict[str, str]:
  """Names to digests: every entry of the mixture, its size, and the files it lists as `files`.

  A file is named by its place in the mixture and its own name; its digest is of all its bytes.
  """
  found = {}
  for number, (entry, dataset) in enumerate(zip(mixture, datasets, strict=True)):
    label = f"{number}:{entry['label']}"
    fields = json.dumps({**entry, "records": len(dataset)}, sort_keys=True, default=str)
    found[label] = hashlib.sha256(fields.encode()).hexdigest()[:32]
    for path in dataset.files:
      found[f"{label}:{path.name}"] = _digest(path)
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


def _digest(path: Path) -> str:
  digest = hashlib.sha256()
  with path.open("rb") as file:
    while chunk := file.read(_CHUNK):
      digest.update(chunk)
  return digest.hexdigest()[:32]
