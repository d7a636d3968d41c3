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
from hulu_jax.weights import chunks
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

  A layer's tensors stand together, whatever the order of `items`.
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
    meter = _Meter(sum(item.size for item in items), progress)
    # Disks like one direction; a source without files reads its stacks leaf by leaf instead.
    anywhere = source.place(items[0].path, items[0].layer) is not None
    for item in [i for shard in shards for i in shard] if anywhere else items:
      _fill(*places[item.entry.name], item, source, rows, meter)
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
  meter = _Meter(sum(item.size for item in items), progress)
  for path, layers in leaves.items():
    types = {item.dtype for item in layers}
    if len(types) > 1:
      listed = sorted(dtype.name for dtype in types)
      raise ValueError(f"the layers of {path} are stored as {listed}; choose one with --dtype")
    array = state / chunks.folder(path)
    array.mkdir()
    content = chunks.metadata(path, layers[0].entry, len(layers), layers[0].dtype)
    (array / chunks.METADATA).write_text(json.dumps(content))
    for item in layers:
      with (array / chunks.file(path, item.entry, item.layer)).open("xb") as file:
        _fill(file.fileno(), 0, item, source, rows, meter)
  (state / "_METADATA").write_text(json.dumps(_metadata(leaves)))


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


class _Meter:
  """Adds up what was written."""

  def __init__(self, total: int, progress: Progress):
    self._done, self._total, self._progress = 0, total, progress

  def add(self, size: int) -> None:
    self._done += size
    self._progress(self._done, self._total)


def _fill(
  descriptor: int, start: int, item: Item, source: Source, rows: Rows, meter: _Meter
) -> None:
  """Writes one tensor at `start`; bytes that need no look at them never leave the kernel."""
  place = source.place(item.path, item.layer)
  if place is None or not rows.untouched(place, source, item):
    for block in rows.blocks(source, item):
      start += _write(descriptor, block, start)
      meter.add(block.nbytes)
    return
  origin, first, size = place
  os.lseek(descriptor, start, os.SEEK_SET)
  while size:
    sent = os.sendfile(descriptor, origin, first, min(size, _AT_ONCE))
    if not sent:
      raise ValueError(f"{item.entry.name}: its file ended while it was read")
    first, size = first + sent, size - sent
    meter.add(sent)


# Between two looks at the clock of a progress bar.
_AT_ONCE = 1 << 26


def _write(descriptor: int, block: np.ndarray, start: int) -> int:
  data = block.view(np.uint8).data
  while data:
    written = os.pwrite(descriptor, data, start)
    data, start = data[written:], start + written
  return block.nbytes
