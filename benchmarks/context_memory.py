"""What one device holds of a row of 131,072 tokens, by the devices of the mesh axis `context`.

  PYTHONPATH=. .venv/bin/python benchmarks/context_memory.py

Nothing runs: value and gradient of the training loss are compiled for emulated CPU devices and XLA
says what its buffers take beside arguments and results (`memory_analysis`, temporaries): kept
activations, logits, gathered keys and values, gathered weights.  The decoder is 7B's at an eighth
of its width and four layers, float32, one row of text and 16,384 patches, everything recomputed in
backward, the logits of 1,024 positions at a time.
"""

import dataclasses
import sys

import jax

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.data import packing
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.kernels import choice
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import FLOAT32
from hulu_jax.training import step as step_lib

WAYS = (1, 2, 4, 8)
SHAPE = StepShape(
  rows=1, tokens=131072, supervised=16384, visual=4096, groups=(Group(16, 1024, 1, 2),)
)


def config() -> HuluConfig:
  """7B in small: the same number of query heads per kv head and of columns per width."""
  seven = presets.get("hulu-7b").decoder
  decoder = dataclasses.replace(
    seven,
    layers=4,
    embed=448,
    heads=7,
    kv_heads=1,
    head_dim=64,
    mlp=2368,
    vocab=8192,
    max_positions=SHAPE.tokens,
  )
  return dataclasses.replace(presets.TINY, decoder=decoder)


def temporaries(shape: StepShape, ways: int) -> int:
  """Bytes a device needs beside parameters, batch and gradients, by XLA's buffer assignment."""
  c = config()
  merges = tuple(group.merge for group in shape.groups)
  kernels = choice.automatic("cpu")
  compute = dataclasses.replace(
    FLOAT32, kernels=kernels, loss_chunk=1024, vision_remat="full", decoder_remat="full"
  )
  loss = step_lib.make_loss(c, merges, compute, 1, 0.0)

  def gradient(w, batch):
    nothing = jax.tree.map(lambda _: None, w)
    return jax.value_and_grad(loss, has_aux=True)(w, nothing, batch)

  mesh = sharding.mesh_over({"context": ways}, jax.devices()[:ways])
  rows = sharding.batch_sharding(mesh)
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), packing.empty_batch(shape)
  )
  with jax.set_mesh(mesh):
    compiled = jax.jit(gradient).lower(P.abstract(hulu.specs(c), mesh), batch).compile()
  return int(compiled.memory_analysis().temp_size_in_bytes)


def main() -> int:
  """Prints a line for each number of devices; exits with 1 where eight need more than a fifth."""
  print("| context | GB a device | of one device's |")
  print("|---|---|---|")
  sizes = [temporaries(SHAPE, ways) for ways in WAYS]
  for ways, size in zip(WAYS, sizes, strict=True):
    print(f"| {ways} | {size / 1e9:.2f} | {size / sizes[0]:.3f} |", flush=True)
  return int(sizes[-1] > sizes[0] / 5)


if __name__ == "__main__":
  jax.config.update("jax_num_cpu_devices", max(WAYS))
  sys.exit(main())
