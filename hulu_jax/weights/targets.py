"""Where a conversion writes to: safetensors of a torch layout, or one step of a run folder.

A run folder's arrays are stored in torch's order of axes, which zarr allows any reader to undo: the
bytes of a layer are the same in every layout, and no conversion turns a matrix.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import json
import math
import os
import pathlib

import numpy as np

from hulu_jax.weights import checkpoint
from hulu_jax.weights import files
from hulu_jax.weights import headers
from hulu_jax.weights.rows import Rows
from hulu_jax.weights.sources import Item
from hulu_jax.weights.sources import Source

Progress = Callable[[int, int], None]  # is told the bytes written so far, and of how many


def write_torch(
  folder: pathlib.Path,
  items: Sequence[Item],
  source: Source,
  rows: Rows,
  shard_size: int,
  progress: Progress,
) -> None:
  """Safetensors of at most `shard_size` bytes (or one tensor), with an index if there are several.

  A layer's tensors stand together; the order of `items` is only the order of reading.
  """
  shards = list(_shards(items, shard_size))
  one = len(shards) == 1
  names = [
    "model.safetensors" if one else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
    for i in range(1, len(shards) + 1)
  ]
  places: dict[str, tuple[int, int]] = {}
  with contextlib.ExitStack() as stack:
    for name, shard in zip(names, shards, strict=True):
      entries = {i.entry.name: (headers.NAMES[i.dtype], i.entry.shape) for i in shard}
      starts = headers.write(folder / name, entries)
      descriptor = os.open(folder / name, os.O_WRONLY)
      stack.callback(os.close, descriptor)
      places |= {tensor: (descriptor, start) for tensor, start in starts.items()}
    done, total = 0, sum(item.size for item in items)
    for item in items:
      descriptor, start = places[item.entry.name]
      for block in rows.blocks(source, item):
        start += _write(descriptor, block, start)
        done += block.nbytes
        progress(done, total)
  if not one:
    weight_map = {i.entry.name: n for n, shard in zip(names, shards, strict=True) for i in shard}
    _write_index(folder, weight_map, items)


def _write_index(folder: pathlib.Path, weight_map: dict[str, str], items: Sequence[Item]) -> None:
  metadata = {
    "total_parameters": sum(math.prod(i.entry.shape) for i in items),
    "total_size": sum(i.size for i in items),
  }
  index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
  (folder / files.INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _shards(items: Sequence[Item], limit: int) -> Iterator[list[Item]]:
  """Layer after layer; inside a file the widest type first, so that all are aligned."""
  shard: list[Item] = []
  size = 0
  for item in sorted(items, key=lambda i: (i.path.split("/")[0], "/layers/" in i.path, i.layer)):
    if shard and size + item.size > limit:
      yield sorted(shard, key=lambda i: -i.dtype.itemsize)
      shard, size = [], 0
    shard.append(item)
    size += item.size
  yield sorted(shard, key=lambda i: -i.dtype.itemsize)


def write_run(
  folder: pathlib.Path, items: Sequence[Item], source: Source, rows: Rows, progress: Progress
) -> None:
  """Step 0 of a run: what `checkpoint.load_params`, or any reader of Orbax, opens.

  Raises:
    ValueError: layers of one parameter that differ in type.
  """
  leaves: dict[str, list[Item]] = {}
  for item in items:
    leaves.setdefault(item.path, []).append(item)
  state = checkpoint.folder(folder) / "0" / "state"
  state.mkdir(parents=True)
  done, total = 0, sum(item.size for item in items)
  for path, layers in leaves.items():
    types = {item.dtype for item in layers}
    if len(types) > 1:
      listed = sorted(dtype.name for dtype in types)
      raise ValueError(f"the layers of {path} are stored as {listed}; choose one with --dtype")
    stacked = "/layers/" in path
    array = state / ".".join(("params", *path.split("/")))
    array.mkdir()
    (array / "zarr.json").write_text(json.dumps(_zarr(layers, stacked)))
    for item in layers:
      place = [str(item.layer)] if stacked else []
      chunk = ".".join(["c", *place, *("0" for _ in item.entry.ours)])
      with (array / chunk).open("xb") as file:
        for block in rows.blocks(source, item):
          done += file.write(block.view(np.uint8).data)
          progress(done, total)
  (state / "_METADATA").write_text(json.dumps(_metadata(leaves)))


def _zarr(layers: Sequence[Item], stacked: bool) -> dict[str, object]:
  """The zarr 3 metadata of one parameter, a chunk per layer."""
  entry = layers[0].entry
  stack, one = ([len(layers)], [1]) if stacked else ([], [])
  order = [*range(len(stack)), *(len(stack) + i for i in entry.order)]
  codecs = [
    {"name": "transpose", "configuration": {"order": order}},
    {"name": "bytes", "configuration": {"endian": "little"}},
  ]
  return {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [*stack, *entry.ours],
    "data_type": layers[0].dtype.name,
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*one, *entry.ours]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
    "fill_value": 0.0,
    "codecs": codecs,
  }


def _metadata(leaves: dict[str, list[Item]]) -> dict[str, object]:
  """What Orbax keeps beside the arrays: the tree they are the leaves of."""
  metadata = {}
  for path, layers in leaves.items():
    keys = ("params", *path.split("/"))
    shape = list(layers[0].entry.ours)
    metadata[str(keys)] = {
      "key_metadata": [{"key": key, "key_type": 2} for key in keys],  # 2: of a dict
      "value_metadata": {
        "value_type": "jax.Array",
        "skip_deserialize": False,
        "write_shape": [len(layers), *shape] if "/layers/" in path else shape,
      },
    }
  return {
    "tree_metadata": metadata,
    "use_ocdbt": False,
    "use_zarr3": True,
    "store_array_data_equal_to_fill_value": True,
    "custom_metadata": None,
  }


def _write(descriptor: int, block: np.ndarray, start: int) -> int:
  data = block.view(np.uint8).data
  while data:
    written = os.pwrite(descriptor, data, start)
    data, start = data[written:], start + written
  return block.nbytes
