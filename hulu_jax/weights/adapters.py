"""LoRA adapters in the layout of Hugging Face PEFT: a small folder beside a base model.

`adapter_config.json` says rank, scale and which torch modules are adapted;
`adapter_model.safetensors` holds `base_model.model.<module>.lora_A.weight` [rank, in] and
`.lora_B.weight` [out, rank] of each.  Only what computes plain LoRA is read or written.
"""

from collections.abc import Iterator, Mapping
import pathlib
import re
from typing import Any

import einops
import jax
import numpy as np
import safetensors
from safetensors.numpy import save_file

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig
from hulu_jax.peft import lora
from hulu_jax.weights import adapter_config
from hulu_jax.weights import atomic
from hulu_jax.weights import checkpoint
from hulu_jax.weights import names
from hulu_jax.weights.names import Entry

_TENSORS = "adapter_model.safetensors"


def write_run(
  workdir: str | pathlib.Path,
  folder: str | pathlib.Path,
  *,
  base: str,
  layout: str,
  ema: bool = False,
) -> None:
  """Writes the adapters of a run's newest step; the base model is not read.

  base, layout: as `write` has them.  ema: the adapters' moving average, not their last values.

  Raises:
    ValueError: a run without LoRA, one that trained more than its adapters (that more would be
      lost), or one that kept no average that is asked for.
    FileExistsError: `folder` is there.
  """
  workdir = pathlib.Path(workdir)
  found = checkpoint.read_adapters(workdir)
  if found is None or not isinstance(found.settings, lora.Settings):
    raise ValueError(f"{workdir} was trained with peft = {found}; expected the method lora")
  config, _ = checkpoint.read_description(workdir)
  specs = hulu.specs(config)
  params = checkpoint.load_trained(workdir, specs, sharding.one_device_mesh(), ema=ema)
  own = found.pattern(specs)
  more = [name for name in tree.names(params) if not re.fullmatch(own, name)]
  if more:
    raise ValueError(
      f"{workdir} trained more than its adapters, which this format cannot hold: {', '.join(more)}"
    )
  write(folder, params, config, found.settings, base=base, layout=layout)


def write(
  folder: str | pathlib.Path,
  params: P.Params,
  config: HuluConfig,
  settings: lora.Settings,
  *,
  base: str,
  layout: str,
) -> None:
  """Writes the adapters of `params` as PEFT reads them; the folder appears whole or not at all.

  base: name or path of the model that they belong to; layout: how it names its modules, one of
  `names.LAYOUTS`.

  Raises:
    ValueError: an unknown layout, or `settings` that target nothing or no linear layer.
    FileExistsError: `folder` is there.
  """
  if layout not in names.LAYOUTS:
    raise ValueError(f"no layout {layout!r}; there are: {', '.join(names.LAYOUTS)}")
  folder = pathlib.Path(folder)
  table = _targets(config, settings, layout)
  leaves: dict[str, Any] = {}
  tree.map_named(leaves.__setitem__, params)
  tensors: dict[str, np.ndarray] = {}
  for path, entries in table.items():
    factors = np.asarray(leaves[f"{path}/a"]), np.asarray(leaves[f"{path}/b"])
    layers = factors if _is_stack(path) else (x[None] for x in factors)
    for entry, a, b in zip(entries, *layers, strict=True):
      tensors |= zip(_tensor_names(entry), _to_torch(entry, a, b), strict=True)
  modules = [_module(entry) for entries in table.values() for entry in entries]
  text = adapter_config.text(settings, modules, base)
  folder.parent.mkdir(parents=True, exist_ok=True)
  with atomic.folder(folder, force=False) as new:
    (new / adapter_config.NAME).write_text(text)
    save_file(tensors, new / _TENSORS, metadata={"format": "pt"})


def load(
  folder: str | pathlib.Path, params: P.Params, config: HuluConfig, mesh: jax.sharding.Mesh
) -> tuple[P.Params, lora.Settings]:
  """`params` of a base model with the adapters of a PEFT folder, float32, each in its shards.

  Raises:
    ValueError: no such folder; a config that means more than plain LoRA; tensors that are missing,
      unexpected or of another shape than the config says.  Everything wrong is listed.
  """
  folder = pathlib.Path(folder)
  said = adapter_config.read(folder)
  if not (folder / _TENSORS).is_file():
    there = sorted(path.name for path in folder.iterdir())
    raise ValueError(f"no {_TENSORS} in {folder}; found {there}")
  try:
    with safetensors.safe_open(folder / _TENSORS, framework="numpy") as stored:
      shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}
      layout = _detect(config, shapes)
      settings = _settings(folder, said, config, layout)
      table = _targets(config, settings, layout)
      _check(folder, table, settings.rank, shapes)
      host = dict(_read(table, stored))
  except safetensors.SafetensorError as error:
    raise ValueError(f"{folder / _TENSORS} is not a whole safetensors file: {error}") from error
  new = lora.new(hulu.specs(config), settings)

  def place(name: str, like: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: host[name][index])

  factors = tree.map_named(place, P.abstract(new, mesh))
  return tree.merge(factors, lora.wrap(params, settings)), settings


def _targets(config: HuluConfig, settings: lora.Settings, layout: str) -> dict[str, list[Entry]]:
  """The torch weights of every adapted path."""
  added = lora.new(hulu.specs(config), settings)
  paths = {name.rpartition("/")[0] for name in tree.names(added)}
  return {p: e for p, e in names.entries(config, layout).items() if p in paths}


def _settings(
  folder: pathlib.Path, said: adapter_config.Said, config: HuluConfig, layout: str
) -> lora.Settings:
  """What the config says, its modules as our paths."""
  paths, half = [], []
  for path, entries in names.entries(config, layout).items():
    hits = [said.adapts(_module(e)) for e in entries if e.name.endswith(".weight")]
    if any(hits):
      paths.append(path)
    if any(hits) and not all(hits):
      half.append(f"{path} {[i for i, hit in enumerate(hits) if hit]}")
  problem = None
  if half:
    problem = f"adapts some layers of a stack and not the others: {', '.join(half)}"
  elif not paths:
    problem = f"target_modules = {said.target_modules!r} match no weight of the model"
  if problem:
    raise ValueError(f"{folder / adapter_config.NAME}: {problem}")
  targets = "|".join(map(re.escape, paths))
  try:
    settings = lora.Settings(rank=said.r, alpha=said.alpha, rslora=said.rslora, targets=targets)
    lora.new(hulu.specs(config), settings)
  except ValueError as error:
    raise ValueError(f"{folder / adapter_config.NAME}: {error}") from error
  return settings


def _detect(config: HuluConfig, stored: Mapping[str, Any]) -> str:
  """The layout that knows most of these names."""

  def known(layout: str) -> int:
    entries = (e for entries in names.entries(config, layout).values() for e in entries)
    return sum(name in stored for e in entries for name in _tensor_names(e))

  best = max(names.LAYOUTS, key=known)
  if not known(best):
    raise ValueError(
      f"adapter tensors of no known layout: {sorted(stored)[:6]}; names of a decoder layer are, by "
      "layout: "
      + ", ".join(f"{k}: {names.torch_name('decoder/layers/q', k)}" for k in names.LAYOUTS)
    )
  return best


def _check(
  folder: pathlib.Path,
  table: Mapping[str, list[Entry]],
  rank: int,
  stored: Mapping[str, tuple[int, ...]],
) -> None:
  wanted: dict[str, tuple[int, ...]] = {}
  for entry in (e for entries in table.values() for e in entries):
    outputs, inputs = entry.shape
    wanted |= zip(_tensor_names(entry), ((rank, inputs), (outputs, rank)), strict=True)
  problems = {
    "missing": sorted(wanted.keys() - stored.keys()),
    "unexpected": sorted(stored.keys() - wanted.keys()),
    "mis-shaped": [
      f"{name} has {stored[name]}, expected {wanted[name]}"
      for name in sorted(wanted.keys() & stored.keys())
      if stored[name] != wanted[name]
    ],
  }
  if any(problems.values()):
    listed = "; ".join(f"{what}: {', '.join(found)}" for what, found in problems.items() if found)
    raise ValueError(f"tensors of {folder} do not fit {adapter_config.NAME}: {listed}")


def _read(table: Mapping[str, list[Entry]], stored: Any) -> Iterator[tuple[str, np.ndarray]]:
  """Our factors by path, float32."""
  for path, entries in table.items():
    pairs = [
      _to_ours(entry, *(stored.get_tensor(n).astype(np.float32) for n in _tensor_names(entry)))
      for entry in entries
    ]
    for name, layers in zip("ab", zip(*pairs, strict=True), strict=True):
      yield f"{path}/{name}", np.stack(layers) if _is_stack(path) else layers[0]


def _is_stack(path: str) -> bool:
  return "/layers/" in path


def _module(entry: Entry) -> str:
  return entry.name.removesuffix(".weight")


def _tensor_names(entry: Entry) -> tuple[str, str]:
  at = f"base_model.model.{_module(entry)}"
  return f"{at}.lora_A.weight", f"{at}.lora_B.weight"


def _axes(entry: Entry) -> tuple[str, str]:
  """Inputs and outputs as torch joins them; without brackets they are ours, in the same order."""
  outputs, inputs = re.findall(r"\([^)]*\)|\w+", entry.axes.split(" -> ")[0])
  return inputs, outputs


def _to_torch(entry: Entry, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Our factors of one layer as lora_A and lora_B."""
  inputs, outputs = _axes(entry)
  return (
    np.ascontiguousarray(einops.rearrange(a, f"{inputs.strip('()')} r -> r {inputs}")),
    np.ascontiguousarray(einops.rearrange(b, f"r {outputs.strip('()')} -> {outputs} r")),
  )


def _to_ours(entry: Entry, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The inverse of `_to_torch`."""
  inputs, outputs = _axes(entry)
  ours_in, ours_out = inputs.strip("()"), outputs.strip("()")

  def lengths(axes: str) -> dict[str, int]:
    return {letter: entry.letters[letter] for letter in axes.split()}

  return (
    einops.rearrange(a, f"r {inputs} -> {ours_in} r", **lengths(ours_in)),
    einops.rearrange(b, f"{outputs} r -> r {ours_out}", **lengths(ours_out)),
  )
