"""Compiles what `aot.py` asks for, in a process that sees the compilers; one JSON line a case.

  PYTHONPATH=<compilers>:. .venv/bin/python benchmarks/aot_worker.py '<job as JSON>'

`aot.py` starts it.
"""

import importlib
import json
import sys
import time
from typing import Any

import jax
from jax.experimental import topologies

from benchmarks import kernel_cases
from hulu_jax.core import sharding
from hulu_jax.training import build

# What XLA must know of an H100 where there is none, as its own `gpu_device_info` text.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536 thread_dim_limit_x: 1024 thread_dim_limit_y: 1024
  thread_dim_limit_z: 64 device_address_bits: 64 device_vendor: "NVIDIA Corporation"
  name: "NVIDIA H100 80GB HBM3" driver_version: "13.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def devices(platform: str, topology: str) -> list[jax.Device]:
  """The chips of a topology; none of them is here."""
  if platform == "tpu":
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
  found = topologies.get_topology_desc(platform="cuda", target_config=H100, topology=topology)
  return found.devices


def measured(traced: Any, platform: str) -> dict[str, float]:
  """Compiles; seconds, and bytes a chip.

  The peak is what the buffer assignment holds at once, arguments included.  `temp_size_in_bytes`
  is not used: on TPU it counts donated outputs a second time (seen in a dump of the assignment).
  """
  lowered = traced.lower(lowering_platforms=(platform,))
  start = time.perf_counter()
  memory = lowered.compile().memory_analysis()
  seconds = time.perf_counter() - start
  arguments, code = memory.argument_size_in_bytes, memory.generated_code_size_in_bytes
  return {
    "seconds": seconds,
    "arguments": arguments,
    "temporary": memory.peak_memory_in_bytes - arguments,
    "output": memory.output_size_in_bytes,
    "code": code,
    "total": memory.peak_memory_in_bytes + code,
  }


def kernels(job: dict[str, Any], chip: jax.Device) -> None:
  """The named kernels of this platform on one chip."""
  here, platform = jax.sharding.SingleDeviceSharding(chip), job["platform"]
  for case in kernel_cases.cases(job["ours"]):
    if case.name not in job["cases"]:
      continue
    compiled = jax.jit(case.function, in_shardings=here, out_shardings=here)
    try:
      report(case.name, measured(compiled.trace(*case.arguments), platform))
    except Exception as error:  # noqa: BLE001 - reported as wrong, then the next case
      report(case.name, {"error": f"{type(error).__name__}: {str(error)[:2000]}"})


def step(job: dict[str, Any], chips: list[jax.Device]) -> None:
  """One step shape of an experiment, as `hulu train` would compile it."""
  own = job["step"]
  cfg = importlib.import_module(f"experiments.{own['experiment']}").get_config(own["argument"])
  cfg.mesh, cfg.rows = own["mesh"], own["rows"]
  with cfg.unlocked():
    cfg.shapes = {own["shape"]: cfg.shapes[own["shape"]]}
  program = build.build(cfg, platform=job["ours"])
  mesh = sharding.mesh_over(cfg.mesh, chips)
  program.check(mesh)
  with jax.set_mesh(mesh):
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = sharding.concrete(jax.eval_shape(program.init, key), mesh)
    batch = program.abstract_batch(0, sharding.batch_sharding(mesh))
    traced = jax.jit(program.steps[0], donate_argnames="state").trace(state, batch)
    report(job["cases"][0], measured(traced, job["platform"]) | {"chips": len(chips)})


def report(case: str, result: dict[str, Any]) -> None:
  """One line for `aot.py`."""
  print(json.dumps({"case": case} | result), flush=True)


def main() -> None:
  """Reads the job from the command line."""
  job = json.loads(sys.argv[1])
  chips = devices(job["platform"], job["topology"])
  if job["step"] is None:
    kernels(job, chips[0])
  else:
    step(job, chips)


if __name__ == "__main__":
  main()
