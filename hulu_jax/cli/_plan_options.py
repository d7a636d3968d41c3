"""What `hulu plan` is asked: an experiment, a mesh or a topology, how much it should find out."""

import argparse
from collections.abc import Sequence
import math
from pathlib import Path
import re
from typing import NamedTuple

from ml_collections import ConfigDict

from hulu_jax.cli import _experiment
from hulu_jax.core import sharding
from hulu_jax.core import topology as topology_lib
from hulu_jax.core.topology import Topology


class Options(NamedTuple):
  """config: the experiment, on the mesh that was asked for; estimate: whether nothing is compiled;
  compilers: a folder of them; emulated: whether emulated CPU devices stand in for the chips; rest:
  the arguments as they were."""

  config: ConfigDict
  stage: str | None
  topology: Topology | None
  utilisation: float
  estimate: bool
  compilers: Path | None
  emulated: bool
  rest: tuple[str, ...]


def parse(argv: Sequence[str]) -> Options:
  """Reads a command line.

  Raises:
    absl.flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError: see
      `_experiment.split`; numbers and names that cannot be meant.
  """
  config, rest = _experiment.split(argv, "hulu plan")
  if config is None:
    raise ValueError("needs --config=EXPERIMENT.py")
  parser = _Parser(add_help=False, allow_abbrev=False)
  parser.add_argument("--stage")
  parser.add_argument("--mesh")
  parser.add_argument("--topology")
  parser.add_argument("--utilisation", type=float, default=0.4)
  parser.add_argument("--estimate", action="store_true")
  parser.add_argument("--compilers", type=Path)
  parser.add_argument("--emulated", action="store_true", help=argparse.SUPPRESS)
  args = parser.parse_args(rest)
  if not 0 < args.utilisation <= 1:
    raise ValueError(f"--utilisation={args.utilisation}; expected a fraction of the peak, like 0.4")
  if args.compilers is not None and not args.compilers.is_dir():
    raise ValueError(f"--compilers: no folder {args.compilers}")
  if args.mesh is not None:
    config.mesh = _mesh(args.mesh)
  topology = None if args.topology is None else topology_lib.parse(args.topology)
  _fits(config, topology)
  return Options(
    config,
    args.stage,
    topology,
    args.utilisation,
    args.estimate,
    args.compilers,
    args.emulated,
    tuple(argv),
  )


class _Parser(argparse.ArgumentParser):
  """Raises instead of ending the process."""

  def error(self, message: str) -> None:  # type: ignore[override]
    raise ValueError(message)


def _mesh(text: str) -> dict[str, int]:
  """`data=2,fsdp=128` as a mesh; what is not named is 1, and -1 is what remains."""
  named = dict(part.partition("=")[::2] for part in text.split(","))
  unknown = sorted(set(named) - set(sharding.MESH_AXES))
  if unknown or not all(re.fullmatch(r"-1|[1-9]\d*", n) for n in named.values()):
    like = ",".join(f"{axis}=N" for axis in sharding.MESH_AXES)
    raise ValueError(f"--mesh={text}; expected {like}, or fewer of them")
  return {axis: int(named.get(axis, 1)) for axis in sharding.MESH_AXES}


def _fits(config: ConfigDict, topology: Topology | None) -> None:
  """Fills a -1 of the mesh; raises where it has another number of devices than the machine."""
  if topology is None:
    return
  config.mesh = sharding.filled(config.mesh, topology.size)
  size = math.prod(config.mesh.values())
  if size != topology.size:
    has = " x ".join(str(config.mesh.get(axis, 1)) for axis in sharding.MESH_AXES)
    raise ValueError(
      f"the mesh {has} ({', '.join(sharding.MESH_AXES)}) has {size} devices, {topology.name} has "
      f"{topology.size}; say for example --mesh=fsdp={topology.size}"
    )
