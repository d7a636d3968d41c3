"""What a volume's encoder forward takes: CPU time, FLOPs and peak memory as the slices double.

  PYTHONPATH=. .venv/bin/python benchmarks/encoder_memory.py

The 27 layers of the real encoder at the width of `tiny` (64, 4 heads of 16), frames of 324 patches
(252 x 252 pixels), float32, one row, `xla` attention; every line is a process of its own, peak
memory is its VmHWM.  FLOPs of attention are those of the pairs of blocks that the loop visits,
counted by running it; XLA's own count sees a loop's body once.  "in one slot" is how many frames
share a slot, as in packed training.  Exits with 1 where 180 slices take 3 GB or more.
"""

import dataclasses
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from hulu_jax.core import memory
from hulu_jax.core import params as P
from hulu_jax.core import platform
from hulu_jax.data import vision as data_vision
from hulu_jax.kernels import choice
from hulu_jax.kernels.attention import rows
from hulu_jax.kernels.attention import xla
from hulu_jax.models import presets
from hulu_jax.models import scan
from hulu_jax.models import vision

GRID, LAYERS = (18, 18), 27
PATCHES = GRID[0] * GRID[1]
# (frames, frames in one slot)
CASES = [(45, 1), (90, 1), (180, 1), (48, 12), (96, 12), (180, 12)]
LIMIT = 3e9


def attention_flops(segments: jax.Array, heads: int, head_dim: int) -> float:
  """Of one layer: two products for each pair of blocks that a slot's loop visits."""
  size = segments.shape[-1]
  block = rows.block_size(size, most=xla.BLOCK, multiple=8)
  _, numbers = rows.padded((), segments, block)

  def pairs(row: jax.Array) -> jax.Array:
    return xla.over_pairs(lambda pair, n: n + 1, jnp.int32(0), (row[None],) * 2, None, False, block)

  visited = int(jax.lax.map(pairs, numbers).sum())
  return 4.0 * visited * block**2 * heads * head_dim


def one(frames: int, together: int) -> None:
  """Runs one case and prints seconds, FLOPs and peak bytes."""
  platform.narrow()
  c = dataclasses.replace(presets.TINY.vision, layers=LAYERS)
  slots, size = frames // together, together * PATCHES
  rng = np.random.default_rng(0)
  patches = jnp.asarray(rng.integers(0, 256, (1, slots, size, 196), np.uint8))
  segments = jnp.asarray(
    np.tile(np.repeat(np.arange(1, together + 1, dtype=np.int32), PATCHES), (1, slots, 1))
  )
  places = data_vision.patch_places(GRID, 2).astype(np.int32)
  hw = jnp.asarray(np.tile(places, (1, slots, together, 1)))
  compute = dataclasses.replace(scan.FLOAT32, kernels=choice.automatic("cpu"))
  weights = jax.jit(lambda key: P.initialize(key, vision.specs(c)))(jax.random.key(0))
  run = jax.jit(lambda w: vision.forward(w, (patches,), (segments,), (hw,), c, compute))
  run(weights).block_until_ready()
  start = time.process_time()
  out = run(weights).block_until_ready()
  seconds = time.process_time() - start
  assert bool(jnp.isfinite(out).all())
  dense = 2.0 * frames * PATCHES * c.embed * (4 * c.heads * c.head_dim + 2 * c.mlp)
  flops = LAYERS * (dense + attention_flops(segments, c.heads, c.head_dim))
  print(seconds, flops, memory.peak())


def main() -> int:
  """Runs every case in its own process and prints the table."""
  print("| frames | in one slot | CPU s | GFLOP | peak GB | CPU s, FLOPs a frame / first line's |")
  print("|---|---|---|---|---|---|")
  first: dict[int, tuple[float, float]] = {}
  worst = 0.0
  for frames, together in CASES:
    command = [sys.executable, __file__, str(frames), str(together)]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, flops, peak = map(float, line.split())
    start = first.setdefault(together, (seconds / frames, flops / frames))
    ratios = f"{seconds / frames / start[0]:.2f}, {flops / frames / start[1]:.2f}"
    size = f"{seconds:.1f} | {flops / 1e9:.0f} | {peak / 1e9:.2f}"
    print(f"| {frames} | {together} | {size} | {ratios} |", flush=True)
    worst = max(worst, peak)
  return int(worst >= LIMIT)


if __name__ == "__main__":
  if sys.argv[1:]:
    one(int(sys.argv[1]), int(sys.argv[2]))
  else:
    sys.exit(main())
