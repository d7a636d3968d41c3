"""The quick start under three seeds, all reported: is what it learns luck?

  .venv/bin/python benchmarks/quickstart_seeds.py

Trains and evaluates `experiments/quickstart.py` for seeds 0, 1 and 2 (about 5 minutes each on two
cores) and prints one Markdown row per task and seed; the test set is the same for all.
"""

import json
from pathlib import Path
import subprocess
import sys

SEEDS = (0, 1, 2)
WORKDIR = Path("runs/quickstart_seeds")


def run(seed: int) -> dict:
  """Trains and evaluates one seed with the same commands as launch/quickstart.sh."""
  workdir = WORKDIR / str(seed)
  hulu = [sys.executable, "-m", "hulu_jax"]
  train = ["train", "--config=experiments/quickstart.py", f"--config.seed={seed}"]
  subprocess.run([*hulu, *train, f"--workdir={workdir}"], check=True)
  # Exit code 1 says that a promise was not kept: reported like any other result.
  evaluate = ["evaluate", f"--workdir={workdir}", "--benchmark=synthetic_disc"]
  subprocess.run([*hulu, *evaluate], check=False)
  return json.loads((workdir / "result.json").read_text())


def main() -> None:
  """Prints the table."""
  results = {seed: run(seed) for seed in SEEDS}
  print("| task | seed | n | accuracy | 95 % interval | majority | blank | other image |")
  print("|---|---|---|---|---|---|---|---|")
  for task in results[SEEDS[0]]["tasks"]:
    for seed, result in results.items():
      entry = result["tasks"][task]
      controls = [entry[name] for name in ("majority", "blank", "other_image")]
      shown = " | ".join("-" if c is None else f"{c['accuracy']:.2f}" for c in controls)
      print(
        f"| {task} | {seed} | {entry['n']} | {entry['accuracy']:.2f} | "
        f"{entry['low']:.2f} to {entry['high']:.2f} | {shown} |"
      )


if __name__ == "__main__":
  main()
