"""The whole model: packed conversations and their pictures to hidden states and logits."""

from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.core import context
from hulu_jax.core import params as P
from hulu_jax.kernels.token_compaction.reference import Sizes
from hulu_jax.models import attention
from hulu_jax.models import decoder
from hulu_jax.models import projector
from hulu_jax.models import vision
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute

Batch = Any  # a `data.schema.Batch`; models never import data


def specs(c: HuluConfig) -> P.Specs:
  """Every parameter of the model: vision, projector, decoder."""
  return {
    "vision": vision.specs(c.vision),
    "projector": projector.specs(c),
    "decoder": decoder.specs(c.decoder),
  }


def take_rows(x: jax.Array, index: jax.Array) -> jax.Array:
  """Row-wise gather: x [batch, n, ...], index int [batch, k] -> [batch, k, ...].

  An index past the end gives zeros.  Each row gathers from itself: nothing leaves its data shard.
  """
  return jax.vmap(lambda row, i: row.at[i].get(mode="fill", fill_value=0))(x, index)


def visual_tokens(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """The batch's kept visual tokens, projected: [batch, V, embed] (see `data.schema.Batch`).

  Raises:
    ValueError: `merges` that are not one per patch group.
  """
  groups = (batch.patches, batch.patch_segment, batch.patch_hw)
  x = vision.encode(w["vision"], *groups, c.vision, compute)
  sizes = _sizes(batch.patch_segment, merges)
  kept = vision.kept_tokens(w["vision"], x, batch.visual_source, sizes, c.vision, compute)
  return projector.forward(w["projector"], kept)


def visual_in_place(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """What `visual_tokens` gives, where the row's tokens lie over context: [batch, L, embed].

  Each device encodes its share of the slots, and every token looks up its features before they are
  projected.  Where no visual token goes there is what the projector makes of zeros.
  """
  segments = tuple(context.part(s) for s in batch.patch_segment)
  patches, hw = ([context.part(x) for x in g] for g in (batch.patches, batch.patch_hw))
  x = vision.encode(w["vision"], tuple(patches), segments, tuple(hw), c.vision, compute)
  x = vision.pooled_tokens(w["vision"], x, _sizes(segments, merges), c.vision, compute)
  pooled = tuple(patches // m**2 for patches, m in _sizes(batch.patch_segment, merges))
  is_visual = batch.visual_slot < batch.visual_source.shape[1]
  index = take_rows(batch.visual_source, batch.visual_slot)
  index = context.deal(jnp.where(is_visual, index, sum(pooled)))
  return projector.forward(w["projector"], context.look_up(x, index, pooled))


def _sizes(segments: tuple[jax.Array, ...], merges: tuple[int, ...]) -> Sizes:
  if len(merges) != len(segments):
    raise ValueError(f"merges {merges} for a batch of {len(segments)} patch groups")
  return tuple((s.shape[1] * s.shape[2], m) for s, m in zip(segments, merges, strict=True))


def visual_counts(batch: Batch, merges: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
  """Visual tokens that the encoder gives the batch, and places in its text that get none: int32.

  The second is 0 unless the kept tokens of a row overflowed its V.
  """
  groups = zip(batch.patch_segment, merges, strict=True)
  pooled = sum(s.shape[1] * s.shape[2] // m**2 for s, m in groups)
  given = jnp.sum(batch.visual_source < pooled, axis=1, dtype=jnp.int32)
  is_visual = (batch.visual_slot < batch.visual_source.shape[1]) & (batch.segments > 0)
  wanted = jnp.sum(is_visual, axis=1, dtype=jnp.int32)
  return jnp.sum(given), jnp.sum(jnp.maximum(wanted - given, 0))


def embed(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """Token embeddings with the visual tokens in their places: [batch, L, embed], dealt over context
  where the mesh has one."""
  x = decoder.embed(w["decoder"], context.deal(batch.tokens), compute)
  if not batch.patches:
    return x
  if context.ways() > 1:
    is_visual = context.deal(batch.visual_slot) < batch.visual_source.shape[1]
    seen = visual_in_place(w, batch, merges, c, compute)
    return jnp.where(is_visual[..., None], seen, x)
  seen = visual_tokens(w, batch, merges, c, compute)
  is_visual = batch.visual_slot < seen.shape[1]
  return jnp.where(is_visual[..., None], take_rows(seen, batch.visual_slot), x)


def forward(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """Hidden states of every position: [batch, L, embed], dealt over context (`context.deal`).

  batch: a `data.schema.Batch` of arrays; merges: the merge size of each of its patch groups.
  """
  segments = context.deal(batch.segments)

  def attend(q, k, v, cache):
    name = compute.kernels.decoder_attention
    return attention.in_rows(q, k, v, segments, name), cache

  x = embed(w, batch, merges, c, compute)
  positions = context.deal(batch.positions)
  return decoder.forward(w["decoder"], x, positions, attend, None, c.decoder, compute)[0]


def logits(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """float32 [batch, L, vocab]: for short batches; training uses `supervised_hidden`."""
  hidden = forward(w, batch, merges, c, compute)
  return context.whole(decoder.logits(w["decoder"], hidden, c.decoder))


def supervised_hidden(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """Hidden states at `batch.loss_index`, [batch, K, embed], K over context where the mesh has one:
  the head never sees other positions."""
  take = take_rows if context.ways() == 1 else context.take
  return take(forward(w, batch, merges, c, compute), batch.loss_index)


def supervised_logits(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """float32 [batch, K, vocab] at `batch.loss_index`."""
  return decoder.logits(w["decoder"], supervised_hidden(w, batch, merges, c, compute), c.decoder)
