"""Compiles every kernel and the large train steps for machines that are not here (row C5).

  PYTHONPATH=. .venv/bin/python benchmarks/aot.py [--only=kernels|steps] [--target=v5e]
    [--case=hulu-7b] [--cache=build/aot] [--list]

Mosaic, Triton and XLA really compile, for TPU v5e, v5p and v6e and for NVIDIA sm_90a, on a machine
with neither: libtpu and the CUDA plugin work without a device.  Both come from the package index,
in the version that the installed jax asks for, into folders under --cache that only the compiling
processes see.  Each train step (encoder, decoder, loss, gradient, AdamW, donated state) is compiled
as its experiment writes it.  Prints one line a case and a table of memory per chip; exits with 1
where something does not compile or a step needs more than its share of a chip's memory.
"""

import argparse
from collections.abc import Iterator, Sequence
from importlib import metadata
import json
from pathlib import Path
import platform
import re
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from benchmarks import kernel_cases
from hulu_jax.cli import _compilers
from hulu_jax.core import topology
from hulu_jax.training import aot
from hulu_jax.training import recipe

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("aot_worker.py")
KINDS = ("kernels", "steps")
# A step may take this part of a chip's memory: the rest is for what a compiler does not see.
SHARE = 0.8
# And this much more than what was recorded, before that counts as a step back.
GROWTH = 1.05


# What is compiled for: the smallest slice of a kind of TPU that there is, or one GPU.
TARGETS = {
  name: topology.parse(smallest)
  for name, smallest in (
    ("v5e", "v5e:2x2"),
    ("v5p", "v5p:2x2x1"),
    ("v6e", "v6e:2x2"),
    ("sm_90a", "h100:1"),
  )
}


class Step(NamedTuple):
  """One step shape of an experiment on one pod.

  mesh, rows: what the command line would set.  recorded: gigabytes a chip when it was last looked
  at, None before that.
  """

  experiment: str
  argument: str
  shape: str
  target: str
  topology: str
  mesh: dict[str, int]
  rows: int
  recorded: float | None

  @property
  def name(self) -> str:
    """E.g. "hulu-7b pictures"."""
    size = self.argument.partition(",")[0]
    return f"{recipe.SIZES[size].model} {self.shape}"


_V5E_256 = {"target": "v5e", "topology": "v5e:16x16"}
# Named for its 256 cores; 128 chips.
_V5P_256 = {"target": "v5p", "topology": "v5p:4x4x8"}
_7B = {"experiment": "finetune_vqa", "argument": "7b,full", "rows": 256, **_V5E_256}
_7B["mesh"] = {"data": 2, "fsdp": 128, "tensor": 1}
_32B = {"experiment": "finetune_vqa", "argument": "32b,full", "rows": 128, **_V5P_256}
_32B["mesh"] = {"data": 1, "fsdp": 128, "tensor": 1}
STEPS = (
  Step(**_7B, shape="pictures", recorded=9.53),
  Step(**_7B, shape="grey_stacks", recorded=9.09),
  Step(**_7B, shape="colour_stacks", recorded=9.52),
  Step(**_32B, shape="pictures", recorded=21.95),
  Step(**_32B, shape="grey_stacks", recorded=28.32),
  Step(**_32B, shape="colour_stacks", recorded=30.39),
)


class Job(NamedTuple):
  """What one process compiles: kernels for one target, or one step.  cases: what it is to report,
  by name."""

  target: str
  step: Step | None
  cases: tuple[str, ...]


def plan(only: str | None, target: str | None, part: str) -> list[Job]:
  """The jobs of a call, kernels first; `part`: of a case's name."""
  jobs = []
  for name in TARGETS:
    found = tuple(case.name for case in kernel_cases.cases(aot.OURS[TARGETS[name].chip.platform]))
    jobs.append(Job(name, None, tuple(case for case in found if part in case)))
  jobs += [Job(step.target, step, (step.name,)) for step in STEPS if part in step.name]
  wanted = {"kernels": (True,), "steps": (False,), None: (True, False)}[only]
  return [
    job
    for job in jobs
    if job.cases and (job.step is None) in wanted and target in (None, job.target)
  ]


def requirements(name: str) -> tuple[str, ...]:
  """What the compilers of a platform are called, in the version that the installed jax asks for."""
  if name == "tpu":
    wanted = [
      match[0]
      for line in metadata.requires("jax") or ()
      if "tpu" in line and (match := re.match(r"libtpu\S+(?=;)", line))
    ]
    return tuple(wanted)
  version = metadata.version("jaxlib")
  return (f"jax-cuda13-plugin=={version}", f"jax-cuda13-pjrt=={version}")


def environment(name: str, cache: Path) -> Path:
  """A folder with the compilers of a platform, installed once; half a folder is never left."""
  wanted = requirements(name)
  folder = cache / re.sub(r"[^\w.]+", "-", "_".join(wanted)).strip("-.")
  if folder.is_dir():
    return folder
  print(f"installing {' '.join(wanted)} into {folder}", flush=True)
  half = folder.with_suffix(".part")
  command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
  subprocess.run([*command, "--target", str(half), *wanted], check=True)
  half.rename(folder)
  return folder


def run(job: Job, site: Path) -> Iterator[dict[str, Any]]:
  """Compiles in a process of its own, which alone sees `site`; yields a result for each case."""
  own = _compilers.environment(TARGETS[job.target].chip.platform, 1, [site, ROOT])
  command = [sys.executable, str(WORKER), json.dumps(_description(job))]
  reached = 0
  with tempfile.TemporaryFile("w+") as errors:
    process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=errors, text=True)
    for line in process.stdout or ():
      if line.startswith("{"):
        reached += 1
        yield json.loads(line)
    code = process.wait()
    errors.seek(0)
    why = "\n".join([f"the process ended with {code}", *errors.read().splitlines()[-20:]])
  for case in job.cases[reached:]:
    yield {"case": case, "error": why}
    why = "not reached"


def _description(job: Job) -> dict[str, Any]:
  target = TARGETS[job.target]
  step = job.step._asdict() if job.step else None
  return {
    "topology": job.step.topology if job.step else target.name,
    "step": step,
    "cases": job.cases,
  }


def verdict(job: Job, result: dict[str, Any]) -> str | None:
  """What is wrong with a result, None where nothing is."""
  if "error" in result:
    return str(result["error"])
  if job.step is None:
    return None
  share = result["total"] / TARGETS[job.target].chip.memory
  if share > SHARE:
    return f"needs {share:.0%} of a chip's memory, allowed are {SHARE:.0%}"
  recorded = job.step.recorded
  if recorded is not None and result["total"] > GROWTH * recorded * 1e9:
    return f"needs {result['total'] / 1e9:.2f} GB, recorded were {recorded} GB"
  return None


def table(rows: Sequence[tuple[Job, dict[str, Any]]]) -> Iterator[str]:
  """The steps as Markdown."""
  yield "| step | chips | mesh | compile s | arguments GB | temporary | output | all with code |"
  yield "|---|---|---|---|---|---|---|---|"
  for job, result in rows:
    if job.step is None or "error" in result:
      continue
    chips = f"{job.step.topology} ({result['chips']})"
    share = result["total"] / TARGETS[job.target].chip.memory
    size = (
      f"{result['total'] / 1e9:.2f} of {TARGETS[job.target].chip.memory / 1e9:.0f} GB, {share:.0%}"
    )
    parts = (f"{result[name] / 1e9:.2f}" for name in ("arguments", "temporary", "output"))
    mesh = " x ".join(str(n) for n in job.step.mesh.values())
    told = (job.step.name, chips, mesh, f"{result['seconds']:.0f}", *parts, size)
    yield f"| {' | '.join(told)} |"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the plan, prints what it found, says by its exit code whether all is well."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", choices=KINDS)
  parser.add_argument("--target", choices=list(TARGETS))
  parser.add_argument("--case", default="", help="only what has this in its name (see --list)")
  parser.add_argument("--cache", type=Path, default=ROOT / "build" / "aot")
  parser.add_argument("--list", action="store_true", help="print the plan and stop")
  args = parser.parse_args(argv)
  jobs = plan(args.only, args.target, args.case)
  if args.list or not jobs:
    named = (f"{job.target}: {case}" for job in jobs for case in job.cases)
    print("\n".join(named) or f"nothing has {args.case!r} in its name; see --list")
    return 0 if jobs else 2
  versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib"))
  pins = [pin for name in ("tpu", "cuda") for pin in requirements(name)]
  print(f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {versions}, {pins}")
  rows, wrong = [], 0
  for job in jobs:
    site = environment(TARGETS[job.target].chip.platform, args.cache)
    for result in run(job, site):
      why = verdict(job, result)
      wrong += why is not None
      rows.append((job, result))
      seconds = f"{result['seconds']:6.1f} s" if "seconds" in result else ""
      print(f"{'wrong' if why else 'ok':5} {job.target:6} {result['case']} {seconds}", flush=True)
      if why:
        print(f"      {why}", flush=True)
  print("\n".join(table(rows)))
  print(f"{len(rows) - wrong} of {len(rows)} as they should be")
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
