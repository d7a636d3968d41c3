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
from hulu_jax.core import platform
from hulu_jax.training import loop

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment file.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and tokenizer go.")
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
    rest = flags.FLAGS(["hulu train", *argv])[1:]
    cfg, workdir = _CONFIG.value, _WORKDIR.value
    if rest or cfg is None or workdir is None:
      raise flags.Error(f"needs --config and --workdir, found {argv}")
  # Config files are Python: a typo in one can raise anything; the flag parser adds these three.
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    return _refuse(error)
  try:
    _train(cfg, Path(workdir))
  except (ValueError, OSError) as error:
    if Path(workdir).is_dir():
      (Path(workdir) / "traceback.txt").write_text(traceback.format_exc())
    return _refuse(error)
  return 0


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
    "devices": [d.device_kind for d in jax.devices()],
    "seconds": before + seconds,
    "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
  }
  path.write_text(json.dumps(run, indent=2) + "\n")
