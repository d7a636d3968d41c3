"""`hulu plan`: what an experiment needs and costs on a machine that need not be here."""

from collections.abc import Iterator, Mapping
import json
import math
from pathlib import Path
import subprocess
import sys
import tempfile

from absl import flags

from hulu_jax.cli import _compilers
from hulu_jax.cli import _plan_options
from hulu_jax.cli import _plan_text
from hulu_jax.cli._plan_options import Options
from hulu_jax.core import platform as platform_lib
from hulu_jax.training import advice
from hulu_jax.training import aot
from hulu_jax.training import plan
from hulu_jax.training import stages
from hulu_jax.training.aot import Compiled

_EXAMPLE = """\
usage: hulu plan --config=EXPERIMENT.py [--config.KEY=VALUE] [--stage=NAME] [--mesh=data=2,fsdp=128]
                 [--topology=v5p:4x4x8] [--utilisation=0.4] [--estimate]

  hulu plan --config=experiments/finetune_vqa.py:7b,full --topology=v5e:16x16
  hulu plan --config=experiments/finetune_vqa.py:7b,lora --topology=h100:8 --mesh=fsdp=8 \\
    --config.rows=8 --estimate

Parameters, memory a chip, FLOPs, time and chip-hours of every stage, without the hardware.  Where
it does not fit, the exit code is 2 and the last line says which knob to turn.

  --stage        only this one, where the experiment has several
  --mesh         instead of the experiment's; axes that are not named are 1
  --topology     the machine: v5e:16x16, v5p:4x4x8, v6e:8x8 (TPU slices), a100:N, h100:N, h200:N
  --utilisation  part of the chips' peak that goes into the model (default 0.4); see docs/plan.md
  --estimate     seconds instead of minutes: no compiler, memory within some 15 %
  --compilers    folder of libtpu or JAX's CUDA plugin; without them emulated CPU devices compile,
                 whose memory is that of no chip"""
_BAD = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)


def main(argv: list[str]) -> int:
  """Plans; bad input is one line on stderr and exit code 2, and so is a plan that does not fit."""
  if not argv or {"-h", "--help"} & set(argv):
    print(_EXAMPLE)
    return 0
  platform_lib.narrow()
  try:
    options = _plan_options.parse(argv)
    return 0 if all([_stage(name, options) for name in _names(options)]) else 2
  # An experiment is Python and its keys are flags: a typo in either surfaces as one of these.
  except _BAD as error:
    print(f"hulu plan: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _names(options: Options) -> list[str]:
  if options.stage is not None:
    return [options.stage]
  return [stage.name for stage in stages.plan(options.config)]


def _stage(name: str, options: Options) -> bool:
  """Prints one stage; whether it fits."""
  cfg, machine = stages.select(options.config, name), options.topology
  ours = aot.OURS[machine.chip.platform] if machine else "cpu"
  found = plan.stage(cfg, ours)
  print(_plan_text.heading(name, cfg, machine))
  print(_plan_text.counts(found), flush=True)
  compiled = {} if options.estimate else dict(_compiled(name, options))
  print("\n".join(_plan_text.memory(found.shapes, compiled, machine)))
  chips = math.prod(cfg.mesh.values())
  print("\n".join(_plan_text.work(found.shapes, machine, chips, options.utilisation)))
  if machine is None:
    print("no --topology: there is no chip to hold this against, and no time")
    return True
  print(_plan_text.cost(found, cfg.steps, machine, options.utilisation))
  # Emulated devices have nobody's memory.
  judged = {} if _emulates(options) else compiled
  worst = max(_needs(step, judged) for step in found.shapes)
  fits = worst <= plan.allowed(machine)
  print(_plan_text.verdict(worst, fits, machine), flush=True)
  largest = max((step.footprint for step in found.shapes), key=lambda f: f.total)
  best = advice.advise(cfg, ours, plan.allowed(machine))
  print(_plan_text.advised(best, fits, largest, machine))
  return fits


def _emulates(options: Options) -> bool:
  machine = options.topology
  return machine is None or not _compilers.there(machine.chip.platform, options.compilers)


def _needs(step: plan.StepPlan, compiled: Mapping[str, Compiled | str]) -> float:
  """Bytes a chip: the compiler's where it compiled, all there are where it refused."""
  found = compiled.get(step.shape)
  if found is None:
    return step.footprint.total
  return math.inf if isinstance(found, str) else found.total


def _compiled(name: str, options: Options) -> Iterator[tuple[str, Compiled | str]]:
  """Shape -> what the compiler says, in a process that sees it."""
  machine = options.topology
  platform = machine.chip.platform if machine else "cpu"
  argv = [*options.rest, f"--stage={name}"]
  if machine and _emulates(options):
    print(f"no compiler for {machine.kind} here: emulated CPU devices stand in (see docs/plan.md)")
    platform, argv = "cpu", [*argv, "--emulated"]
  folders = [Path(__file__).parents[2]]
  if options.compilers is not None:
    folders.insert(0, options.compilers)
  devices = math.prod(options.config.mesh.values())
  print(f"compiling for {machine.name if machine else 'CPU'}: minutes", file=sys.stderr, flush=True)
  with tempfile.TemporaryFile("w+") as errors:
    process = subprocess.Popen(
      [sys.executable, "-m", "hulu_jax.cli._plan_worker", *argv],
      env=_compilers.environment(platform, devices, folders),
      stdout=subprocess.PIPE,
      stderr=errors,
      text=True,
    )
    for line in process.stdout or ():
      if line.startswith("{"):
        told = json.loads(line)
        shape = told.pop("shape")
        yield shape, told["too_large"] if "too_large" in told else Compiled(**told)
    if process.wait():
      errors.seek(0)
      last = errors.read().strip().splitlines()[-1:] or ["it said nothing"]
      raise ValueError(f"the compiler ended with {process.returncode}: {last[0]}")
