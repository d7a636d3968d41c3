"""The safetensors files of one folder as one set of tensors, read slice by slice."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import pathlib
from typing import Any

import numpy as np
import safetensors

_INDEX = "model.safetensors.index.json"


class Tensors:
  """What a folder stores; `shapes` by name costs only the headers, `read` only what it returns."""

  def __init__(self, handles: Mapping[str, Any]):
    self._handles = handles  # by tensor name: the open file that holds it
    self.shapes = {
      name: tuple(handle.get_slice(name).get_shape()) for name, handle in handles.items()
    }

  def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """The part of a tensor at `index`, in its stored dtype (bfloat16 comes as ml_dtypes' type)."""
    return self._handles[name].get_slice(name)[index]


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[Tensors]:
  """The tensors of a folder, sharded or not.

  An index is followed; where it names a file that is not there (as a published checkpoint did),
  every *.safetensors of the folder is searched instead.

  Raises:
    ValueError: no safetensors, a damaged file, a tensor in two files, or one that the index names
      and no file holds.
  """
  named = _index(folder)
  with contextlib.ExitStack() as stack:
    handles: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for path in _files(folder, named):
      handle = stack.enter_context(_open(path))
      names = set(handle.keys())
      if twice := sorted(names & handles.keys()):
        raise ValueError(f"{folder}: {twice[0]} is in both {owner[twice[0]]} and {path.name}")
      handles |= dict.fromkeys(names, handle)
      owner |= dict.fromkeys(names, path.name)
    lost = sorted(set(named) - set(handles))
    if lost:
      files = sorted({named[name] for name in lost})
      raise ValueError(f"{folder}: no file holds {', '.join(lost)}; {_INDEX} puts them in {files}")
    yield Tensors(handles)


def _index(folder: pathlib.Path) -> dict[str, str]:
  path = folder / _INDEX
  return read_json(path, "weight_map") if path.exists() else {}


def _files(folder: pathlib.Path, named: Mapping[str, str]) -> list[pathlib.Path]:
  files = [folder / name for name in sorted(set(named.values()))]
  if not files:
    files = [folder / "model.safetensors"]
  if all(path.exists() for path in files):
    return files
  files = sorted(folder.glob("*.safetensors"))
  if not files:
    there = sorted(path.name for path in folder.glob("*"))[:12]
    raise ValueError(f"{folder} holds no *.safetensors; found {there or 'nothing'}")
  return files


def _open(path: pathlib.Path) -> Any:
  try:
    return safetensors.safe_open(path, framework="numpy")
  except safetensors.SafetensorError as error:
    raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def read_json(path: pathlib.Path, key: str | None = None) -> dict[str, Any]:
  """The JSON object in a file, or the object under one key of it.

  Raises:
    ValueError: there is no such file, it is not JSON, or not an object.
  """
  if not path.is_file():
    raise ValueError(f"no file {path}; expected a Hugging Face folder with {path.name}")
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f"{path} is not JSON: {error}") from error
  if key is not None and isinstance(value, dict):
    value = value.get(key)
  if not isinstance(value, dict):
    where = path if key is None else f"{path}: {key!r}"
    raise ValueError(f"{where} is not a JSON object")
  return value
