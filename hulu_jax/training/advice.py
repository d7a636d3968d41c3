"""Which knobs make a step fit into a chip at the least recomputation, found by estimates alone."""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
from typing import Any

import jax
from ml_collections import ConfigDict

from hulu_jax.core import sharding
from hulu_jax.models import flops
from hulu_jax.training import build
from hulu_jax.training import footprint
from hulu_jax.training import plan
from hulu_jax.training.build import Program
from hulu_jax.training.footprint import Footprint

# (encoder, decoder): what backward recomputes, the least first.
_LADDER = (
  ("none", "none"),
  ("save_dots", "save_dots"),
  ("save_qkv_out", "save_qkv_out"),
  ("save_qkv_out", "save_qkv_out"),
  ("save_attention", "save_attention"),
  ("full", "save_attention"),
  ("full", "full"),
)
# Tried last: backward through the encoder, or the head, in parts that are made again.
_PARTS = {"compute.vision_pass": 16384, "compute.loss_chunk": 1024}


@dataclasses.dataclass(frozen=True)
class Advice:
  """change: keys of the experiment to set, empty where it stands best as it is; footprint and
  recomputed (FLOPs over model FLOPs): of its heaviest shape then, estimated."""

  change: Mapping[str, Any]
  footprint: Footprint
  recomputed: float

  @property
  def flags(self) -> str:
    """The changes as a command line has them."""
    return " ".join(f"--config.{key}={value}" for key, value in self.change.items())


def advise(cfg: ConfigDict, platform: str, allowed: float) -> Advice | None:
  """The settings that recompute least of those that fit; None where none does.

  allowed: bytes a chip.  Tried are what backward recomputes, more microbatches, passes of the
  encoder and chunks of the head, and `fsdp` in the place of `data`; rates, shapes and rows stay.
  """
  for change in _candidates(cfg):
    own = changed(cfg, change)
    program = build.build(own, platform=platform)
    if not _divides(program, own):
      continue
    found = _fitting(program, own, allowed)
    if found is None:
      continue
    accumulate, taken = found
    if accumulate != cfg.accumulate:
      change = {**change, "accumulate": accumulate}
    return Advice(change, taken, _recomputed(program))
  return None


def changed(cfg: ConfigDict, change: Mapping[str, Any]) -> ConfigDict:
  """A copy of an experiment with some keys set, which are written with dots."""
  own = cfg.copy_and_resolve_references()
  for key, value in change.items():
    *groups, last = key.split(".")
    with own.unlocked():
      functools.reduce(lambda group, name: group[name], groups, own)[last] = value
  return own


def _candidates(cfg: ConfigDict) -> Iterator[dict[str, Any]]:
  """From the least recomputation to the most; each says only what differs from `cfg`."""
  parts = {key: most for key, most in _PARTS.items() if _more(cfg, key, most)}
  meshes: list[dict[str, Any]] = [{}]
  if cfg.mesh.get("data", 1) > 1:
    fsdp = cfg.mesh.data * cfg.mesh.get("fsdp", 1)
    meshes.append({"mesh.data": 1, "mesh.fsdp": fsdp})
  for beside in ({}, *([parts] if parts else ())):
    for vision, decoder in _LADDER:
      remat = {"compute.vision_remat": vision, "compute.decoder_remat": decoder}
      differs = {k: v for k, v in remat.items() if cfg.compute[k.partition(".")[2]] != v}
      for mesh in meshes:
        yield {**differs, **beside, **mesh}


def _more(cfg: ConfigDict, key: str, most: int) -> bool:
  """Whether a limit of `most` would cut what the experiment leaves whole."""
  now = cfg.compute[key.partition(".")[2]]
  return now is None or now > most


def _divides(program: Program, cfg: ConfigDict) -> bool:
  try:
    program.check(sharding.abstract_mesh(cfg.mesh))
  except ValueError:
    return False
  return True


def _fitting(program: Program, cfg: ConfigDict, allowed: float) -> tuple[int, Footprint] | None:
  """The fewest microbatches, from the experiment's own on, with which every shape fits, and what
  the largest then takes; None where single rows are too much."""
  mesh = sharding.abstract_mesh(cfg.mesh)
  most = program.shapes[0].rows // sharding.fewest_rows(mesh)
  possible = [n for n in range(program.accumulate, most + 1) if most % n == 0]
  if footprint.fixed(program, mesh) > allowed:
    return None
  if _largest(program, possible[-1], mesh, allowed) is None:
    return None
  found = ((n, _largest(program, n, mesh, allowed)) for n in possible)
  return next((n, taken) for n, taken in found if taken is not None)


def _largest(
  program: Program, accumulate: int, mesh: jax.sharding.AbstractMesh, allowed: float
) -> Footprint | None:
  """What the largest shape takes; None as soon as one takes more than is allowed."""
  own = dataclasses.replace(program, accumulate=accumulate)
  largest = None
  for number in range(len(own.shapes)):
    taken = footprint.estimate(own, number, mesh)
    if taken.total > allowed:
      return None
    if largest is None or taken.total > largest.total:
      largest = taken
  return largest


def _recomputed(program: Program) -> float:
  heaviest, trains = program.shapes[-1], plan.trainable(program)
  whole = flops.step(program.config, program.specs, trains, heaviest).total
  again = flops.recomputed(program.config, program.specs, trains, heaviest, program.compute).total
  return again / whole
