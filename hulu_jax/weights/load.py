"""A Hugging Face folder to our config and parameters, streamed leaf by leaf into their shards."""

from collections.abc import Sequence
import contextlib
import pathlib
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.core.params import ParamSpec
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig
from hulu_jax.weights import agree
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
  with files.opened(pathlib.Path(folder)) as stored:
    table = names.entries(config, names.detect(stored.shapes))
    fit.check(table, stored, str(folder))
    if mesh is None:
      return tree.map_named(lambda n, spec: _whole(table[n], spec, stored, dtype), specs)
    return tree.map_named(
      lambda n, spec, place: _shards(table[n], spec, stored, dtype, place),
      specs,
      sharding.shardings(specs, mesh),
    )


def load_parts(
  places: Sequence[pathlib.Path], config: HuluConfig, mesh: jax.sharding.Mesh, key: jax.Array
) -> P.Params:
  """The parameters of a whole checkpoint, or of parts that several folders and files hold, float32.

  An encoder or a projector that none holds is drawn as a fresh model of `key` has it, with a
  warning.  Call it under `jax.set_mesh(mesh)`.

  Raises:
    ValueError: a part that two places hold, a decoder that none holds, tensors that do not fit, a
      config.json that says another architecture than `config`.
  """
  specs = hulu.specs(config)
  where = sharding.shardings(specs, mesh)
  with contextlib.ExitStack() as stack:
    held: dict[str, _Piece] = {}
    for place in places:
      piece = _piece(place, stack.enter_context(files.opened(place)), config)
      twice = [
        f"{held[part].place} and {place} both hold the {part}" for part in piece.parts & held.keys()
      ]
      if twice:
        raise ValueError(f"{'; '.join(twice)}; give each part once")
      held |= dict.fromkeys(piece.parts, piece)
    if "decoder" not in held:
      raise ValueError(
        f"{', '.join(map(str, places))}: {' and '.join(sorted(held))}, but no decoder; add the "
        "folder of one, with a comma between"
      )
    fresh = {part: specs[part] for part in specs if part not in held}
    if fresh:
      logging.warning("%s: in no place given, so drawn anew", " and ".join(fresh))
    drawn = jax.jit(lambda k: P.initialize(k, fresh))(key)

    def read(name: str, spec: ParamSpec, place: jax.NamedSharding) -> jax.Array:
      piece = held[name.split("/")[0]]
      return _shards(piece.table[name], spec, piece.stored, jnp.float32, place)

    found = {part: specs[part] for part in held}
    return {**drawn, **tree.map_named(read, found, {part: where[part] for part in held})}


class _Piece(NamedTuple):
  """What one place holds of a model."""

  place: pathlib.Path
  parts: frozenset[str]
  stored: files.Tensors
  table: dict[str, list[Entry]]


def _piece(place: pathlib.Path, stored: files.Tensors, config: HuluConfig) -> _Piece:
  layout = names.detect(stored.shapes)
  agree.check(place, config, layout, stored.shapes)
  table = names.entries(config, layout)
  fit.check(table, stored, str(place))
  return _Piece(place, frozenset(names.parts(layout)), stored, table)


def _whole(entries: list[Entry], spec: ParamSpec, stored: files.Tensors, dtype: Any) -> jax.Array:
  return jnp.asarray(_read(entries, spec, (slice(None),) * len(spec.shape), stored, dtype))


def _shards(
  entries: list[Entry], spec: ParamSpec, stored: files.Tensors, dtype: Any, place: jax.NamedSharding
) -> jax.Array:
  """One parameter, of which each device of this process gets its part."""
  held: dict[tuple[Any, ...], np.ndarray] = {}  # replicas share what was read

  def read(index: tuple[slice, ...] | None) -> np.ndarray:
    assert index is not None
    key = tuple(part.indices(n) for part, n in zip(index, spec.shape, strict=True))
    if key not in held:
      held[key] = _read(entries, spec, index, stored, dtype)
    return held[key]

  return jax.make_array_from_callback(spec.shape, place, read)


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
