"""`hulu train`: runs an experiment file to its last step, or goes on from where it stopped."""

from collections.abc import Mapping
import importlib.metadata
import json
from pathlib import Path
import resource
import sys
import time
import traceback

from absl import flags
import jax
from ml_collections import ConfigDict
from ml_collections import config_flags

from hulu_jax.cli import _progress
from hulu_jax.core import params as P
from hulu_jax.core import platform
from hulu_jax.training import build
from hulu_jax.training import loop

_EXAMPLE = (
  "usage: hulu train --config=experiments/quickstart.py --workdir=runs/quickstart "
  "[--config.steps=100]\n\n"
  "Every key of the experiment file is a flag.  The same command again goes on from the newest "
  "checkpoint."
)
_RUN = "run.json"
_PACKAGES = ("hulu_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def main(argv: list[str]) -> int:
  """Trains; bad input is one line on stderr and exit code 2."""
  if not argv or {"-h", "--help"} & set(argv):
    print(_EXAMPLE)
    return 0
  platform.narrow()
  try:
    cfg, workdir = _parse(argv)
  # An experiment is Python and its keys are flags: a typo in either surfaces as one of these.
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    return _refuse(error)
  try:
    _train(cfg, workdir)
  except (ValueError, OSError) as error:
    if workdir.is_dir():
      (workdir / "traceback.txt").write_text(traceback.format_exc())
    return _refuse(error)
  return 0


def _parse(argv: list[str]) -> tuple[ConfigDict, Path]:
  values = flags.FlagValues()
  line = ["hulu train", *argv]
  config = config_flags.DEFINE_config_file(
    "config", None, "Experiment file.", flag_values=values, sys_argv=line
  )
  workdir = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, metrics and tokenizer go.", flag_values=values
  )
  rest = values(line)[1:]
  if rest or config.value is None or workdir.value is None:
    raise flags.Error(f"needs --config and --workdir, found {argv}")
  return config.value, Path(workdir.value)


def _refuse(error: Exception) -> int:
  print(f"hulu train: {' '.join(str(error).split())}", file=sys.stderr)
  return 2


def _train(cfg: ConfigDict, workdir: Path) -> None:
  started = time.monotonic()
  with _progress.Line("train", cfg.steps) as line:

    def report(step: int, scalars: Mapping[str, float]) -> None:
      shown = {k: v for k, v in scalars.items() if k == "loss" or k.startswith("loss/")}
      line.update(step, shown)

    loop.train(cfg, workdir, report)
  _record(cfg, workdir, time.monotonic() - started)


def _record(cfg: ConfigDict, workdir: Path, seconds: float) -> None:
  """Writes what ran into `run.json`; the seconds of a resumed run add up."""
  path = workdir / _RUN
  before = json.loads(path.read_text())["seconds"] if path.is_file() else 0.0
  run = {
    "config": json.loads(cfg.to_json_best_effort()),
    "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    "parameters": P.count(build.build(cfg).specs),
    "devices": [d.device_kind for d in jax.devices()],
    "seconds": before + seconds,
    "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
  }
  path.write_text(json.dumps(run, indent=2) + "\n")
