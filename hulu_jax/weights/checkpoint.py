"""Reading a hulu_jax run folder: its architecture, how it sees media, and its newest parameters."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp

from hulu_jax.core import params as P
from hulu_jax.core import tree
from hulu_jax.data.compression import Compression
from hulu_jax.data.vision import Policy
from hulu_jax.models.config import DecoderConfig
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.config import VisionConfig

_DESCRIPTION = "model.json"


def folder(workdir: Path) -> Path:
  """Where the steps of a run lie; absolute, as Orbax wants it."""
  return (Path(workdir) / "checkpoints").resolve()


def is_run(path: Path) -> bool:
  """Whether `path` is a folder that `hulu train` wrote."""
  return (path / _DESCRIPTION).is_file()


def write_description(workdir: Path, config: HuluConfig, policy: Policy) -> None:
  """Says in `workdir/model.json` what the parameters mean and how media become tokens."""
  text = json.dumps(
    {"config": dataclasses.asdict(config), "policy": dataclasses.asdict(policy)}, indent=2
  )
  (workdir / _DESCRIPTION).write_text(text + "\n")


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


def load_params(workdir: Path, specs: P.Specs, mesh: jax.sharding.Mesh) -> P.Params:
  """The parameters of the newest step, without the optimizer, placed on `mesh`.

  Raises:
    FileNotFoundError: no checkpoint there.
    ValueError: a checkpoint of another architecture.
  """
  state = newest(workdir)
  check_shapes(folder(workdir), int(state.parent.name), specs)
  item = {"params": P.abstract(specs, mesh)}
  args = ocp.args.PyTreeRestore(
    item=item,
    restore_args=ocp.checkpoint_utils.construct_restore_args(item),
    partial_restore=True,
  )
  with ocp.PyTreeCheckpointer() as reader:
    return reader.restore(state, args=args)["params"]


def newest(workdir: Path) -> Path:
  """Where the newest step of a run lies; FileNotFoundError if there is none."""
  steps = folder(workdir)
  found = [int(p.name) for p in steps.glob("*") if p.name.isdigit()]
  if not found:
    raise FileNotFoundError(f"no checkpoint in {steps}")
  return steps / str(max(found)) / "state"


def check_shapes(steps: Path, step: int, expected: Any) -> None:
  """Compares the shapes a step declares with `expected`, before anything is allocated.

  Raises:
    ValueError: the first parameter, by name, that differs.
  """
  state = epath.Path(steps / str(step) / "state")
  declared = ocp.PyTreeCheckpointHandler().metadata(state).tree["params"]
  there = {tree.path_name(p): tuple(m.shape) for p, m in jax.tree.leaves_with_path(declared)}
  here = {tree.path_name(p): tuple(s.shape) for p, s in jax.tree.leaves_with_path(expected)}
  for name in sorted(there.keys() | here.keys()):
    if there.get(name) != here.get(name):
      raise ValueError(
        f"checkpoint {steps / str(step)} is of another architecture: {name} is "
        f"{there.get(name)} there, {here.get(name)} in the model"
      )
