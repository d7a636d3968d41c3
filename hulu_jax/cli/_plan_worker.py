"""Compiles a stage's step shapes in a process that sees the compilers; one JSON line a shape.

`hulu plan` starts it with the environment of `_compilers`.
"""

import json
import sys

import jax

from hulu_jax.cli import _plan_options
from hulu_jax.core import sharding
from hulu_jax.core.topology import Topology
from hulu_jax.training import aot
from hulu_jax.training import build
from hulu_jax.training import plan
from hulu_jax.training import stages


def main(argv: list[str]) -> None:
  """argv: of `hulu plan`, with the stage said."""
  options = _plan_options.parse(argv)
  cfg = stages.select(options.config, options.stage)
  platform = "cpu" if options.emulated else _platform(options.topology)
  program = build.build(cfg, platform=aot.OURS[platform])
  chips = _devices(platform, options.topology)
  mesh = sharding.mesh_over(cfg.mesh, chips)
  for number, name in enumerate(plan.shape_names(cfg)):
    found: dict[str, object] = {"shape": name}
    try:
      found |= aot.measured(aot.traced_step(program, number, mesh), platform)._asdict()
    except aot.TooLarge as error:
      found["too_large"] = str(error)
    print(json.dumps(found), flush=True)


def _platform(topology: Topology | None) -> str:
  return "cpu" if topology is None else topology.chip.platform


def _devices(platform: str, topology: Topology | None) -> list[jax.Device]:
  if platform == "cpu" or topology is None:
    return jax.devices("cpu")
  return aot.devices(topology)


if __name__ == "__main__":
  main(sys.argv[1:])
