"""workdir/run.json: what a run was made of, and each time it was started.

One object: `id`, `config` (resolved, of the newest start), `parameters`, `steps`, `preset` (how
media are read), `starts` (a list, see `start`), `seconds` and `peak_memory_mb` of all of them.
"""

from collections.abc import Mapping
import dataclasses
import datetime
import importlib.metadata
import json
import os
from pathlib import Path
import platform
import subprocess
from typing import Any
import uuid

import jax
from ml_collections import ConfigDict

from hulu_jax.core import memory
from hulu_jax.core import params as P
from hulu_jax.training.build import Program
from hulu_jax.training.stages import Stage

FILE = "run.json"
_PACKAGES = ("hulu_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# There on some machines only: what drives the accelerator.
_DRIVERS = ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12")


class RunFile:
  """Written at the start of every stage and at the end; a kill leaves the version before."""

  def __init__(self, workdir: Path, cfg: ConfigDict):
    self._path, self._cfg = workdir / FILE, cfg
    former = json.loads(self._path.read_text()) if self._path.is_file() else {}
    self.id: str = former.get("id", uuid.uuid4().hex[:16])
    self._starts: list[dict[str, Any]] = former.get("starts", [])
    self._seconds: float = former.get("seconds", 0.0)
    self._peak: float = former.get("peak_memory_mb", 0.0)
    self._said: dict[str, Any] = {}
    self._started = False

  def stage(
    self, stage: Stage, program: Program, mesh: jax.sharding.Mesh, fingerprint: Mapping[str, str]
  ) -> None:
    """Notes that a stage begins or goes on.  fingerprint: of its data, see `data.fingerprint`."""
    if not self._started:
      self._starts.append(start(program, mesh))
      self._started = True
    self._starts[-1]["data"][stage.name] = dict(fingerprint)
    self._said = {
      "config": json.loads(self._cfg.to_json_best_effort()),
      "parameters": P.count(program.base),
      "steps": stage.last,
      "preset": program.policy.preset,
    }
    self.write(0.0)

  def write(self, seconds: float) -> None:
    """seconds: that this start has run."""
    if not self._said:
      return
    peak = max(self._peak, memory.peak() / 2**20)
    times = {"seconds": self._seconds + seconds, "peak_memory_mb": peak}
    text = json.dumps({"id": self.id, **self._said, "starts": self._starts, **times}, indent=2)
    draft = self._path.with_suffix(".tmp")
    with draft.open("w") as file:
      file.write(text + "\n")
      file.flush()
      os.fsync(file.fileno())
    draft.replace(self._path)


def start(program: Program, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """Where and when a run is started, by what; `data` is filled in by stage."""
  device = mesh.devices.flat[0]
  return {
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "versions": versions(),
    "git": git_state(Path(__file__).parent),
    "devices": {
      "kind": device.device_kind,
      "count": mesh.size,
      "platform": device.platform,
      "driver": device.client.platform_version,
    },
    "processes": jax.process_count(),
    "mesh": dict(mesh.shape),
    "kernels": dataclasses.asdict(program.compute.kernels),
    "data": {},
  }


def versions() -> dict[str, str]:
  """Of Python, of what arithmetic and data depend on, and of the accelerator's packages if any."""
  there = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
  drivers = [name for name in _DRIVERS if name in there]
  found = {name: importlib.metadata.version(name) for name in (*_PACKAGES, *drivers)}
  return {"python": platform.python_version(), **found}


def git_state(folder: Path) -> dict[str, Any] | None:
  """Commit of the checkout that tracks `folder`, and whether its files differ from it; else None.

  A folder that only lies inside somebody's checkout, as an environment does, is not of it.
  """
  if not _git(folder, "ls-files", "__init__.py"):
    return None
  changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
  return {"commit": _git(folder, "rev-parse", "HEAD"), "dirty": bool(changes)}


def _git(folder: Path, *words: str) -> str:
  """What git says; nothing where it is not installed, or this is no checkout."""
  try:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
  except FileNotFoundError:
    return ""
  return done.stdout.strip() if done.returncode == 0 else ""
