"""Conversion against a plain copy of the same bytes on the same disk, both until they are on it.

  PYTHONPATH=. .venv/bin/python benchmarks/convert.py --gigabytes 1.8 --repeats 2

A folder of random bfloat16 numbers is made (`--gigabytes`, default 2) and converted to every layout
in a process of its own; between conversions it is copied.  Printed: median of the ratios of
throughput, and the peak memory of the process beside the bound of 2 x the largest tensor + 1 GB.
"""

import argparse
import dataclasses
import json
import math
import os
from pathlib import Path
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from hulu_jax.data import vision
from hulu_jax.models import presets
from hulu_jax.weights import headers
from hulu_jax.weights import hf_write
from hulu_jax.weights import names

RUN = """
import json, sys, time
from hulu_jax.cli import convert
from hulu_jax.core import memory
start = time.monotonic()
code = convert.main(sys.argv[1:])
seconds = time.monotonic() - start
print("RESULT", json.dumps([code, seconds, memory.peak()]))
"""
LAYOUTS = {"hulu_jax": None, "hulu-med": "hulumed", "transformers": "video_llama_3"}


def main() -> int:
  """Prints the table; 1 where a promise is not kept."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--gigabytes", type=float, default=2.0)
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--folder", type=Path, help="on the disk to measure")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory(dir=args.folder) as root:
    source = Path(root) / "hulu-med"
    size, largest = make(source, args.gigabytes)
    bound = 2 * largest + 10**9
    print(f"{size / 1e9:.2f} GB, largest tensor {largest / 1e6:.0f} MB, bound {bound / 1e9:.2f} GB")
    print("| from | to | throughput / copy | peak memory, GB |\n|---|---|---|---|")
    fine = True
    run = Path(root) / "hulu_jax"
    convert(source, run, "hulu_jax")
    for start, layout in [(source, to) for to in LAYOUTS] + [(run, "hulu-med")]:
      ratio, peak = measured(start, layout, Path(root), args.repeats)
      print(f"| {start.name} | {layout} | {ratio:.2f} | {peak / 1e9:.2f} |", flush=True)
      fine &= ratio >= 0.7 and peak <= bound
  return 0 if fine else 1


def make(folder: Path, gigabytes: float) -> tuple[int, int]:
  """A 7B cut to as many layers as fit and a smaller vocabulary; (bytes, those of the largest)."""
  whole = presets.get("hulu-7b")
  layer = 233_057_792 * 2  # parameters of one layer of its decoder, in bfloat16
  decoder = dataclasses.replace(
    whole.decoder, vocab=32768, layers=max(1, int((gigabytes - 1.3) * 1e9 / layer))
  )
  config = dataclasses.replace(whole, decoder=decoder)
  folder.mkdir()
  table = [e for entries in names.entries(config, "hulumed").values() for e in entries]
  places = headers.write(folder / "model.safetensors", {e.name: ("BF16", e.shape) for e in table})
  random = np.random.default_rng(0)
  with (folder / "model.safetensors").open("r+b") as file:
    for entry in table:
      file.seek(places[entry.name])
      for start in range(0, n := math.prod(entry.shape), 1 << 23):
        values = random.integers(0, 1 << 14, min(1 << 23, n - start), dtype=np.uint16)
        file.write(values.data)  # small finite bfloat16 numbers, by their bits
  said = hf_write.config(
    config, "hulumed", vision.HULUMED, np.dtype(headers.DTYPES["BF16"]),
    dict.fromkeys(("image", "video", "eos", "pad")),
  )  # fmt: skip
  (folder / "config.json").write_text(json.dumps(said))
  sizes = [2 * math.prod(e.shape) for e in table]
  return sum(sizes), max(sizes)


def measured(source: Path, layout: str, root: Path, repeats: int) -> tuple[float, float]:
  """(median throughput over that of the copies right before and after it, largest peak memory)."""
  ratios, peaks = [], []
  for _ in range(repeats):
    before = copy(source, root / "copy")
    took, peak = convert(source, root / "made", layout)
    after = copy(source, root / "copy")
    shutil.rmtree(root / "made")
    ratios.append((before + after) / 2 / took)
    peaks.append(peak)
  return statistics.median(ratios), max(peaks)


def copy(source: Path, target: Path) -> float:
  """Seconds to copy a folder to the disk, as `cp -r` and `sync` do."""
  start = time.monotonic()
  shutil.copytree(source, target)
  for path in [p for p in target.rglob("*") if p.is_file()]:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
  seconds = time.monotonic() - start
  shutil.rmtree(target)
  return seconds


def convert(source: Path, target: Path, layout: str) -> tuple[float, float]:
  """(seconds from arguments to the end, peak resident bytes of the process)."""
  command = [sys.executable, "-c", RUN, str(source), str(target), f"--to={layout}"]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT"))
  code, seconds, peak = json.loads(line.removeprefix("RESULT"))
  assert code == 0, done.stderr
  return seconds, peak


if __name__ == "__main__":
  sys.exit(main())
