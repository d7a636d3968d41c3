"""A Hugging Face folder to our config and parameters, streamed leaf by leaf into their shards."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.core.params import ParamSpec
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig
from hulu_jax.weights import files
from hulu_jax.weights import fit
from hulu_jax.weights import hf_config
from hulu_jax.weights import names
from hulu_jax.weights.names import Entry


def read_config(folder: str | pathlib.Path) -> HuluConfig:
  """The architecture of a checkpoint: its config.json, and what its tensors tell.

  Understands transformers' `video_llama_3` and the original Hulu-Med form.  Biases, query and key
  norms and tying are as stored, whatever the config calls itself.

  Raises:
    ValueError: a missing key, named with its file; an unsupported architecture; damaged files.
  """
  folder = pathlib.Path(folder)
  raw = files.read_json(folder / "config.json")
  with files.opened(folder) as stored:
    return hf_config.parse(raw, str(folder / "config.json"), stored.shapes)


def image_token_id(folder: str | pathlib.Path) -> int | None:
  """Which token id of a prompt stands for a visual token, where config.json says so."""
  return hf_config.image_token_id(files.read_json(pathlib.Path(folder) / "config.json"))


def load_params(
  folder: str | pathlib.Path,
  config: HuluConfig,
  mesh: jax.sharding.Mesh | None = None,
  dtype: Any = jnp.float32,
) -> P.Params:
  """The parameters of a checkpoint in `dtype`, tree as `hulu.specs(config)`.

  Under a mesh every leaf is born in its shards and a process reads only the layers and slices that
  its devices hold.

  Raises:
    ValueError: every missing, unexpected and mis-shaped tensor, before anything is allocated.
  """
  specs = hulu.specs(config)
  where = None if mesh is None else sharding.shardings(specs, mesh)
  with files.opened(pathlib.Path(folder)) as stored:
    table = names.entries(config, names.detect(stored.shapes))
    fit.check(table, stored, str(folder))

    def whole(path: str, spec: ParamSpec) -> jax.Array:
      return jnp.asarray(_read(table[path], spec, (slice(None),) * len(spec.shape), stored, dtype))

    def shards(path: str, spec: ParamSpec, place: jax.NamedSharding) -> jax.Array:
      held: dict[tuple[Any, ...], np.ndarray] = {}  # replicas share what was read

      def read(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        key = tuple(part.indices(n) for part, n in zip(index, spec.shape, strict=True))
        if key not in held:
          held[key] = _read(table[path], spec, index, stored, dtype)
        return held[key]

      return jax.make_array_from_callback(spec.shape, place, read)

    if where is None:
      return tree.map_named(whole, specs)
    return tree.map_named(shards, specs, where)


def _read(
  entries: list[Entry], spec: ParamSpec, index: tuple[slice, ...], stored: files.Tensors, dtype: Any
) -> np.ndarray:
  """`index` of one parameter; a stack is filled layer by layer, so only one layer lies twice."""

  def one(entry: Entry, part: tuple[slice, ...]) -> np.ndarray:
    return entry.read(part, lambda torch_index: stored.read(entry.name, torch_index))

  if spec.axes[0] != "layer":
    return one(entries[0], index).astype(dtype)
  layers, rest = entries[index[0]], index[1:]
  lengths = [len(range(*part.indices(n))) for part, n in zip(rest, spec.shape[1:], strict=True)]
  out = np.empty((len(layers), *lengths), dtype)
  for i, entry in enumerate(layers):
    out[i] = one(entry, rest)
  return out
