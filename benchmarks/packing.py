"""How much of what every rank pays for is used: packing by plan, and two other ways (row C3).

  .venv/bin/python benchmarks/packing.py [--lengths=lengths.npz]

Without a file: 40,000 seeded records in the proportions of Hulu-Med's mixture (9.0 M medical and
1.3 M general pictures, 0.2 M volumes and clips among them, 6.4 M texts); their sizes are assumed,
the released data are not known.  FLOPs are those of the linear layers of hulu-7b, forward: patches
times encoder weights, tokens times decoder weights.  Rivals: two samples a rank, flattened, where a
step waits for the heaviest rank (VideoLLaMA3's recipe), and eight samples a rank padded to the
longest.
"""

import argparse
import os
from pathlib import Path
import time

import numpy as np

from hulu_jax.core import params
from hulu_jax.data import lengths as lengths_lib
from hulu_jax.data import shapes as shapes_lib
from hulu_jax.data.lengths import Length
from hulu_jax.data.lengths import Lengths
from hulu_jax.data.lengths import Medium
from hulu_jax.models import hulu
from hulu_jax.models import presets

RECORDS, TOKENS, LOOKAHEAD, PATIENCE = 40_000, 16_384, 256, 40_000
RANKS = (8, 16, 64)
# Texts, pictures, volumes, clips.
PROPORTIONS = (0.383, 0.605, 0.007, 0.005)


def made(count: int, seed: int) -> Lengths:
  """Seeded records: log-normal texts and picture sides, volumes and clips of 16 to 180 frames."""
  rng = np.random.default_rng(seed)
  return lengths_lib.collect(_record(rng) for _ in range(count))


def _record(rng: np.random.Generator) -> Length:
  kind = rng.choice(4, p=PROPORTIONS)
  text = int(np.clip(rng.lognormal(np.log(350), 0.9), 16, 8000))
  if kind == 0:
    return Length(text, text // 2, 0, ())
  if kind == 1:
    rows, columns = np.clip(rng.lognormal(np.log(26), 0.35, 2), 8, 64).astype(int).tolist()
    patches, text = rows * columns, text // 2
    medium = Medium(1, patches, 1 if rng.random() < 0.5 else 3, 1)
    return Length(patches + text, text // 2, patches, (medium,))
  frames = int(rng.integers(30, 181) if kind == 2 else rng.integers(16, 129))
  side = 4 * rng.integers(8, 13, 2)  # rows times columns of blocks, two patches a side
  patches = int(side[0] * side[1] // 4)
  kept = min(int(frames * patches // 4 * rng.uniform(0.25, 0.7)), TOKENS - 4096)
  medium = Medium(frames, patches, 1 if kind == 2 else 3, 2)
  return Length(kept + text // 2, text // 4, kept, (medium,))


def flattened(cost: np.ndarray, ranks: int, each: int) -> float:
  """`each` records a rank in a random order; a step lasts as long as its heaviest rank."""
  order = np.random.default_rng(0).permutation(len(cost))
  whole = order[: len(order) // (ranks * each) * ranks * each]
  loads = cost[whole].reshape(-1, ranks, each).sum(axis=2)
  return float(loads.sum() / (loads.max(axis=1) * ranks).sum())


def padded(tokens: np.ndarray, patches: np.ndarray, cost: np.ndarray, ranks: int, each: int):
  """Every record of a step is padded to the longest and to the one with most patches."""
  order = np.random.default_rng(0).permutation(len(tokens))
  whole = order[: len(order) // (ranks * each) * ranks * each].reshape(-1, ranks * each)
  paid = tokens[whole].max(axis=1) * cost[0] + patches[whole].max(axis=1) * cost[1]
  used = (tokens[whole] * cost[0] + patches[whole] * cost[1]).sum()
  return float(used / (paid * ranks * each).sum())


def main() -> None:
  """Prints the shapes found, one row per number of ranks, and the time to plan a million."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--lengths", type=Path, help="what data.lengths.Lengths.save wrote")
  parser.add_argument("--tokens", type=int, default=TOKENS, help="of a row")
  args = parser.parse_args()
  found = lengths_lib.load(args.lengths) if args.lengths else made(RECORDS, seed=0)
  specs = hulu.specs(presets.get("hulu-7b"))
  table = params.count(specs["decoder"]["embed"])
  weights = np.array([params.count(specs["decoder"]) - table, params.count(specs["vision"])], float)
  patches = shapes_lib.per_record(found)
  cost = found.tokens * weights[0] + patches * weights[1]
  patch_cost = float(weights[1] / weights[0])
  print(f"{len(found)} records; load average {os.getloadavg()[0]:.1f}")
  print(f"tokens: mean {found.tokens.mean():.0f}, median {np.median(found.tokens):.0f}")
  shapes = shapes_lib.suggest(
    found, args.tokens, 8, patch_cost, lookahead=128, patience=PATIENCE, sample=15_000
  )
  for shape in shapes:
    print(f"shape: {shape.tokens} tokens, groups {[tuple(g) for g in shape.groups]}")
  print("| ranks | by plan | its tokens | its patches | flattened, 2 a rank | padded, 8 a rank |")
  print("|---|---|---|---|---|---|")
  for ranks in RANKS:
    rows = [s._replace(rows=ranks) for s in shapes]
    start, many = time.process_time(), 3 * len(found)
    use = shapes_lib.measure(
      found, rows, patch_cost, lookahead=LOOKAHEAD, patience=PATIENCE, records=many
    )
    seconds = (time.process_time() - start) / many * 1e6
    rivals = flattened(cost, ranks, 2), padded(found.tokens, patches, weights, ranks, 8)
    numbers = (use.flops, use.tokens, use.patches, *rivals)
    print(f"| {ranks} | " + " | ".join(f"{n:.3f}" for n in numbers) + " |")
    print(f"  steps per shape {use.steps}, refused {use.refused}, {seconds:.0f} CPU s a million")


if __name__ == "__main__":
  main()
