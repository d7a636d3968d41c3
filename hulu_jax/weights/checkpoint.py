"""Reading a hulu_jax run folder: its architecture, how it sees media, and its newest parameters."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp

from hulu_jax import peft
from hulu_jax.core import linear
from hulu_jax.core import params as P
from hulu_jax.core import tree
from hulu_jax.data.compression import Compression
from hulu_jax.data.vision import Policy
from hulu_jax.models.config import DecoderConfig
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.config import VisionConfig
from hulu_jax.weights import manifest

# Where a step keeps the moving average of what trains, beside "params".
AVERAGE = "ema"
_DESCRIPTION, _PEFT = "model.json", "peft"


def folder(workdir: Path) -> Path:
  """Where the steps of a run lie; absolute, as Orbax wants it."""
  return (Path(workdir) / "checkpoints").resolve()


def base_folder(workdir: Path) -> Path:
  """Where a run with adapters keeps, once, what does not train."""
  return (Path(workdir) / "base").resolve()


def is_run(path: Path) -> bool:
  """Whether `path` is a folder that `hulu train` wrote."""
  return (path / _DESCRIPTION).is_file()


def write_description(
  workdir: Path, config: HuluConfig, policy: Policy, adapters: peft.Adapters | None = None
) -> None:
  """Says in `workdir/model.json` what the parameters mean and how media become tokens."""
  said = {"config": dataclasses.asdict(config), "policy": dataclasses.asdict(policy)}
  if adapters is not None:
    said[_PEFT] = adapters.to_json()
  (workdir / _DESCRIPTION).write_text(json.dumps(said, indent=2) + "\n")


def read_description(workdir: Path) -> tuple[HuluConfig, Policy]:
  """What `write_description` wrote."""
  found = json.loads((workdir / _DESCRIPTION).read_text())
  config, policy = found["config"], found["policy"]
  return (
    HuluConfig(vision=VisionConfig(**config["vision"]), decoder=DecoderConfig(**config["decoder"])),
    Policy(
      **{
        **policy,
        "compression": Compression(**policy["compression"]),
        "swap_sides": tuple(policy["swap_sides"]),  # JSON has lists only
      }
    ),
  )


def read_adapters(workdir: Path) -> peft.Adapters | None:
  """The adapters that `write_description` named, None for a model without."""
  found = json.loads((workdir / _DESCRIPTION).read_text())
  return peft.named(found[_PEFT]) if _PEFT in found else None


def load_params(
  workdir: Path, specs: P.Specs, mesh: jax.sharding.Mesh, *, ema: bool = False
) -> P.Params:
  """The parameters of the newest step, without the optimizer, placed on `mesh`.

  specs: of the model as published; the result has the run's adapters in it where it has any.
  ema: the moving average of what trained, in place of the last values.

  Raises:
    FileNotFoundError: no checkpoint there.
    ValueError: a checkpoint of another architecture, or without an average that is asked for.
  """
  trained, wanted = _trained(workdir, specs, mesh, ema)
  if read_adapters(workdir) is None:
    return trained
  return tree.merge(trained, _restore(base_folder(workdir), wanted))


def load_trained(
  workdir: Path, specs: P.Specs, mesh: jax.sharding.Mesh, *, ema: bool = False
) -> P.Params:
  """As `load_params`, but of a run with adapters only what it trained, None for its base."""
  return _trained(workdir, specs, mesh, ema)[0]


def _trained(workdir: Path, specs: P.Specs, mesh: jax.sharding.Mesh, ema: bool) -> tuple[Any, Any]:
  """What the newest step holds, and the shapes of the whole."""
  state, adapters = newest(workdir), read_adapters(workdir)
  if ema:
    check_average(state)
  wanted = P.abstract(specs if adapters is None else adapters.specs(specs), mesh)
  check_shapes(folder(workdir), int(state.parent.name), wanted)
  last = _restore(state, wanted)
  return (tree.merge(_restore(state, wanted, AVERAGE), last) if ema else last), wanted


def load_plain(
  workdir: Path, specs: P.Specs, mesh: jax.sharding.Mesh, *, ema: bool = False
) -> P.Params:
  """As `load_params`, with adapters merged into the weights that they adapt."""
  with jax.set_mesh(mesh):
    return jax.jit(linear.plain)(load_params(workdir, specs, mesh, ema=ema))


def check_average(state: Path) -> None:
  """Raises ValueError for a step, as `newest` names it, of a run that kept no average."""
  if not any(name.startswith(f"{AVERAGE}/") for name in held(state)):
    raise ValueError(f"{state.parent} holds no average: the run was trained with ema = None")


def newest(workdir: Path, *, quick: bool = False) -> Path:
  """Where the newest step of a run lies whose files are as they were written, every byte of them.

  quick: looks at their sizes only, for those who read every byte but once.

  Raises:
    FileNotFoundError: no step.
    ValueError: none that is whole; what is wrong with each.
  """
  steps = folder(workdir)
  found = manifest.newest(steps, quick=quick)
  check_base(workdir)
  for line in skipped(found):
    logging.warning("%s", line)
  if found.step is not None:
    return steps / str(found.step) / "state"
  if found.skipped:
    raise ValueError(f"no whole checkpoint in {steps}: {'; '.join(skipped(found))}")
  raise FileNotFoundError(f"no checkpoint in {steps}")


def skipped(found: manifest.Newest) -> list[str]:
  """Which steps are damaged and how, a line each."""
  return [f"step {step} is damaged: {', '.join(wrong)}" for step, wrong in found.skipped.items()]


def check_base(workdir: Path) -> None:
  """Raises ValueError where what a run with adapters keeps frozen is not as it was written."""
  wrong = manifest.problems(base_folder(workdir)) if base_folder(workdir).is_dir() else None
  if wrong:
    raise ValueError(
      f"{base_folder(workdir)} is damaged ({', '.join(wrong)}): its steps are nothing without it; "
      "begin the run again from the same init_from"
    )


def _restore(part: Path, wanted: Any, key: str = "params") -> Any:
  """What a stored tree holds under `key`, as the leaves of `wanted` say; None for the others."""
  there = shapes(part, key)
  here = tree.map_named(lambda name, like: like if name in there else None, wanted)
  item = {key: here}
  args = ocp.args.PyTreeRestore(
    item=item,
    restore_args=ocp.checkpoint_utils.construct_restore_args(item),
    partial_restore=True,
  )
  with ocp.PyTreeCheckpointer() as reader:
    return reader.restore(part, args=args)[key]


def shapes(part: Path, key: str = "params") -> dict[str, tuple[int, ...]]:
  """By path, what a stored tree declares under `key`."""
  declared = ocp.PyTreeCheckpointHandler().metadata(epath.Path(part)).tree[key]
  return {tree.path_name(path): tuple(m.shape) for path, m in jax.tree.leaves_with_path(declared)}


def read_leaf(part: Path, name: str) -> np.ndarray:
  """One stored parameter, by its path, as a host array."""
  item: Any = 0
  how: Any = ocp.RestoreArgs(restore_type=np.ndarray)
  for key in reversed(("params", *name.split("/"))):
    item, how = {key: item}, {key: how}
  args = ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True)
  with ocp.PyTreeCheckpointer() as reader:
    (found,) = jax.tree.leaves(reader.restore(part, args=args))
  return np.asarray(found)


def held(part: Path) -> set[str]:
  """The paths of all leaves that a stored tree declares."""
  declared = ocp.PyTreeCheckpointHandler().metadata(epath.Path(part)).tree
  return set(tree.names(declared))


def check_shapes(steps: Path, step: int, expected: Any) -> None:
  """Compares the shapes a step declares with `expected`, before anything is allocated.

  Raises:
    ValueError: the first parameter, by name, that differs.
  """
  there = shapes(steps / str(step) / "state")
  if base_folder(steps.parent).is_dir():
    there |= shapes(base_folder(steps.parent))
  here = {tree.path_name(p): tuple(s.shape) for p, s in jax.tree.leaves_with_path(expected)}
  for name in sorted(there.keys() | here.keys()):
    if there.get(name) != here.get(name):
      raise ValueError(
        f"checkpoint {steps / str(step)} is of another architecture: {name} is "
        f"{there.get(name)} there, {here.get(name)} in the model: set `model` as it was made"
      )
