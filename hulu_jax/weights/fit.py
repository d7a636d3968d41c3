"""Whether the tensors of a checkpoint are those of an architecture: all that is wrong, at once."""

from collections.abc import Iterable, Mapping
import re

from hulu_jax.weights import headers
from hulu_jax.weights.files import Tensors
from hulu_jax.weights.names import Entry


def check(table: Mapping[str, list[Entry]], stored: Tensors, where: str) -> None:
  """Compares names, shapes and types with `names.entries`; costs nothing but the headers.

  Raises:
    ValueError: every missing, unexpected and mis-shaped tensor, and those that are no floats.
  """
  wanted = {entry.name: entry.shape for entries in table.values() for entry in entries}
  both = wanted.keys() & stored.shapes.keys()
  shapes = [
    f"{name} has {stored.shapes[name]}, expected {wanted[name]}"
    for name in wanted
    if name in both and stored.shapes[name] != wanted[name]
  ]
  types = [
    f"{name} is {stored.dtypes[name]}"
    for name in wanted
    if name in both and stored.dtypes[name] not in headers.DTYPES
  ]
  problems = {
    "missing": _fold(wanted.keys() - both),
    "unexpected": _fold(stored.shapes.keys() - both),
    "mis-shaped": _fold(shapes),
    f"of another type than {', '.join(headers.DTYPES)}": _fold(types),
  }
  if any(problems.values()):
    listed = "; ".join(f"{what}: {', '.join(found)}" for what, found in problems.items() if found)
    raise ValueError(f"tensors of {where} do not fit the config: {listed}")


def _fold(found: Iterable[str]) -> list[str]:
  """Names that differ only by their layer as one: layers.{0..27}.mlp.fc1.weight."""
  groups: dict[str, list[int]] = {}
  for name in found:
    layer = re.search(r"(?<=\blayers\.)\d+", name)
    key = name if layer is None else f"{name[: layer.start()]}{{}}{name[layer.end() :]}"
    groups.setdefault(key, []).extend([] if layer is None else [int(layer.group())])
  return [key.replace("{}", _ranges(sorted(groups[key]))) for key in sorted(groups)]


def _ranges(numbers: list[int]) -> str:
  """[0, 1, 2, 5] -> {0..2,5}; a single number stays bare."""
  runs: list[list[int]] = []
  for n in numbers:
    if runs and n == runs[-1][-1] + 1:
      runs[-1].append(n)
    else:
      runs.append([n])
  text = ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}..{r[-1]}" for r in runs)
  return text if len(numbers) == 1 else f"{{{text}}}"
