"""What a stage of a run needs on a mesh that need not be here: counts, bytes, FLOPs, seconds."""

import dataclasses

import jax
from ml_collections import ConfigDict

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.core.topology import Topology
from hulu_jax.data import settings
from hulu_jax.models import flops
from hulu_jax.models.flops import Flops
from hulu_jax.training import build
from hulu_jax.training import footprint
from hulu_jax.training.build import Program
from hulu_jax.training.footprint import Footprint

# A step may take this part of a chip's memory: runtimes, communication and fragments take the rest.
SHARE = 0.9


@dataclasses.dataclass(frozen=True)
class StepPlan:
  """One step shape.

  flops: of a whole batch on all chips, forward and backward; recomputed: what backward makes again
  beside them; footprint: estimated, of one chip.
  """

  shape: str
  flops: Flops
  recomputed: Flops
  footprint: Footprint

  def seconds(self, topology: Topology, utilisation: float) -> float:
    """Of a step where `utilisation` of the peak goes into `flops`; recomputation earns nothing."""
    return self.flops.total / (topology.size * topology.chip.flops * utilisation)

  def busy(self, utilisation: float) -> float:
    """The part of the peak that the chips work at, recomputation included."""
    return utilisation * (1 + self.recomputed.total / self.flops.total)


@dataclasses.dataclass(frozen=True)
class StagePlan:
  """parameters: all of them; trains: how many of them do; shapes: the lightest first."""

  parameters: int
  trains: int
  shapes: tuple[StepPlan, ...]


def stage(cfg: ConfigDict, platform: str) -> StagePlan:
  """Plans a stage on the mesh that it names, allocating and compiling nothing.

  cfg: as its stage sees it (`stages.select`); platform: as JAX calls it ("cpu", "tpu", "gpu").

  Raises:
    ValueError: an experiment that cannot be meant, or a mesh that does not divide it.
  """
  program = build.build(cfg, platform=platform)
  mesh = sharding.abstract_mesh(cfg.mesh)
  program.check(mesh)
  trains = trainable(program)
  sizes = dict(zip(tree.names(program.specs), jax.tree.leaves(program.specs), strict=True))
  shapes = tuple(
    StepPlan(
      name,
      flops.step(program.config, program.specs, trains, shape),
      flops.recomputed(program.config, program.specs, trains, shape, program.compute),
      footprint.estimate(program, number, mesh),
    )
    for number, (name, shape) in enumerate(zip(shape_names(cfg), program.shapes, strict=True))
  )
  return StagePlan(
    parameters=P.count(program.specs),
    trains=P.count({name: sizes[name] for name in trains}),
    shapes=shapes,
  )


def trainable(program: Program) -> tuple[str, ...]:
  """The paths of the parameters that train."""
  state = jax.eval_shape(program.init, jax.eval_shape(lambda: jax.random.key(0)))
  return tuple(tree.names(state.trainable))


def shape_names(cfg: ConfigDict) -> list[str]:
  """The names of an experiment's step shapes in the order of `Program.shapes`."""

  def weight(name: str) -> tuple[int, int]:
    return settings.weight(build.step_shapes(ConfigDict({name: cfg.shapes[name]}), 1)[0])

  return sorted(cfg.shapes, key=weight)


def allowed(topology: Topology) -> float:
  """Bytes of a chip that a step may take."""
  return SHARE * topology.chip.memory
