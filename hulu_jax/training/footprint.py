"""What a train step holds on one chip, estimated in seconds without a compiler.

State and batch are exact: shapes and shardings say them.  So is what backward keeps of forward, as
JAX's own trace of the loss has it; only the working set of the deepest moment is a formula, whose
terms were read off XLA's buffer assignments of 7B and 32B steps for TPU (`benchmarks/RESULTS.md`
compares both).
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp

from hulu_jax.core import context
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.data.schema import StepShape
from hulu_jax.models import vision
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute
from hulu_jax.training.build import Program
from hulu_jax.training.state import TrainState

# Multiples of what one layer's widest activation takes, and of its width, that live at once in its
# backward: the two gated branches and their gradients, where they are not kept from forward.
_WIDE = {"full": 4, "save_attention": 4, "save_qkv_out": 4, "save_dots": 2, "none": 2}
_NARROW = 8


@dataclasses.dataclass(frozen=True)
class Footprint:
  """Bytes on one chip.

  weights: all parameters; moments: what else the state holds; batch: as it arrives; gradients: of
  what trains, and their sums where there are microbatches; cast: the weights in the compute dtype;
  saved: what backward keeps of forward; working: of the layer or the head that backward is in.
  """

  weights: float
  moments: float
  batch: float
  gradients: float
  cast: float
  saved: float
  working: float

  @property
  def arguments(self) -> float:
    """What the step is given."""
    return self.weights + self.moments + self.batch

  @property
  def temporary(self) -> float:
    """What it needs beside that."""
    return self.gradients + self.cast + self.saved + self.working

  @property
  def total(self) -> float:
    """All of it."""
    return self.arguments + self.temporary


def estimate(program: Program, shape: int, mesh: jax.sharding.AbstractMesh) -> Footprint:
  """The footprint of step `shape` on each chip of a mesh, which needs no devices."""
  state = _state(program, mesh)
  with jax.sharding.use_abstract_mesh(mesh):
    batch = program.abstract_batch(shape, sharding.batch_sharding(mesh))
    weights = held((state.trainable, state.frozen), mesh)
    trains = held(state.trainable, mesh)
    # Microbatches add up in float32.
    sums = held(jax.tree.map(lambda x: x.update(dtype=jnp.float32), state.trainable), mesh)
    rows = program.shapes[shape].rows // program.accumulate
    micro = jax.tree.map(lambda x: x.update(shape=(rows, *x.shape[1:])), batch)
    saved, working = _deepest(
      program, program.shapes[shape]._replace(rows=rows), state, micro, mesh
    )
  return Footprint(
    weights=weights,
    moments=held(state, mesh) - weights,
    batch=held(batch, mesh),
    gradients=trains + (0 if program.accumulate == 1 else sums),
    cast=_cast(state, program.compute, mesh),
    saved=saved,
    working=working,
  )


def fixed(program: Program, mesh: jax.sharding.AbstractMesh) -> float:
  """Bytes that no step shape and no recomputation changes: state and gradients."""
  state = _state(program, mesh)
  return held(state, mesh) + held(state.trainable, mesh)


def _state(program: Program, mesh: jax.sharding.AbstractMesh) -> TrainState:
  with jax.sharding.use_abstract_mesh(mesh):
    return jax.eval_shape(program.init, jax.eval_shape(lambda: jax.random.key(0)))


def held(arrays: Any, mesh: sharding.Mesh) -> float:
  """Bytes of one chip's parts of abstract arrays."""
  return sum(_bytes(x, mesh) for x in jax.tree.leaves(arrays))


def _bytes(x: Any, mesh: sharding.Mesh) -> float:
  return math.prod(x.shape) * x.dtype.itemsize / sharding.parts(x.sharding, mesh)


def _cast(state: TrainState, compute: Compute, mesh: sharding.Mesh) -> float:
  """XLA casts a stack of weights once, before the layers."""
  layers, _ = tree.partition(tree.merge(state.trainable, state.frozen), ".*/layers/.*")
  wanted = jnp.dtype(compute.dtype)
  leaves = [x for x in jax.tree.leaves(layers) if x.ndim > 2 and x.dtype != wanted]
  return sum(_bytes(x, mesh) * wanted.itemsize / x.dtype.itemsize for x in leaves)


def _deepest(
  program: Program, shape: StepShape, state: TrainState, batch: Any, mesh: sharding.Mesh
) -> tuple[float, float]:
  """(saved, working) at the moment that needs most.

  Backward begins with the head and then goes through the decoder, while all that forward saved is
  there; when it comes to the encoder, only what the encoder saved is left.
  """
  loss = program.losses[program.shapes.index(shape._replace(rows=program.shapes[0].rows))]

  def summed(trainable: Any, frozen: Any, batch: Any) -> jax.Array:
    return loss(trainable, frozen, batch)[0]

  saved = residuals(summed, (state.trainable, state.frozen, batch), mesh)
  working = Working(program.config, program.compute, shape, mesh)
  trains = {name.split("/")[0] for name in tree.names(state.trainable)}
  moments = [(saved, working.decoder()), (saved, working.head("decoder" in trains))]
  if "vision" in trains and shape.groups:
    moments.append((_saved_by_encoder(program, state, batch, shape, mesh), working.encoder()))
  return max(moments, key=sum)


def residuals(
  f: Callable[..., jax.Array], arguments: tuple[Any, ...], mesh: sharding.Mesh
) -> float:
  """Bytes of what JAX keeps of f(*arguments) for its gradient by the first of them, beside them."""

  def kept(first: Any, *rest: Any) -> Any:
    return jax.vjp(lambda x: f(x, *rest), first)[1]

  graph = jax.make_jaxpr(kept)(*arguments).jaxpr
  given = {id(v) for v in (*graph.invars, *graph.constvars)}
  found = {id(v): v.aval for v in graph.outvars if isinstance(v, jax.extend.core.Var)}
  return sum(_bytes(aval, mesh) for key, aval in found.items() if key not in given)


def _saved_by_encoder(
  program: Program, state: TrainState, batch: Any, shape: StepShape, mesh: sharding.Mesh
) -> float:
  """Of its largest pass alone, whose inside backward makes again."""
  groups = _of_a_part(shape, mesh)
  run = max(vision.passes(groups, program.compute.vision_pass), key=lambda r: _patches(r, groups))
  slots = [groups[g][0] // run.times for g in range(run.start, run.stop)]
  compute = dataclasses.replace(program.compute, vision_pass=None)

  def encode(trainable: Any, frozen: Any, media: Any) -> jax.Array:
    params = tree.merge(trainable, frozen)["vision"]
    cut = [
      tuple(context.part(x)[:, :n] for x, n in zip(own[run.start : run.stop], slots, strict=True))
      for own in media
    ]
    return vision.encode(params, cut[0], cut[1], cut[2], program.config.vision, compute)

  media = (batch.patches, batch.patch_segment, batch.patch_hw)
  return residuals(encode, (state.trainable, state.frozen, media), mesh)


def _of_a_part(shape: StepShape, mesh: sharding.Mesh) -> tuple[tuple[int, int], ...]:
  """(slots, size) of each group of what the encoder takes as a row: context deals slots."""
  return tuple((g.slots // sharding.ways("seq", mesh), g.size) for g in shape.groups)


def _patches(run: vision.Run, groups: tuple[tuple[int, int], ...]) -> int:
  """Of a row, in one pass."""
  return sum(slots * size for slots, size in groups[run.start : run.stop]) // run.times


@dataclasses.dataclass(frozen=True)
class Working:
  """The working sets of one microbatch, bytes a chip."""

  config: HuluConfig
  compute: Compute
  shape: StepShape
  mesh: sharding.Mesh

  def decoder(self) -> float:
    """Of one layer: activations, and its three widest weights, gathered."""
    d = self.config.decoder
    wide = d.mlp / sharding.ways("mlp", self.mesh)
    tokens = self._rows * self.shape.tokens
    activations = tokens * (_WIDE[self.compute.decoder_remat] * wide + _NARROW * d.embed)
    return self._size * (activations + 3 * d.embed * wide)

  def head(self, trains: bool) -> float:
    """Of one chunk: its logits in float32, the table gathered, its gradient before that is spread,
    and hidden states of the row."""
    d = self.config.decoder
    vocab = d.vocab / sharding.ways("vocab", self.mesh)
    chunk = min(self.compute.loss_chunk or self.shape.supervised, self.shape.supervised)
    hidden = 3 * self._rows * self.shape.tokens * d.embed
    return 4 * self._rows * chunk * vocab + self._size * (hidden + (1 + trains) * vocab * d.embed)

  def encoder(self) -> float:
    """Of one layer over the patches of one pass, with the gradient of all that the encoder gave."""
    v = self.config.vision
    groups = _of_a_part(self.shape, self.mesh)
    runs = vision.passes(groups, self.compute.vision_pass)
    rows = self.shape.rows / sharding.ways("batch", self.mesh)
    patches = rows * max(_patches(run, groups) for run in runs)
    everything = rows * sum(slots * size for slots, size in groups)
    wide = v.mlp / sharding.ways("mlp", self.mesh)
    layer = patches * (_WIDE[self.compute.vision_remat] * wide / 2 + _NARROW * v.embed)
    return self._size * (layer + everything * v.embed)

  @property
  def _rows(self) -> float:
    """Of one chip; context deals tokens, slots and logits of a row alike."""
    return self.shape.rows / sharding.ways("batch", self.mesh) / sharding.ways("seq", self.mesh)

  @property
  def _size(self) -> int:
    return jnp.dtype(self.compute.dtype).itemsize
