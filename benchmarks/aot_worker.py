"""Compiles what `aot.py` asks for, in a process that sees the compilers; one JSON line a case.

  PYTHONPATH=<compilers>:. .venv/bin/python benchmarks/aot_worker.py '<job as JSON>'

`aot.py` starts it.
"""

import importlib
import json
import sys
from typing import Any

import jax

from benchmarks import kernel_cases
from hulu_jax.core import sharding
from hulu_jax.core import topology
from hulu_jax.core.topology import Topology
from hulu_jax.training import aot
from hulu_jax.training import build


def kernels(job: dict[str, Any], machine: Topology) -> None:
  """The named kernels of this platform on one chip."""
  here = jax.sharding.SingleDeviceSharding(aot.devices(machine)[0])
  platform = machine.chip.platform
  for case in kernel_cases.cases(aot.OURS[platform]):
    if case.name not in job["cases"]:
      continue
    compiled = jax.jit(case.function, in_shardings=here, out_shardings=here)
    try:
      report(case.name, told(aot.measured(compiled.trace(*case.arguments), platform)))
    except Exception as error:  # noqa: BLE001 - reported as wrong, then the next case
      report(case.name, {"error": f"{type(error).__name__}: {str(error)[:2000]}"})


def step(job: dict[str, Any], machine: Topology) -> None:
  """One step shape of an experiment, as `hulu train` would compile it."""
  own, platform = job["step"], machine.chip.platform
  cfg = importlib.import_module(f"experiments.{own['experiment']}").get_config(own["argument"])
  cfg.mesh, cfg.rows = own["mesh"], own["rows"]
  with cfg.unlocked():
    cfg.shapes = {own["shape"]: cfg.shapes[own["shape"]]}
  program = build.build(cfg, platform=aot.OURS[platform])
  mesh = sharding.mesh_over(cfg.mesh, aot.devices(machine))
  program.check(mesh)
  found = aot.measured(aot.traced_step(program, 0, mesh), platform)
  report(job["cases"][0], told(found) | {"chips": machine.size})


def told(found: aot.Compiled) -> dict[str, float]:
  """What was measured, by name."""
  return {**found._asdict(), "total": found.total}


def report(case: str, result: dict[str, Any]) -> None:
  """One line for `aot.py`."""
  print(json.dumps({"case": case} | result), flush=True)


def main() -> None:
  """Reads the job from the command line."""
  job = json.loads(sys.argv[1])
  machine = topology.parse(job["topology"])
  if job["step"] is None:
    kernels(job, machine)
  else:
    step(job, machine)


if __name__ == "__main__":
  main()
