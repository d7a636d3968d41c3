"""The safetensors files of one folder as one set of tensors, read range by range."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import itertools
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from hulu_jax.weights import headers
from hulu_jax.weights.headers import Stored

INDEX = "model.safetensors.index.json"
# What is read at once where a whole tensor streams through: it stays in a core's cache.
_BLOCK = 1 << 20


class Tensors:
  """What a folder stores; headers cost nothing of the data, and a read only what it returns.

  shapes, dtypes: by name; a dtype is one of `headers.DTYPES`, or the format's name of another.
  """

  def __init__(self, stored: Mapping[str, Stored], descriptors: Mapping[pathlib.Path, int]):
    self._stored, self._descriptors = stored, descriptors
    self.shapes = {name: s.shape for name, s in stored.items()}
    self.dtypes = {name: s.dtype for name, s in stored.items()}

  def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """The part of a tensor at `index`, in its stored dtype (bfloat16 comes as ml_dtypes' type).

    No byte outside of it is read: one range for whole trailing axes, one for each run of a part.
    """
    s = self._stored[name]
    dtype = headers.DTYPES[s.dtype]
    parts = [range(n)[part] for part, n in zip(index, s.shape, strict=True)]
    whole = len(parts)  # axes from here on are read in full
    while whole and parts[whole - 1] == range(s.shape[whole - 1]):
      whole -= 1
    run = math.prod(s.shape[whole:])
    outer, inner = parts[: max(whole - 1, 0)], parts[whole - 1] if whole else range(1)
    out = np.zeros(math.prod(map(len, parts)), dtype)
    data, at, size = out.view(np.uint8).data, 0, len(inner) * run * dtype.itemsize
    for place in itertools.product(*outer) if size else ():
      first = 0
      for i, n in zip((*place, inner.start), (*s.shape[:whole],) or (1,), strict=True):
        first = first * n + i
      self._fill(s, s.start + first * run * dtype.itemsize, data[at : at + size])
      at += size
    return out.reshape([len(part) for part in parts])

  def place(self, name: str) -> tuple[int, int, int]:
    """(open file, first byte, bytes) of a tensor."""
    s = self._stored[name]
    return self._descriptors[s.path], s.start, s.size

  def blocks(self, name: str, unit: int) -> Iterator[np.ndarray]:
    """A whole tensor as flat runs of about 1 MiB, each a multiple of `unit` values long.

    A run is good until the next one is asked for: they share their memory.
    """
    s = self._stored[name]
    dtype = headers.DTYPES[s.dtype]
    step = max(1, _BLOCK // (unit * dtype.itemsize)) * unit * dtype.itemsize
    buffer = np.zeros(min(step, s.size), np.uint8)
    for start in range(0, s.size, step):
      block = buffer[: s.size - start]
      self._fill(s, s.start + start, block.data)
      yield block.view(dtype)

  def _fill(self, s: Stored, start: int, out: memoryview) -> None:
    while out:
      got = _read_at(self._descriptors[s.path], out, start)
      if not got:
        raise ValueError(f"{s.path} ended at byte {start} while it was read")
      out, start = out[got:], start + got


def _read_at(descriptor: int, out: memoryview, start: int) -> int:
  return os.preadv(descriptor, [out], start)


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Tensors]:
  """The tensors of a folder, sharded or not, or of a single file.

  An index is followed; what it names and its files do not hold (a published checkpoint names a file
  that is not there) is looked for in every *.safetensors of the folder.

  Raises:
    ValueError: no safetensors, a damaged file, a tensor in two files, one that the index names and
      no file holds, or an index that names a file outside the folder.
  """
  stored = _folder(path) if path.is_dir() else headers.read(path)
  with contextlib.ExitStack() as stack:
    descriptors = {}
    for file in {s.path for s in stored.values()}:
      descriptors[file] = os.open(file, os.O_RDONLY)
      stack.callback(os.close, descriptors[file])
    yield Tensors(stored, descriptors)


def _folder(folder: pathlib.Path) -> dict[str, Stored]:
  named = read_index(folder / INDEX, ".safetensors")
  files = [folder / name for name in sorted(set(named.values()))] or [folder / "model.safetensors"]
  there = [path for path in files if path.is_file()]
  if len(there) < len(files):
    there = _all(folder)
  if not there:
    hint = "; hulu convert reads .bin files" if any(folder.glob("*.bin")) else ""
    raise ValueError(f"{folder} holds no *.safetensors; found {listed(folder)}{hint}")
  stored = _merged(folder, there, lambda name: True)
  if set(named) - set(stored):
    rest = [path for path in _all(folder) if path not in there]
    stored |= _merged(folder, rest, lambda name: name in named and name not in stored)
  if lost := sorted(set(named) - set(stored)):
    places = sorted({named[name] for name in lost})
    raise ValueError(f"{folder}: no file holds {', '.join(lost)}; {INDEX} puts them in {places}")
  return stored


def _all(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.glob("*.safetensors") if path.is_file())


def _merged(
  folder: pathlib.Path, paths: list[pathlib.Path], wanted: Callable[[str], bool]
) -> dict[str, Stored]:
  found: dict[str, Stored] = {}
  for path in paths:
    new = {name: s for name, s in headers.read(path).items() if wanted(name)}
    if twice := sorted(new.keys() & found.keys()):
      first = found[twice[0]].path.name
      raise ValueError(f"{folder}: {twice[0]} is in both {first} and {path.name}")
    found |= new
  return found


def read_index(path: pathlib.Path, suffix: str) -> dict[str, str]:
  """Which file of the folder holds which tensor, as an index says it; {} where there is none.

  Raises:
    ValueError: it names anything but a plain file of this folder.
  """
  if not path.exists():
    return {}
  named = read_json(path, "weight_map")
  for tensor, name in named.items():
    if not isinstance(name, str) or pathlib.PurePath(name).name != name or "\\" in name:
      raise ValueError(
        f"{path}: {tensor} is said to be in {name!r}, which is no file of the folder"
      )
    if not name.endswith(suffix):
      raise ValueError(f"{path}: {tensor} is said to be in {name!r}; expected a *{suffix} file")
  return named


def listed(folder: pathlib.Path) -> list[str] | str:
  """The first names of a folder, for an error."""
  return sorted(path.name for path in folder.glob("*"))[:12] or "nothing"


def read_json(path: pathlib.Path, key: str | None = None) -> dict[str, Any]:
  """The JSON object in a file, or the object under one key of it.

  Raises:
    ValueError: there is no such file, it is not JSON, or not an object.
  """
  if not path.is_file():
    raise ValueError(f"no file {path}; expected a Hugging Face folder with {path.name}")
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
    raise ValueError(f"{path} is not JSON: {error}") from error
  if key is not None and isinstance(value, dict):
    value = value.get(key)
  if not isinstance(value, dict):
    where = path if key is None else f"{path}: {key!r}"
    raise ValueError(f"{where} is not a JSON object")
  return value
