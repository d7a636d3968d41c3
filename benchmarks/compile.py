"""How long the model's gradient takes to compile at real depth, and how often it does (row C4).

  PYTHONPATH=. .venv/bin/python benchmarks/compile.py [--batches=1000] [--repeats=3]

27 encoder and 28 decoder layers, scanned, as wide as `tiny`, on one CPU device, backward making
whole layers again.  Measured are the CPU seconds that XLA takes over the gradient of each of three
step shapes, which on an idle machine are no less than the time one waits; the same in a new process
that finds the result in the persistent cache, as a fraction; and the programs that are compiled
over a seeded run of mixed batches.  Every compilation has a process of its own.  Medians are
printed, each beside its promise, and the exit code says whether all were kept.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import os
from pathlib import Path
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from experiments import quickstart
from hulu_jax.core import params as P
from hulu_jax.core import platform
from hulu_jax.data import packing
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.kernels import choice
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models import scan
from hulu_jax.models.config import HuluConfig
from hulu_jax.training import build
from hulu_jax.training import step as step_lib

ROOT = Path(__file__).parents[1]
ENCODER_LAYERS, DECODER_LAYERS = 27, 28
# What is promised: seconds, and the part of them that a warm start takes.
COLD, WARM = 5.0, 0.1
# Texts and pictures, grey stacks, colour stacks: small rows, since here they really run.
SHAPES = (
  StepShape(1, 32, 8, 16, (Group(1, 16, 3, 1), Group(1, 16, 1, 1))),
  StepShape(1, 32, 8, 16, (Group(2, 32, 1, 2),)),
  StepShape(1, 32, 8, 16, (Group(1, 16, 3, 1), Group(2, 32, 3, 2))),
)
NAMES = ("texts and pictures", "grey stacks", "colour stacks")
COMPUTE = dataclasses.replace(
  scan.FLOAT32,
  vision_remat="full",
  decoder_remat="full",
  kernels=choice.automatic("cpu"),
)


def deep() -> HuluConfig:
  """`tiny` with the depth of 7B."""
  tiny = presets.TINY
  return dataclasses.replace(
    tiny,
    vision=dataclasses.replace(tiny.vision, layers=ENCODER_LAYERS),
    decoder=dataclasses.replace(tiny.decoder, layers=DECODER_LAYERS),
  )


def gradient(config: HuluConfig, shape: StepShape) -> Any:
  """The jitted gradient of the loss of a shape: (parameters, batch) -> gradients."""
  loss = step_lib.make_loss(config, tuple(g.merge for g in shape.groups), COMPUTE, 1, 0.0)

  def summed(params: P.Params, batch: Batch) -> jax.Array:
    nothing = jax.tree.map(lambda _: None, params)
    return loss(params, nothing, batch)[0]

  return jax.jit(jax.grad(summed))


def compile_once(number: int) -> None:
  """Prints seconds of tracing, wall and CPU seconds of XLA: one process of `compiled`."""
  platform.narrow()
  config, shape = deep(), SHAPES[number]
  params = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), hulu.specs(config))
  jax.devices()
  start = time.perf_counter()
  lowered = gradient(config, shape).lower(params, packing.empty_batch(shape))
  traced, cpu = time.perf_counter(), time.process_time()
  lowered.compile()
  told = (traced - start, time.perf_counter() - traced, time.process_time() - cpu)
  print(json.dumps(told))


def compiled(number: int, cache: Path) -> tuple[float, float, float]:
  """`compile_once` in a new process that keeps what XLA gives in `cache`."""
  own = {
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
  }
  command = [sys.executable, __file__, f"--once={number}"]
  done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True)
  if done.returncode:
    raise RuntimeError(done.stderr)
  return tuple(json.loads(done.stdout.splitlines()[-1]))


def recompilations(batches: int) -> tuple[int, int]:
  """(programs compiled, step shapes) over a seeded run of mixed batches through steps of `tiny`.

  Batches differ in what is padding; the state goes from step to step, donated, as in a run.
  """
  cfg = quickstart.get_config()
  cfg.rows = 1
  with cfg.unlocked():
    cfg.shapes = {str(n): shape._asdict() for n, shape in enumerate(SHAPES)}
  program, seeded = build.build(cfg, platform="cpu"), random.Random(0)
  state = jax.jit(program.init)(jax.random.key(0))
  steps = [jax.jit(step, donate_argnames="state") for step in program.steps]
  found: list[float] = []

  def listen(event: str, seconds: float, **about: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
      found.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(listen)
  for _ in range(batches):
    number = seeded.randrange(len(steps))
    batch = packing.empty_batch(program.shapes[number])
    filled = seeded.randrange(1, program.shapes[number].tokens)
    batch.segments[:, :filled] = 1
    batch.tokens[:, :filled] = seeded.randrange(500)
    batch.loss_index[:, : filled // 4] = np.arange(filled // 4)
    batch.loss_weights[:, : filled // 4] = 1.0
    state, metrics = steps[number](state, batch)
  jax.block_until_ready(metrics)
  assert int(state.step) == batches
  return len(found), len(steps)


def main(argv: Sequence[str] | None = None) -> int:
  """Measures, prints the table, and says by its exit code whether what is promised was kept."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batches", type=int, default=1000)
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--once", type=int, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.once is not None:
    compile_once(args.once)
    return 0
  print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, jax {jax.__version__}")
  print("| what | measured | promised |")
  print("|---|---|---|")
  kept = True
  for number, name in enumerate(NAMES):
    cold, warm = [], []
    for _ in range(args.repeats):
      with tempfile.TemporaryDirectory() as cache:
        cold.append(compiled(number, Path(cache)))
        warm.append(compiled(number, Path(cache)))
    traced, wall, cpu = (statistics.median(column) for column in zip(*cold, strict=True))
    part = statistics.median(w[2] / c[2] for c, w in zip(cold, warm, strict=True))
    kept = kept and cpu <= COLD and part <= WARM
    print(
      f"| {name}, cold | {cpu:.1f} CPU s (waited {wall:.1f}, traced {traced:.1f}) | {COLD:.0f} |"
    )
    print(f"| {name}, warm over cold | {part:.3f} | {WARM} |", flush=True)
  programs, shapes = recompilations(args.batches)
  print(f"| programs over {args.batches} mixed batches | {programs} | {shapes} step shapes |")
  return 0 if kept and programs <= shapes else 1


if __name__ == "__main__":
  sys.exit(main())
