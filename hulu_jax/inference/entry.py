"""One whole picture, volume or clip to the visual tokens that survive, decided on the device.

Prompts take another way: their ids must be there before the model runs, so the host decides by the
same integers (`data.compression`) and packs patches of unlike media into few shapes.
"""

import dataclasses
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp

from hulu_jax.core import linear
from hulu_jax.core import params as P
from hulu_jax.kernels.visual_tokenizer import api as visual_tokenizer
from hulu_jax.kernels.visual_tokenizer import reference
from hulu_jax.kernels.visual_tokenizer.rule import Rule
from hulu_jax.models import projector
from hulu_jax.models import vision
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What the program is compiled for.

  rule: which tokens survive; before: whether the others are dropped before the encoder; capacity:
  tokens that there is room for.
  """

  config: HuluConfig
  compute: Compute
  rule: Rule
  before: bool
  capacity: int


class Entry(NamedTuple):
  """tokens: [capacity, embed] as the decoder reads them, past `valid` without meaning; source:
  int32 [capacity], which visual token each is (t * N + n); valid, overflow: int32, kept tokens that
  are there and that found no room; score: int32 [T, N], what the rule compared; keep: bool [T, N].
  """

  tokens: jax.Array
  source: jax.Array
  valid: jax.Array
  overflow: jax.Array
  score: jax.Array
  keep: jax.Array


@jax.jit(static_argnames="plan")
def encode(w: P.Params, patches: jax.Array, places: jax.Array, plan: Plan) -> Entry:
  """patches: uint8 [T, N, m * m, values]; places: int [N, m * m, 2], row and column of each."""
  way = _kept_first if plan.before else _all_first
  features, entry = way(w["vision"], patches, places, plan)
  return entry._replace(tokens=projector.forward(w["projector"], features)[0])


def _all_first(
  w: P.Params, patches: jax.Array, places: jax.Array, plan: Plan
) -> tuple[jax.Array, Entry]:
  """Every patch is encoded, a frame a slot; of the features, the kept are gathered."""
  frames, tokens, block, _ = patches.shape
  found = visual_tokenizer.tokenize(
    patches,
    *_patch_weights(w),
    rule=plan.rule,
    dtype=plan.compute.dtype,
    implementation=plan.compute.kernels.visual_tokenizer,
  )
  source = reference.kept_index(found.keep, plan.capacity)
  x = einops.rearrange(found.embeddings, "t n m e -> 1 (t n m) e")
  where = jnp.broadcast_to(places, (frames, *places.shape)).reshape(1, -1, 2)
  segments = jnp.ones((1, frames, tokens * block), jnp.int32)
  c, compute = plan.config.vision, plan.compute
  x = vision.through_layers(w, x, where, (segments,), c, compute)
  sizes = ((x.shape[1], _merge(block)),)
  features = vision.kept_tokens(w, x, source[None], sizes, c, compute)
  valid = jnp.minimum(found.total, plan.capacity)
  overflow = found.total - valid
  return features, Entry(features, source, valid, overflow, found.score, found.keep)


def _kept_first(
  w: P.Params, patches: jax.Array, places: jax.Array, plan: Plan
) -> tuple[jax.Array, Entry]:
  """Only kept tokens are encoded, all in one slot, where each attends to its own frame."""
  tokens, block = patches.shape[1:3]
  found = visual_tokenizer.tokenize_kept(
    patches,
    *_patch_weights(w),
    rule=plan.rule,
    capacity=plan.capacity,
    dtype=plan.compute.dtype,
    implementation=plan.compute.kernels.visual_tokenizer,
  )
  there = jnp.arange(plan.capacity) < found.valid
  frame = jnp.where(there, found.source // tokens + 1, 0)
  x = einops.rearrange(found.embeddings, "k m e -> 1 (k m) e")
  where = places[found.source % tokens].reshape(1, -1, 2)
  segments = jnp.repeat(frame, block)[None, None]
  c, compute = plan.config.vision, plan.compute
  x = vision.through_layers(w, x, where, (segments,), c, compute)
  index = jnp.where(there, jnp.arange(plan.capacity), plan.capacity)
  sizes = ((x.shape[1], _merge(block)),)
  features = vision.kept_tokens(w, x, index[None], sizes, c, compute)
  return features, Entry(
    features, found.source, found.valid, found.overflow, found.score, found.keep
  )


def _patch_weights(w: P.Params) -> tuple[jax.Array, jax.Array]:
  """Kernel and bias as plain arrays, adapters merged."""
  plain = linear.plain(w["patch"])
  return plain["kernel"], plain["bias"]


def _merge(block: int) -> int:
  """The side of a merge block of that many patches."""
  return round(block**0.5)
