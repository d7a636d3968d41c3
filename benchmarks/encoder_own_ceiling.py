"""How near the encoder comes to the GEMM ceiling of its own library, on this machine (row C6).

  PYTHONPATH=. .venv/bin/python benchmarks/encoder_own_ceiling.py [--layers=4] [--repetitions=9]

The encoder of hulu-7b at its real width, 4 frames of 324 patches, random weights, `xla` attention;
fewer layers than 27, which are all alike.  The rival is transformers' encoder (SDPA, frame by
frame) with the same weights; outputs are compared first.  A library's ceiling is the rate at which
it multiplies this encoder's own matrices (1152 x 1152, 1152 x 4304, 4304 x 1152, with 1,296
patches) in the same process; attention's products count at that rate too.  Every repetition runs
everything in turn; given are the medians of the ratios.
"""

import argparse
from collections.abc import Callable
import os
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from hulu_jax.core import params as P
from hulu_jax.core import platform
from hulu_jax.data import vision as data_vision
from hulu_jax.kernels import choice
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models import vision
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.config import VisionConfig
from hulu_jax.models.scan import Compute
from hulu_jax.weights import export
from hulu_jax.weights import names

FRAMES, GRID = 4, (18, 18)
PATCHES = GRID[0] * GRID[1]
ALL = FRAMES * PATCHES
# float32, sums of 4,304 terms, a few layers.
TOLERANCE = 1e-3
Timed = Callable[[], Any]


def flops(c: VisionConfig) -> tuple[float, float]:
  """(matrix products with weights, those of attention) of one layer."""
  width = c.heads * c.head_dim
  return 2.0 * ALL * c.embed * (4 * width + 2 * c.mlp), 4.0 * ALL * PATCHES * width


def products(c: VisionConfig) -> list[tuple[tuple[int, int], int]]:
  """(shape of a weight, how many of it a layer has)."""
  return [((c.embed, c.heads * c.head_dim), 4), ((c.embed, c.mlp), 1), ((c.mlp, c.embed), 1)]


def ours(config: HuluConfig, params: P.Params, pixels: np.ndarray, dtype: Any) -> Timed:
  """The encoder; as the trainer has it, weights are float32 and cast where they are used."""
  compute = Compute(
    dtype=dtype,
    vision_pass=None,
    loss_chunk=None,
    vision_remat="none",
    decoder_remat="none",
    kernels=choice.automatic("cpu"),
  )
  places = data_vision.patch_places(GRID, 1).astype(np.int32)
  hw = jnp.asarray(np.broadcast_to(places, (1, FRAMES, PATCHES, 2)))
  segments = jnp.ones((1, FRAMES, PATCHES), jnp.int32)
  patches = jnp.asarray(pixels.reshape(1, FRAMES, PATCHES, -1))
  weights = jax.tree.map(lambda x: x.astype(dtype), params["vision"])
  forward = jax.jit(vision.forward, static_argnums=(4, 5))
  return lambda: forward(
    weights, (patches,), (segments,), (hw,), config.vision, compute
  ).block_until_ready()


def theirs(config: HuluConfig, params: P.Params, pixels: np.ndarray, dtype: Any) -> Timed:
  """transformers' encoder up to its last norm, the same weights."""
  c, prefix = config.vision, names.LAYOUTS["video_llama_3"]["vision"]
  made = transformers.models.video_llama_3.VideoLlama3VisionConfig(
    hidden_size=c.embed,
    intermediate_size=c.mlp,
    num_hidden_layers=c.layers,
    num_attention_heads=c.heads,
    patch_size=c.patch,
    num_channels=c.channels,
    layer_norm_eps=c.norm_eps,
    rope_parameters={"rope_type": "axial", "rope_theta": c.rope_theta},
  )
  made._attn_implementation = "sdpa"
  model = transformers.VideoLlama3VisionModel(made).eval()
  stored = {
    name.removeprefix(prefix): torch.from_numpy(array.copy())
    for name, array in export.tensors(params, config, "video_llama_3")
    if name.startswith(prefix)
  }
  model.load_state_dict(stored, strict=False)
  assert stored.keys() == model.state_dict().keys(), stored.keys() ^ model.state_dict().keys()
  model = model.to(dtype)
  inputs = {
    "pixel_values": torch.from_numpy((pixels.astype(np.float32) / 255 - 0.5) / 0.5).to(dtype),
    "grid_thw": torch.tensor([[FRAMES, *GRID]]),
    "merge_sizes": torch.tensor([1]),
  }

  def run() -> torch.Tensor:
    with torch.no_grad():
      return model(**inputs).last_hidden_state

  return run


def gemms(c: VisionConfig, library: str, dtype: Any) -> list[tuple[Timed, int]]:
  """The layer's products with its weights, each by itself, and how often it occurs."""
  made = []
  for (rows, columns), count in products(c):
    if library == "jax":
      x, w = jnp.ones((ALL, rows), dtype), jnp.ones((rows, columns), dtype)
      matmul = jax.jit(jnp.matmul)
      made.append((lambda x=x, w=w, m=matmul: m(x, w).block_until_ready(), count))
    else:
      x, w = torch.ones(ALL, rows, dtype=dtype), torch.ones(rows, columns, dtype=dtype)
      made.append((lambda x=x, w=w: x @ w, count))
  return made


def seconds(f: Timed) -> float:
  start = time.perf_counter()
  f()
  return time.perf_counter() - start


def compare(one: Any, other: Any) -> None:
  ours_out, theirs_out = np.asarray(one())[0], other().numpy()
  error = np.abs(ours_out - theirs_out).max()
  print(f"largest difference of the float32 outputs: {error:.1e}")
  assert error < TOLERANCE, error


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--layers", type=int, default=4)
  parser.add_argument("--repetitions", type=int, default=9)
  args = parser.parse_args()
  platform.narrow()
  c = VisionConfig(**{**vars(presets.SIGLIP), "layers": args.layers})
  config = HuluConfig(vision=c, decoder=presets.TINY.decoder)
  params = jax.jit(lambda key: P.initialize(key, hulu.specs(config)))(jax.random.key(0))
  pixels = np.random.default_rng(0).integers(0, 256, (ALL, c.channels * c.patch**2), np.uint8)
  runs = {
    "jax float32": (ours(config, params, pixels, jnp.float32), "jax", jnp.float32),
    "torch float32": (theirs(config, params, pixels, torch.float32), "torch", torch.float32),
    "jax bfloat16": (ours(config, params, pixels, jnp.bfloat16), "jax", jnp.bfloat16),
    "torch bfloat16": (theirs(config, params, pixels, torch.bfloat16), "torch", torch.bfloat16),
  }
  compare(runs["jax float32"][0], runs["torch float32"][0])
  parts = {name: gemms(c, library, dtype) for name, (_, library, dtype) in runs.items()}
  dense, attention = flops(c)
  times: dict[str, list[float]] = {name: [] for name in runs}
  fractions: dict[str, list[float]] = {name: [] for name in runs}
  for turn in range(args.repetitions + 1):
    for name, (run, _, _) in runs.items():
      whole = seconds(run) / c.layers
      floor = sum(seconds(f) * count for f, count in parts[name]) * (dense + attention) / dense
      if turn:  # the first compiles and warms
        times[name].append(whole)
        fractions[name].append(floor / whole)
  load = os.getloadavg()[0]
  print(
    f"{c.layers} layers, {args.repetitions} repetitions, {os.cpu_count()} cores, load {load:.1f}"
  )
  print(f"jax {jax.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
  print("| run | fraction of its own GEMM ceiling | its time / torch's, same dtype |")
  print("|---|---|---|")
  for name in runs:
    rival = times["torch " + name.split()[1]]
    ratio = statistics.median(a / b for a, b in zip(times[name], rival, strict=True))
    print(f"| {name} | {statistics.median(fractions[name]):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
  main()
