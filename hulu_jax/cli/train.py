"""`hulu train`: runs an experiment file to its last step, or goes on from where it stopped."""

import contextlib
import dataclasses
import importlib.metadata
import json
from pathlib import Path
import sys
import time
import traceback
from typing import NamedTuple

from absl import flags
import jax
from ml_collections import ConfigDict
from ml_collections import config_flags

from hulu_jax.cli import _progress
from hulu_jax.core import memory
from hulu_jax.core import params as P
from hulu_jax.core import platform
from hulu_jax.data.pipeline import Packed
from hulu_jax.kernels import choice
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.training import epochs
from hulu_jax.training import loop
from hulu_jax.training import processes
from hulu_jax.training import stages

_EXAMPLE = (
  "usage: hulu train --config=experiments/quickstart.py --workdir=runs/quickstart "
  "[--config.steps=100]\n\n"
  "Every key of the experiment file is a flag.  The same command again goes on from the newest "
  "checkpoint.\n\n"
  "  --records      write the ids of the records in each step to records.jsonl\n"
  "  --coordinator  HOST:PORT of the first process, with --processes and --process (from 0): one\n"
  "                 run over several processes, started alike on each; `auto` asks the cluster"
)
_RUN, _RECORDS = "run.json", "records.jsonl"
_PACKAGES = ("hulu_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class _Arguments(NamedTuple):
  config: ConfigDict
  workdir: Path
  records: bool
  coordinator: str | None
  processes: int | None
  process: int | None


def main(argv: list[str]) -> int:
  """Trains; bad input is one line on stderr and exit code 2."""
  if not argv or {"-h", "--help"} & set(argv):
    print(_EXAMPLE)
    return 0
  platform.narrow()
  try:
    args = _parse(argv)
    _join(args)
  # An experiment is Python and its keys are flags: a typo in either surfaces as one of these.
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    return _refuse(error)
  try:
    _train(args)
  except (ValueError, OSError) as error:
    if args.workdir.is_dir():
      name = processes.own_file("traceback.txt")
      (args.workdir / name).write_text(traceback.format_exc())
    return _refuse(error)
  return 0


def _parse(argv: list[str]) -> _Arguments:
  values = flags.FlagValues()
  line = ["hulu train", *argv]
  config = config_flags.DEFINE_config_file(
    "config", None, "Experiment file.", flag_values=values, sys_argv=line
  )
  workdir = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, metrics and tokenizer go.", flag_values=values
  )
  records = flags.DEFINE_bool("records", False, "List the records.", flag_values=values)
  coordinator = flags.DEFINE_string("coordinator", None, "HOST:PORT or auto.", flag_values=values)
  count = flags.DEFINE_integer("processes", None, "How many there are.", flag_values=values)
  number = flags.DEFINE_integer("process", None, "Which one this is.", flag_values=values)
  rest = values(line)[1:]
  if rest or config.value is None or workdir.value is None:
    raise flags.Error(f"needs --config and --workdir, found {argv}")
  explicit = coordinator.value not in (None, "auto")
  if {explicit} != {value is not None for value in (count.value, number.value)}:
    raise flags.Error("--coordinator=HOST:PORT, --processes and --process go together")
  return _Arguments(
    config.value, Path(workdir.value), records.value, coordinator.value, count.value, number.value
  )


def _join(args: _Arguments) -> None:
  """Makes this process one of several; before JAX is first used."""
  if args.coordinator == "auto":
    try:
      jax.distributed.initialize()
    except ValueError as error:
      raise ValueError(
        f"--coordinator=auto: no cluster that JAX knows ({error}); give HOST:PORT, --processes and "
        "--process"
      ) from error
  elif args.coordinator is not None:
    jax.distributed.initialize(args.coordinator, args.processes, args.process)


def _refuse(error: Exception) -> int:
  print(f"hulu train: {' '.join(str(error).split())}", file=sys.stderr)
  return 2


def _train(args: _Arguments) -> None:
  started = time.monotonic()
  cfg = epochs.counted(args.config, args.workdir)
  steps = stages.plan(cfg)[-1].last
  kernels = choice.resolve(cfg.compute.kernels.to_dict(), jax.default_backend())
  if processes.is_first():
    print(f"kernels: {choice.described(kernels)}", flush=True)
  with contextlib.ExitStack() as stack:
    line = stack.enter_context(_progress.Line("train", steps)) if processes.is_first() else None

    def report(told: loop.Report) -> None:
      scalars = told.scalars
      shown = {k: v for k, v in scalars.items() if k == "loss" or k.startswith("loss/")}
      if line is not None:
        line.update(told.step, shown, told.stage if cfg.stages else "")

    def watch(step: int, packed: Packed) -> None:
      if args.records:
        _list_records(args.workdir / processes.own_file(_RECORDS), step, packed)

    loop.train(cfg, args.workdir, report, watch)
  if processes.is_first():
    _record(cfg, kernels, args.workdir, time.monotonic() - started)


def _list_records(path: Path, step: int, packed: Packed) -> None:
  """One line a step; a step that a stop undid comes twice, and is the same both times."""
  line = {"step": step, "shape": packed.shape, "rows": packed.ids}
  with path.open("a") as file:
    file.write(json.dumps(line) + "\n")


def _record(cfg: ConfigDict, kernels: choice.Kernels, workdir: Path, seconds: float) -> None:
  """Writes what ran into `run.json`; the seconds of a resumed run add up."""
  path = workdir / _RUN
  before = json.loads(path.read_text())["seconds"] if path.is_file() else 0.0
  run = {
    "config": json.loads(cfg.to_json_best_effort()),
    "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    "parameters": P.count(hulu.specs(presets.get(cfg.model))),
    "kernels": dataclasses.asdict(kernels),
    "devices": [d.device_kind for d in jax.devices()],
    "steps": stages.plan(cfg)[-1].last,
    "seconds": before + seconds,
    "peak_memory_mb": memory.peak() / 2**20,
  }
  whole = path.with_suffix(".tmp")  # a kill in the middle must not leave half a file
  whole.write_text(json.dumps(run, indent=2) + "\n")
  whole.replace(path)
