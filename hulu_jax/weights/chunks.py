"""How a converted run folder stores an array: zarr, a file per layer, in torch's order of axes.

Readers of zarr turn the axes back by themselves; a conversion finds a layer's bytes as torch has
them, and need not.
"""

from typing import Any

import numpy as np

from hulu_jax.weights.names import Entry

METADATA = "zarr.json"


def folder(path: str, part: str = "params") -> str:
  """The name of a parameter's folder, as Orbax has it; part: of what a step holds."""
  return ".".join((part, *path.split("/")))


def file(path: str, entry: Entry, layer: int) -> str:
  """The name of the file of one layer, or of all of a parameter without layers."""
  stack = [str(layer)] if _stacked(path) else []
  return ".".join(["c", *stack, *("0" for _ in entry.ours)])


def metadata(path: str, entry: Entry, layers: int, dtype: np.dtype) -> dict[str, Any]:
  """The zarr 3 metadata of one parameter."""
  stack, one = ([layers], [1]) if _stacked(path) else ([], [])
  order = [*range(len(stack)), *(len(stack) + i for i in entry.order)]
  return {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [*stack, *entry.ours],
    "data_type": dtype.name,
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*one, *entry.ours]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
    "fill_value": 0.0,
    "codecs": [
      {"name": "transpose", "configuration": {"order": order}},
      {"name": "bytes", "configuration": {"endian": "little"}},
    ],
  }


def _stacked(path: str) -> bool:
  return "/layers/" in path
