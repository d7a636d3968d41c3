"""The header of one safetensors file, read by itself and believed only as far as it adds up."""

from collections.abc import Iterator, Mapping
import dataclasses
import json
import math
import os
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

# By the names of the format; what is not here is no number that a weight can have.
DTYPES: Mapping[str, np.dtype] = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Bytes of one number of the other types that the format has.
_OTHERS = {
  **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
  **dict.fromkeys(("U16", "I16"), 2),
  **dict.fromkeys(("U32", "I32"), 4),
  **dict.fromkeys(("U64", "I64", "C64"), 8),
}
_LONGEST = 100_000_000  # bytes of a header, as the format's own reader has it


@dataclasses.dataclass(frozen=True)
class Stored:
  """Where one tensor lies: `start` counts from the beginning of the file, in bytes."""

  path: pathlib.Path
  dtype: str
  shape: tuple[int, ...]
  start: int
  size: int


def read(path: pathlib.Path) -> dict[str, Stored]:
  """The tensors of a file by name.

  Raises:
    ValueError: a file cut short, a header that is not JSON, or shapes, types and places that do not
      add up to the bytes there are.
  """
  size = path.stat().st_size
  try:
    found = dict(_tensors(path, _header(path, size), size))
  except _Damaged as error:
    raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
  return found


class _Damaged(ValueError):
  pass


def _header(path: pathlib.Path, size: int) -> tuple[dict[str, Any], int]:
  """The JSON of a file, and where its data begin."""
  with path.open("rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LONGEST):
      raise _Damaged(f"its header claims {length} bytes, the file has {size}")
    text = file.read(length)
  try:
    header = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise _Damaged(f"its header is not JSON: {error}") from error
  if not isinstance(header, dict):
    raise _Damaged("its header is not a JSON object")
  header.pop("__metadata__", None)
  return header, 8 + length


def _tensors(
  path: pathlib.Path, header: tuple[dict[str, Any], int], size: int
) -> Iterator[tuple[str, Stored]]:
  entries, data = header
  end = 0
  for name, entry in sorted(entries.items(), key=lambda item: _offsets(*item)):
    start, stop = _offsets(name, entry)
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(shape, list) or not all(_is_count(n) for n in shape):
      raise _Damaged(f"{name} has the shape {shape!r}")
    if dtype not in DTYPES and dtype not in _OTHERS:
      raise _Damaged(f"{name} has the unknown type {dtype!r}")
    width = DTYPES[dtype].itemsize if dtype in DTYPES else _OTHERS[dtype]
    if stop - start != width * math.prod(shape):
      raise _Damaged(f"{name} is {dtype} {shape}, but has {stop - start} bytes")
    if start != end:
      raise _Damaged(f"{name} begins at byte {start} of the data, the one before it ends at {end}")
    end = stop
    yield name, Stored(path, dtype, tuple(shape), data + start, stop - start)
  if data + end != size:
    raise _Damaged(f"its tensors end at byte {data + end}, the file has {size}")


def _offsets(name: str, entry: Any) -> tuple[int, int]:
  places = entry.get("data_offsets") if isinstance(entry, dict) else None
  if not isinstance(places, list) or len(places) != 2 or not all(_is_count(n) for n in places):
    raise _Damaged(f"{name} has the place {places!r}")
  return places[0], places[1]


def _is_count(n: Any) -> bool:
  return isinstance(n, int) and not isinstance(n, bool) and n >= 0


def write(path: pathlib.Path, entries: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, int]:
  """Writes a header for tensors of (type, shape) that follow in this order; returns their places.

  The file gets its final size; its data are a hole until they are written.
  """
  places, header, end = {}, {}, 0
  for name, (dtype, shape) in entries.items():
    size = DTYPES[dtype].itemsize * math.prod(shape)
    header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
    places[name], end = end, end + size
  # transformers refuses a file that does not say who wrote its tensors' axes.
  text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  with path.open("xb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    os.ftruncate(file.fileno(), 8 + len(text) + end)
  return {name: 8 + len(text) + start for name, start in places.items()}
