"""`hulu evaluate`: asks a trained model a benchmark's questions and writes what it answered."""

import argparse
import inspect
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from hulu_jax import api
from hulu_jax.core import memory
from hulu_jax.core import platform
from hulu_jax.core import plugins
from hulu_jax.eval import figures

_BENCHMARKS = "hulu_jax.eval.benchmarks"
_BATCH = 100  # prompts per program: one compilation for a whole benchmark of equal shapes


def main(argv: list[str]) -> int:
  """Exit code 0: every promise of the benchmark kept; 1: some broken; 2: bad input."""
  parser = argparse.ArgumentParser(
    prog="hulu evaluate",
    description=__doc__,
    epilog="example: hulu evaluate --workdir=runs/quickstart --benchmark=synthetic_disc",
  )
  parser.add_argument("--workdir", type=Path, required=True, help="a folder `hulu train` wrote")
  parser.add_argument("--benchmark", required=True, help=", ".join(plugins.names(_BENCHMARKS)))
  parser.add_argument("--n", type=int, default=300, help="questions per task (default 300)")
  parser.add_argument("--seed", type=int, default=2026, help="of the test set (default 2026)")
  parser.add_argument(
    "--root", type=Path, help="of the files a benchmark reads (default: the run's data.root)"
  )
  parser.add_argument("--ema", action="store_true", help="ask the average of the weights")
  args = parser.parse_args(argv)
  platform.narrow()
  try:
    return _evaluate(args)
  except (ValueError, OSError) as error:
    print(f"hulu evaluate: {error}", file=sys.stderr)
    return 2


def _evaluate(args: argparse.Namespace) -> int:
  started = time.monotonic()
  benchmark = plugins.load(_BENCHMARKS, args.benchmark)
  model = api.load(args.workdir, ema=args.ema)

  def generate(prompts: list[Any]) -> list[str]:
    parts = [prompts[i : i + _BATCH] for i in range(0, len(prompts), _BATCH)]
    return [a for part in parts for a in model.generate(part, max_new_tokens=benchmark.NEW_TOKENS)]

  run = json.loads((args.workdir / "run.json").read_text())
  files = {}
  if "root" in inspect.signature(benchmark.run).parameters:
    files["root"] = args.root or Path(run["config"]["data"]["root"])
  elif args.root is not None:
    raise ValueError(f"--root: {args.benchmark} reads no files")
  result = benchmark.run(generate, seed=args.seed, n=args.n, **files)
  result |= {
    "test_seed": args.seed,
    "ema": args.ema,
    "seed": run["config"]["seed"],
    "steps": run["steps"],
    "seconds": run["seconds"] + time.monotonic() - started,
    "peak_memory_mb": max(run["peak_memory_mb"], memory.peak() / 2**20),
  }
  problems = benchmark.verdict(result)
  figures.loss_curve(args.workdir / "metrics.jsonl", args.workdir / "loss.png")
  _write(args.workdir / "result.json", json.dumps(result | {"problems": problems}, indent=2))
  _show(result, problems)
  return 1 if problems else 0


def _write(path: Path, text: str) -> None:
  draft = path.with_suffix(".draft")
  draft.write_text(text + "\n")
  os.replace(draft, path)


def _show(result: dict[str, Any], problems: list[str]) -> None:
  console = Console(width=100)
  answers = Table("kind", "question", "expected", "answered", title="some answers")
  for row in result["examples"]:
    answers.add_row(*row)
  scores = Table("task", "n", "accuracy", "95 % interval", "majority", "blank", "other image")
  for name, entry in result["tasks"].items():
    controls = (entry[c] for c in ("majority", "blank", "other_image"))
    shown = ["-" if c is None else f"{c['accuracy']:.2f}" for c in controls]
    interval = f"{entry['low']:.2f} to {entry['high']:.2f}"
    scores.add_row(name, str(entry["n"]), f"{entry['accuracy']:.2f}", interval, *shown)
  console.print(answers)
  console.print(scores)
  console.print(result["note"])
  for problem in problems:
    console.print(f"not reached: {problem}")
