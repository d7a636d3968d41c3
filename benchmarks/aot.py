"""Compiles every kernel and the large train steps for machines that are not here (row C5).

  .venv/bin/python benchmarks/aot.py [--only=kernels|steps] [--target=v5e] [--case=hulu-7b]
    [--cache=build/aot] [--list]

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
import os
from pathlib import Path
import platform
import re
import subprocess
import sys
import time
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("aot_worker.py")
KINDS = ("kernels", "steps")
# A step may take this part of a chip's memory: the rest is for what a compiler does not see.
SHARE = 0.8
# And this much more than what was recorded, before that counts as a step back.
GROWTH = 1.05


class Target(NamedTuple):
  """A kind of chip.  platform: as JAX names it when lowering; topology: the smallest that has one;
  memory: bytes a chip, as its vendor states them."""

  platform: str
  topology: str
  memory: float


TARGETS = {
  "v5e": Target("tpu", "v5e:2x2", 16e9),
  "v5p": Target("tpu", "v5p:2x2x1", 95e9),
  "v6e": Target("tpu", "v6e:2x2", 32e9),
  "sm_90a": Target("cuda", "1x1x1", 80e9),
}


class Step(NamedTuple):
  """One step shape of an experiment on one pod.

  mesh, rows: what the command line would set.  recorded: gigabytes a chip when it was last looked
  at, None before that.
  """

  experiment: str
  preset: str
  shape: str
  target: str
  topology: str
  mesh: dict[str, int]
  rows: int
  recorded: float | None

  @property
  def name(self) -> str:
    """E.g. "hulu-7b pictures"."""
    return f"{self.preset} {self.shape}"


_V5E_256 = {"target": "v5e", "topology": "v5e:16x16"}
# Named for its 256 cores; 128 chips.
_V5P_256 = {"target": "v5p", "topology": "v5p:4x4x8"}
_7B = {"experiment": "finetune", "preset": "hulu-7b", "rows": 256, **_V5E_256}
_7B["mesh"] = {"data": 2, "fsdp": 128, "tensor": 1}
_32B = {"experiment": "finetune", "preset": "hulu-32b", "rows": 128, **_V5P_256}
_32B["mesh"] = {"data": 1, "fsdp": 128, "tensor": 1}
STEPS = (
  Step(**_7B, shape="pictures", recorded=None),
  Step(**_7B, shape="grey_stacks", recorded=None),
  Step(**_7B, shape="colour_stacks", recorded=None),
  Step(**_32B, shape="pictures", recorded=None),
  Step(**_32B, shape="grey_stacks", recorded=None),
  Step(**_32B, shape="colour_stacks", recorded=None),
)


class Job(NamedTuple):
  """What one process compiles: all kernels for one target, or one step."""

  target: str
  step: Step | None

  @property
  def name(self) -> str:
    """What --list shows and --case searches."""
    return f"{self.target}: {self.step.name if self.step else 'kernels'}"


def plan(only: str | None, target: str | None, case: str) -> list[Job]:
  """The jobs of a call, kernels first; `case` is a part of their names."""
  jobs = [Job(name, None) for name in TARGETS] + [Job(step.target, step) for step in STEPS]
  kind = {"kernels": lambda j: j.step is None, "steps": lambda j: j.step is not None}
  return [
    job
    for job in jobs
    if (only is None or kind[only](job))
    and (target is None or job.target == target)
    and case in job.name
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
  folder = cache / re.sub(r"[^\w.]+", "-", "_".join(wanted)).strip("-")
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
  own = {
    "PYTHONPATH": os.pathsep.join((str(site), str(ROOT))),
    "JAX_PLATFORMS": "cpu" if TARGETS[job.target].platform == "tpu" else "",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
  }
  command = [sys.executable, str(WORKER), json.dumps(_description(job))]
  process = subprocess.Popen(
    command, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  out, err = process.communicate()
  found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
  yield from found
  if process.returncode or not found:
    why = "\n".join(err.splitlines()[-20:])
    yield {"case": job.name, "error": f"the process ended with {process.returncode}\n{why}"}


def _description(job: Job) -> dict[str, Any]:
  target = TARGETS[job.target]
  if job.step is None:
    return {"platform": target.platform, "topology": target.topology, "step": None}
  step = job.step._asdict()
  return {"platform": target.platform, "topology": job.step.topology, "step": step}


def verdict(job: Job, result: dict[str, Any]) -> str | None:
  """What is wrong with a result, None where nothing is."""
  if "error" in result:
    return str(result["error"])
  if job.step is None:
    return None
  share = result["total"] / TARGETS[job.target].memory
  if share > SHARE:
    return f"needs {share:.0%} of a chip's memory, allowed are {SHARE:.0%}"
  recorded = job.step.recorded
  if recorded is not None and result["total"] > GROWTH * recorded * 1e9:
    return f"needs {result['total'] / 1e9:.2f} GB, recorded were {recorded} GB"
  return None


def table(rows: Sequence[tuple[Job, dict[str, Any]]]) -> Iterator[str]:
  """The steps as Markdown."""
  yield "| step | chips | mesh (data, fsdp, tensor) | compile s | arguments GB | temporary | all |"
  yield "|---|---|---|---|---|---|---|"
  for job, result in rows:
    if job.step is None or "error" in result:
      continue
    chips = f"{job.step.topology} ({result['chips']})"
    share = result["total"] / TARGETS[job.target].memory
    size = f"{result['total'] / 1e9:.2f} of {TARGETS[job.target].memory / 1e9:.0f} GB, {share:.0%}"
    gigabytes = f"{result['arguments'] / 1e9:.2f} | {result['temporary'] / 1e9:.2f}"
    mesh = tuple(job.step.mesh.values())
    yield f"| {job.step.name} | {chips} | {mesh} | {result['seconds']:.0f} | {gigabytes} | {size} |"


def main() -> int:
  """Runs the plan, prints what it found, says by its exit code whether all is well."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", choices=KINDS)
  parser.add_argument("--target", choices=list(TARGETS))
  parser.add_argument("--case", default="", help="only jobs with this in their name (see --list)")
  parser.add_argument("--cache", type=Path, default=ROOT / "build" / "aot")
  parser.add_argument("--list", action="store_true", help="print the plan and stop")
  args = parser.parse_args()
  jobs = plan(args.only, args.target, args.case)
  if args.list or not jobs:
    print("\n".join(job.name for job in jobs) or "no job has this in its name; see --list")
    return 0 if jobs else 2
  versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib"))
  pins = [pin for name in ("tpu", "cuda") for pin in requirements(name)]
  print(f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {versions}, {pins}")
  rows, wrong = [], 0
  for job in jobs:
    site = environment(TARGETS[job.target].platform, args.cache)
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
