"""Compiles a train step for machines that are not here, and reads what it needs of their memory.

libtpu and JAX's CUDA plugin compile without a device; whoever calls this has them on its path (see
`docs/plan.md`).  Without them emulated CPU devices stand in.
"""

import re
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from hulu_jax.core import sharding
from hulu_jax.core.topology import Topology
from hulu_jax.training.build import Program

# What JAX lowers for -> what an experiment calls the platform.
OURS = {"tpu": "tpu", "cuda": "gpu", "cpu": "cpu"}
# What XLA must know of a GPU where there is none, as its own `gpu_device_info` text.
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared} threads_per_core_limit: 2048 core_count: {cores}
  fpus_per_core: {units} block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: {bandwidth} l2_cache_size: {cache}
  clock_rate_ghz: {clock} device_memory_size: {memory} shared_memory_per_block_optin: {optin}
  cuda_compute_capability {{ major: {major} minor: 0 }} registers_per_core_limit: 65536
  registers_per_block_limit: 65536 thread_dim_limit_x: 1024 thread_dim_limit_y: 1024
  thread_dim_limit_z: 64 device_address_bits: 64 device_vendor: "NVIDIA Corporation"
  name: "{name}" driver_version: "13.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 13 }}
device_description_str: "{name}"
"""
_HOPPER = {
  **{"shared": 233472, "optin": 232448, "cores": 132, "units": 128, "major": 9, "clock": 1.98},
  "cache": 52428800,
}
_AMPERE = {
  **{"shared": 167936, "optin": 166912, "cores": 108, "units": 64, "major": 8, "clock": 1.41},
  "cache": 41943040,
}
_GPUS = {
  "a100": {**_AMPERE, "memory": 85_045_805_056, "bandwidth": 2_039_000_000_000},
  "h100": {**_HOPPER, "memory": 84_942_979_072, "bandwidth": 3_352_320_000_000},
  "h200": {**_HOPPER, "memory": 150_754_820_096, "bandwidth": 4_800_000_000_000},
}


class Compiled(NamedTuple):
  """A program's needs of one device: seconds that compiling took; all else bytes."""

  seconds: float
  arguments: int
  temporary: int
  output: int
  code: int

  @property
  def total(self) -> int:
    """The most that is held at once, with the program itself; outputs lie where arguments lay."""
    return self.arguments + self.temporary + self.code


class TooLarge(Exception):
  """The compiler itself refuses a program that no chip could hold; says how much it needs."""


def devices(topology: Topology) -> list[jax.Device]:
  """The chips of a topology; none of them is here.

  Raises:
    ValueError: a shape of which there is no such machine.
  """
  platform = topology.chip.platform
  try:
    if platform == "tpu":
      return topologies.get_topology_desc(platform=platform, topology_name=topology.layout).devices
    config = _GPU.format(name=topology.chip.kinds[0], **_GPUS[topology.kind])
    found = topologies.get_topology_desc(
      platform=platform, target_config=config, topology=topology.layout
    )
    return found.devices
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(f"topology {topology.name!r}: {_first_line(error)}") from error


def measured(traced: Any, platform: str) -> Compiled:
  """Compiles what `jax.jit(...).trace` gave; platform: as JAX names it when lowering.

  The peak is what the buffer assignment holds at once, arguments included.  `temp_size_in_bytes` is
  not used: on TPU it counts donated outputs a second time (seen in a dump of the assignment).

  Raises:
    TooLarge: a program that needs more than the chip has.
  """
  lowered = traced.lower(lowering_platforms=(platform,))
  start = time.perf_counter()
  try:
    memory = lowered.compile().memory_analysis()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise TooLarge(_needed(str(error))) from error
  seconds = time.perf_counter() - start
  arguments = memory.argument_size_in_bytes
  return Compiled(
    seconds,
    arguments,
    memory.peak_memory_in_bytes - arguments,
    memory.output_size_in_bytes,
    memory.generated_code_size_in_bytes,
  )


def traced_step(program: Program, shape: int, mesh: jax.sharding.Mesh) -> Any:
  """Step `shape` of a program over `mesh`, with a donated state, ready for `measured`."""
  with jax.set_mesh(mesh):
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = sharding.concrete(jax.eval_shape(program.init, key), mesh)
    batch = program.abstract_batch(shape, sharding.batch_sharding(mesh))
    return jax.jit(program.steps[shape], donate_argnames="state").trace(state, batch)


def _needed(message: str) -> str:
  """E.g. "25.26G of 15.75G hbm" from what XLA says over many lines."""
  found = re.search(r"Used (\S+ of \S+ \w+)", message)
  return found[1] if found else message.splitlines()[0]


def _first_line(error: Exception) -> str:
  return str(error).splitlines()[0]
