"""Where a conversion reads from: each tensor as a stream of values in torch's order of axes.

Both kinds of target store that order (see `targets`), so a tensor passes through unturned.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import math
import os
import pathlib
import sys
from typing import Any, Protocol

import jax
import numpy as np
import tensorstore as ts

from hulu_jax.core import params as P
from hulu_jax.core import tree
from hulu_jax.core.params import ParamSpec
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig
from hulu_jax.weights import checkpoint
from hulu_jax.weights import chunks
from hulu_jax.weights import headers
from hulu_jax.weights import names
from hulu_jax.weights.files import Tensors

# Of a stack whose chunks hold many layers this much is read at once.
_GROUP = 1 << 29


class Source(Protocol):
  """Parameters by our path, each layer of a stack by itself."""

  def dtype(self, path: str, layer: int) -> np.dtype:
    """The type in which a tensor is stored."""
    ...

  def blocks(self, path: str, layer: int, unit: int) -> Iterator[np.ndarray]:
    """Flat runs of a tensor's values, each a multiple of `unit` long."""
    ...

  def place(self, path: str, layer: int) -> tuple[int, int, int] | None:
    """(open file, first byte, bytes) where a tensor's values lie as they are; None: nowhere."""
    ...


class Torch:
  """The tensors of one checkpoint of torch's."""

  def __init__(self, stored: Tensors, config: HuluConfig, layout: str):
    self._stored = stored
    self._table = names.entries(config, layout)

  def dtype(self, path: str, layer: int) -> np.dtype:
    return headers.DTYPES[self._stored.dtypes[self._table[path][layer].name]]

  def blocks(self, path: str, layer: int, unit: int) -> Iterator[np.ndarray]:
    return self._stored.blocks(self._table[path][layer].name, unit)

  def place(self, path: str, layer: int) -> tuple[int, int, int] | None:
    # Only there can the kernel copy from file to file.
    return self._stored.place(self._table[path][layer].name) if sys.platform == "linux" else None


class Parts:
  """A model put together: each part from a source of its own."""

  def __init__(self, sources: Mapping[str, Source]):
    self._sources = sources

  def dtype(self, path: str, layer: int) -> np.dtype:
    return self._sources[path.split("/")[0]].dtype(path, layer)

  def blocks(self, path: str, layer: int, unit: int) -> Iterator[np.ndarray]:
    return self._sources[path.split("/")[0]].blocks(path, layer, unit)

  def place(self, path: str, layer: int) -> tuple[int, int, int] | None:
    return self._sources[path.split("/")[0]].place(path, layer)


class Params:
  """Parameters in memory, on however many devices; one layer at a time comes to the host."""

  def __init__(self, params: P.Params, config: HuluConfig):
    self._leaves: dict[str, Any] = {}
    tree.map_named(self._leaves.__setitem__, params)
    # A table of any layout: axes are the same in all.
    self._table = names.entries(config, "hulumed")

  def dtype(self, path: str, layer: int) -> np.dtype:
    return np.dtype(self._leaves[path].dtype)

  def blocks(self, path: str, layer: int, unit: int) -> Iterator[np.ndarray]:
    entry, leaf = self._table[path][layer], self._leaves[path]
    own = leaf[layer] if len(leaf.shape) > len(entry.ours) else leaf
    yield np.ascontiguousarray(entry.to_torch(np.asarray(own))).reshape(-1)

  def place(self, path: str, layer: int) -> tuple[int, int, int] | None:
    return None


class Fresh:
  """Parameters as a new model of this seed has them, drawn leaf by leaf."""

  def __init__(self, config: HuluConfig, seed: int, dtype: np.dtype):
    self._dtype, self._key = dtype, jax.random.key(seed)
    self._specs: dict[str, ParamSpec] = {}
    tree.map_named(self._specs.__setitem__, hulu.specs(config))
    self._config = config
    self._last: tuple[str, Params] | None = None

  def dtype(self, path: str, layer: int) -> np.dtype:
    return self._dtype

  def blocks(self, path: str, layer: int, unit: int) -> Iterator[np.ndarray]:
    if self._last is None or self._last[0] != path:
      leaf = np.asarray(P.draw(self._key, path, self._specs[path])).astype(self._dtype)
      self._last = path, Params({path: leaf}, self._config)
    return self._last[1].blocks(path, layer, unit)

  def place(self, path: str, layer: int) -> tuple[int, int, int] | None:
    return None


class Run:
  """The newest step of a run folder, chunk by chunk: a whole leaf is never read at once.

  Unless its chunks hold it whole, as those of a run on one device do: then a leaf is the largest
  tensor there is.
  """

  def __init__(self, workdir: pathlib.Path, config: HuluConfig, *, ema: bool = False):
    """ema: where the step holds a leaf's moving average, that in place of its last value."""
    if checkpoint.read_adapters(workdir) is not None:
      raise ValueError(
        f"{workdir} is a run with adapters, which are not converted tensor by tensor: "
        "hulu_jax.save(hulu_jax.load(RUN), FOLDER, layout=...) writes it merged, "
        "weights.adapters.write_run the adapters alone"
      )
    self._state = checkpoint.newest(workdir, quick=True)
    steps, step = checkpoint.folder(workdir), int(self._state.parent.name)
    checkpoint.check_shapes(steps, step, hulu.specs(config))
    self._averaged = frozenset[str]()
    if ema:
      checkpoint.check_average(self._state)
      self._averaged = frozenset(checkpoint.held(self._state))
    self._table = names.entries(config, "hulumed")
    raw = json.loads((self._state / "_METADATA").read_text())
    self._driver = "zarr3" if raw["use_zarr3"] else "zarr"
    self._ocdbt = (self._state / "manifest.ocdbt").is_file()
    self._context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
    self._open: dict[str, ts.TensorStore] = {}
    self._group: tuple[str, range, np.ndarray] | None = None
    self._ours: dict[str, bool] = {}
    self._last: int | None = None  # the file of the last `place`, open until the next

  def dtype(self, path: str, layer: int) -> np.dtype:
    return np.dtype(self._leaf(path).dtype.numpy_dtype)

  def blocks(self, path: str, layer: int, unit: int) -> Iterator[np.ndarray]:
    entry, leaf = self._table[path][layer], self._leaf(path)
    if len(leaf.shape) == len(entry.ours):
      yield leaf.transpose(entry.order).read(order="C").result().reshape(-1)
      return
    if self._group is None or self._group[0] != path or layer not in self._group[1]:
      self._group = None  # before the next one is allocated
      first = layer - layer % self._together(leaf)
      layers = range(first, min(first + self._together(leaf), leaf.shape[0]))
      view = leaf[layers.start : layers.stop].transpose((0, *(1 + i for i in entry.order)))
      self._group = path, layers, view.read(order="C").result()
    yield self._group[2][layer - self._group[1].start].reshape(-1)

  def place(self, path: str, layer: int) -> tuple[int, int, int] | None:
    """Of arrays as `chunks` has them: then a layer is a file."""
    entry, dtype = self._table[path][layer], self.dtype(path, layer)
    array = self._state / chunks.folder(path)
    if path not in self._ours:
      said = array / chunks.METADATA
      expected = chunks.metadata(path, entry, len(self._table[path]), dtype)
      self._ours[path] = said.is_file() and json.loads(said.read_text()) == expected
    if not self._ours[path] or sys.platform != "linux":
      return None
    file = array / chunks.file(path, entry, layer)
    size = dtype.itemsize * math.prod(entry.shape)
    if not file.is_file() or file.stat().st_size != size:
      raise ValueError(
        f"{array.name} of {self._state} is damaged: {file.name} has not {size} bytes"
      )
    if self._last is not None:
      os.close(self._last)
    self._last = os.open(file, os.O_RDONLY)
    return self._last, 0, size

  def _together(self, leaf: ts.TensorStore) -> int:
    """How many layers are read at once: as many as share their chunks, within reason."""
    chunk = leaf.chunk_layout.read_chunk.shape or leaf.shape
    size = leaf.size // leaf.shape[0] * leaf.dtype.numpy_dtype.itemsize
    return max(1, min(chunk[0] or 1, _GROUP // size))

  def _leaf(self, path: str) -> ts.TensorStore:
    if path not in self._open:
      averaged = f"{checkpoint.AVERAGE}/{path}" in self._averaged
      name = f"{chunks.folder(path, checkpoint.AVERAGE if averaged else 'params')}/"
      base = f"{self._state}/"
      inside = {"driver": "ocdbt", "base": f"file://{base}", "path": name}
      plain = {"driver": "file", "path": base + name}
      spec = {
        "driver": self._driver,
        "kvstore": inside if self._ocdbt else plain,
        "fill_missing_data_reads": False,  # a lost file is an error, not zeros
      }
      self._open[path] = ts.open(spec, open=True, read=True, context=self._context).result()
    return self._open[path]


@dataclasses.dataclass(frozen=True)
class Item:
  """One tensor of a conversion: where it is ours, and what torch calls it."""

  path: str
  layer: int
  entry: names.Entry
  dtype: np.dtype

  @property
  def size(self) -> int:
    """Bytes."""
    return math.prod(self.entry.shape) * self.dtype.itemsize


def items(
  source: Source, config: HuluConfig, layout: str, dtype: np.dtype | None
) -> Sequence[Item]:
  """Every tensor of a layout, leaf by leaf; dtype: that of all, None as each is stored."""
  table = names.entries(config, layout)
  return [
    Item(path, layer, entry, source.dtype(path, layer) if dtype is None else dtype)
    for path, entries in table.items()
    for layer, entry in enumerate(entries)
  ]


def common_dtype(items: Sequence[Item]) -> np.dtype:
  """The type that most bytes have."""
  sizes: dict[np.dtype, int] = {}
  for item in items:
    sizes[item.dtype] = sizes.get(item.dtype, 0) + item.size
  return max(sizes, key=lambda dtype: sizes[dtype])
