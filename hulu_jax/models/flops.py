"""How many floating-point operations a step of one batch shape takes, counted from its weights.

A product of [m, k] and [k, n] is 2 m k n operations (Kaplan et al. 2020, section 2.1; PaLM,
appendix B, which also defines model FLOPs: without what backward recomputes).  So every weight
costs 2 operations for each of its elements and each position that it multiplies, and 2 more for
each of the two gradients that backward needs of it.  Attention is two such products of activations
forward and four backward.  What is no product (norms, activations, softmax, rotations) is left out:
below 1 % at the published widths.

XLA's own count is no substitute: it counts the body of a scan once.
"""

from collections.abc import Collection, Iterator
import dataclasses
import math
import re
from typing import Any

import jax

from hulu_jax.core import params as P
from hulu_jax.core import tree
from hulu_jax.models import vision
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute

Shape = Any  # a `data.schema.StepShape`; models never import data


@dataclasses.dataclass(frozen=True)
class Flops:
  """Operations of all rows of a batch, on all chips together, by the part that spends them."""

  encoder: float
  encoder_attention: float
  projector: float
  decoder: float
  decoder_attention: float
  head: float

  @property
  def total(self) -> float:
    """All parts."""
    return sum(dataclasses.astuple(self))

  def __add__(self, other: "Flops") -> "Flops":
    return Flops(*map(sum, zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclasses.dataclass(frozen=True)
class _Product:
  """A weight at work.  part: field of `Flops`; stage: place in the order of the forward pass;
  forward: operations."""

  name: str
  part: str
  stage: int
  forward: float


# The weights that multiply, by pattern of their paths: (pattern, part, stage).  An adapter's leaves
# lie below the path of its weight.  Stages follow the forward pass; a stack of layers is one.
_ADAPTED = "(/w|/a|/b)?"
_WEIGHTS = (
  ("vision/patch/kernel", "encoder", 0),
  (f"vision/layers/(q|k|v|o|up|down){_ADAPTED}", "encoder", 1),
  (f"projector/up{_ADAPTED}", "projector", 2),
  (f"projector/down{_ADAPTED}", "projector", 3),
  (f"decoder/layers/(q|k|v|o|gate|up|down){_ADAPTED}", "decoder", 4),
  ("decoder/(embed|head)", "head", 5),
)
_ENCODER, _DECODER = 1, 4
# Where what is no product, a bias, a norm, a table, stands in the same order.  Its gradient asks
# for that of whatever comes after it.
_BETWEEN = (
  ("vision/patch/.*", 0),
  ("vision/layers/.*", 1),
  ("vision/norm/.*", 2),
  ("projector/up.*", 2.5),
  ("projector/down.*", 3),
  ("decoder/embed", 3.5),
  ("decoder/layers/.*", 4),
  ("decoder/norm", 4.5),
  ("decoder/head", 5),
)


def forward(config: HuluConfig, specs: P.Specs, shape: Shape) -> Flops:
  """One forward pass, the head over supervised positions only.

  specs: of what runs, adapters included.  A decoder row counts as one sample, causal, a slot of the
  encoder as one frame: packing several leaves fewer pairs, which no shape knows.  Padding counts.
  """
  spent = [(p.part, p.forward) for p in _products(config, specs, shape)]
  encoder, decoder = _attention(config, shape)
  return _sum([*spent, ("encoder_attention", encoder), ("decoder_attention", decoder)])


def step(config: HuluConfig, specs: P.Specs, trains: Collection[str], shape: Shape) -> Flops:
  """Forward and backward of one optimizer step, recomputation not counted.

  trains: the paths of the leaves of `specs` that train (`tree.names` of a state's trainable part).
  A weight that is frozen costs no gradient of its own, and none of its input where nothing before
  it trains: a frozen encoder costs its forward alone, a frozen decoder after a projector that
  trains two thirds.
  """
  first = _first(trains)
  spent = [
    (p.part, p.forward * (1 + (p.name in trains) + _asked(p, first)))
    for p in _products(config, specs, shape)
  ]
  encoder, decoder = _attention(config, shape)
  encoder *= 3 if first <= _ENCODER else 1
  decoder *= 3 if first <= _DECODER else 1
  return _sum([*spent, ("encoder_attention", encoder), ("decoder_attention", decoder)])


# Policy -> the weights of a layer whose products backward does not make again; of the other
# policies none is made again.
_KEPT = {"full": "down", "save_attention": "down", "save_qkv_out": "q|k|v|o|down"}


def recomputed(
  config: HuluConfig, specs: P.Specs, trains: Collection[str], shape: Shape, compute: Compute
) -> Flops:
  """What backward of one step does again: hardware FLOPs are these and those of `step`.

  Of a layer backward needs all but what its last product gives.  `full` makes it all again,
  `save_attention` without attention, `save_qkv_out` the MLP alone, `save_dots` attention alone.  An
  encoder in several passes runs forward once more, and so does a head whose logits are made in
  chunks.
  """
  first = _first(trains)
  again = {1: compute.vision_remat, 4: compute.decoder_remat}
  passes = vision.passes(tuple((g.slots, g.size) for g in shape.groups), compute.vision_pass)
  in_passes = passes != (vision.Run(0, len(shape.groups), 1),)
  in_chunks = compute.loss_chunk is not None and shape.supervised > compute.loss_chunk
  spent = []
  for p in _products(config, specs, shape):
    times = 0
    if p.stage in again and first <= p.stage:
      kept = _KEPT.get(again[p.stage])
      times += kept is not None and not re.search(f"/({kept})(/|$)", p.name)
    times += p.part == "encoder" and in_passes and first <= _ENCODER
    times += p.part == "head" and in_chunks
    spent.append((p.part, p.forward * times))
  encoder, decoder = _attention(config, shape)
  repeats = ("full", "save_dots")
  encoder *= ((compute.vision_remat in repeats) + in_passes) * (first <= _ENCODER)
  decoder *= (compute.decoder_remat in repeats) * (first <= _DECODER)
  return _sum([*spent, ("encoder_attention", encoder), ("decoder_attention", decoder)])


def _products(config: HuluConfig, specs: P.Specs, shape: Shape) -> Iterator[_Product]:
  table = "head" if config.decoder.tied else "embed"  # the one that only looks up, or is not there
  for path, spec in jax.tree.leaves_with_path(specs):
    name = tree.path_name(path)
    for pattern, part, stage in _WEIGHTS:
      if re.fullmatch(pattern, name) and name != f"decoder/{table}":
        elements = math.prod(spec.shape)
        yield _Product(name, part, stage, 2.0 * elements * _positions(name, part, config, shape))


def _positions(name: str, part: str, config: HuluConfig, shape: Shape) -> float:
  """How many vectors a weight multiplies, all rows together."""
  if name == "vision/patch/kernel":
    # A grey patch multiplies a kernel that was summed over its channels.
    channels = config.vision.channels
    return shape.rows * sum(g.slots * g.size * g.channels / channels for g in shape.groups)
  if not shape.groups and part in ("encoder", "projector"):
    return 0
  of_row = {
    "encoder": sum(g.slots * g.size for g in shape.groups),
    "projector": shape.visual,
    "decoder": shape.tokens,
    "head": shape.supervised,
  }
  return shape.rows * of_row[part]


def _attention(config: HuluConfig, shape: Shape) -> tuple[float, float]:
  """Forward, of the encoder (dense in a slot) and of the decoder (causal: half of all pairs)."""
  v, d = config.vision, config.decoder
  pairs = sum(g.slots * g.size**2 for g in shape.groups)
  encoder = 4.0 * v.layers * v.heads * v.head_dim * pairs
  decoder = 4.0 * d.layers * d.heads * d.head_dim * shape.tokens**2 / 2
  return shape.rows * encoder, shape.rows * decoder


def _first(trains: Collection[str]) -> float:
  """The stage at which the first thing that trains stands: gradients go back as far as that."""
  return min(
    next(stage for pattern, stage in _BETWEEN if re.fullmatch(pattern, name)) for name in trains
  )


def _asked(product: _Product, first: float) -> bool:
  """Whether backward needs the gradient of what this weight multiplies.  Patches have none."""
  inside = product.stage in (_ENCODER, _DECODER)
  return product.stage > 0 and (first < product.stage or (inside and first == product.stage))


def _sum(spent: list[tuple[str, float]]) -> Flops:
  fields = [field.name for field in dataclasses.fields(Flops)]
  return Flops(*(sum(n for part, n in spent if part == field) for field in fields))
