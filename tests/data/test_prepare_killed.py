"""A process killed at any moment of preparing leaves nothing half made; the next one ends it."""

from pathlib import Path
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from hulu_jax.data import manifest as manifest_lib

RECORDS, SHARDS, KILLS = 120, 2, 5
SCRIPT = f"""
import dataclasses, sys
from pathlib import Path
from hulu_jax.data import prepare, tokenizer, vision
from hulu_jax.data.examples import Builder
root, output = Path(sys.argv[1]), Path(sys.argv[2])
policy = dataclasses.replace(vision.HULUMED, min_tokens=1, max_tokens=400)
builder = Builder(tokenizer=tokenizer.load(root), policy=policy, root=root)
source = prepare.Input("jsonl", {{"path": str(root / "train.jsonl")}})
print("begin", flush=True)
for shard in range({SHARDS}):
  job = prepare.job(source, builder, (shard, {SHARDS}), output, frames=True, threads=2, force=False)
  print(prepare.run(job, lambda done, bad: None)[1], flush=True)
"""


def start(root: Path, output: Path) -> subprocess.Popen:
  command = [sys.executable, "-c", SCRIPT, str(root), str(output)]
  process = subprocess.Popen(
    command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
  )
  assert process.stdout.readline() == "begin\n"
  return process


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tokenizer, tmp_path):
  root = tmp_path / "plain"
  root.mkdir()
  tokenizer.save(root)
  rng = np.random.default_rng(0)
  lines = []
  for n in range(RECORDS):
    Image.fromarray(rng.integers(0, 256, (200, 230, 3), np.uint8)).save(root / f"{n}.png")
    lines.append(
      f'{{"id": {n}, "image": "{n}.png", "conversations": [{{"from": "human", "value": "What is '
      f'{n}?"}}, {{"from": "gpt", "value": "A picture."}}]}}\n'
    )
  (root / "train.jsonl").write_text("".join(lines))
  process = start(root, tmp_path / "whole")
  began = time.monotonic()
  assert process.communicate(timeout=120)[0] == "True\n" * SHARDS
  seconds = time.monotonic() - began
  output, left = tmp_path / "killed", []
  for moment in rng.uniform(0, seconds / SHARDS, KILLS):
    process = start(root, output)
    while not list(output.glob("*.part")) and process.poll() is None:
      time.sleep(0.001)
    time.sleep(moment)
    process.kill()
    process.communicate()
    left += output.glob("*.part")
    for path in manifest_lib.paths(output):
      manifest_lib.verify(manifest_lib.read(path), output)
    # So that there is something left to kill.
    (output / f"{manifest_lib.stem(0, SHARDS)}.json").unlink(missing_ok=True)
  assert left
  start(root, output).communicate(timeout=120)
  want, got = (
    {p.name: p.read_bytes() for p in folder.iterdir()} for folder in (tmp_path / "whole", output)
  )
  assert got == want
