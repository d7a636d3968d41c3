"""`hulu train`: runs an experiment file to its last step, or goes on from where it stopped."""

import contextlib
import json
from pathlib import Path
import sys
import traceback
from typing import NamedTuple

from absl import flags
import jax
from ml_collections import ConfigDict
from ml_collections import config_flags

from hulu_jax.cli import _evaluation
from hulu_jax.cli import _progress
from hulu_jax.core import platform
from hulu_jax.data.pipeline import Packed
from hulu_jax.kernels import choice
from hulu_jax.training import epochs
from hulu_jax.training import loop
from hulu_jax.training import processes
from hulu_jax.training import stages
from hulu_jax.training.metrics import EVALUATION
from hulu_jax.training.reports import Report

_EXAMPLE = (
  "usage: hulu train --config=experiments/quickstart.py --workdir=runs/quickstart "
  "[--config.steps=100]\n\n"
  "Every key of the experiment file is a flag.  The same command again goes on from the newest "
  "checkpoint.\n\n"
  "  --quiet        print nothing but errors; metrics.jsonl has everything\n"
  "  --records      write the ids of the records in each step to records.jsonl\n"
  "  --coordinator  HOST:PORT of the first process, with --processes and --process (from 0): one\n"
  "                 run over several processes, started alike on each; `auto` asks the cluster"
)
_RECORDS = "records.jsonl"


class _Arguments(NamedTuple):
  config: ConfigDict
  workdir: Path
  quiet: bool
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
  quiet = flags.DEFINE_bool("quiet", False, "Print errors only.", flag_values=values)
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
    config.value,
    Path(workdir.value),
    quiet.value,
    records.value,
    coordinator.value,
    count.value,
    number.value,
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
  cfg = epochs.counted(args.config, args.workdir)
  steps = stages.plan(cfg)[-1].last
  kernels = choice.resolve(cfg.compute.kernels.to_dict(), jax.default_backend())
  shows = processes.is_first() and not args.quiet
  if shows:
    print(f"kernels: {choice.described(kernels)}", flush=True)
  with contextlib.ExitStack() as stack:
    line = stack.enter_context(_progress.Line("train", steps)) if shows else None

    def report(told: Report) -> None:
      if line is not None:
        _show(line, told, told.stage if cfg.stages else "")

    def watch(step: int, packed: Packed) -> None:
      if args.records:
        _list_records(args.workdir / processes.own_file(_RECORDS), step, packed)

    loop.train(cfg, args.workdir, report, watch, _evaluation.make)


def _show(line: _progress.Line, told: Report, stage: str) -> None:
  """Loss and speed in the running line; an evaluation in one of its own."""
  losses = {k: v for k, v in told.scalars.items() if k == "loss" or k.startswith("loss/")}
  speed = []
  if "tokens_per_second" in told.speed:
    speed.append(f"{told.speed['tokens_per_second']:,.0f} tokens/s")
  if "utilisation" in told.speed:
    speed.append(f"{told.speed['utilisation']:.1%} of peak")
  line.update(told.step, losses, stage, speed)
  found = [
    f"{name.removeprefix(EVALUATION)} {value:.3f}"
    for name, value in told.scalars.items()
    if name.startswith((f"{EVALUATION}loss", f"{EVALUATION}exact")) and "_by_" not in name
  ]
  if found:
    line.say(f"evaluation at step {told.step}: {'  '.join(found)}")


def _list_records(path: Path, step: int, packed: Packed) -> None:
  """One line a step; a step that a stop undid comes twice, and is the same both times."""
  line = {"step": step, "shape": packed.shape, "rows": packed.ids}
  with path.open("a") as file:
    file.write(json.dumps(line) + "\n")
