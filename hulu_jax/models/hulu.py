"""The whole model: packed conversations and their pictures to hidden states and logits."""

from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.core import params as P
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
  if len(merges) != len(batch.patches):
    raise ValueError(f"merges {merges} for a batch of {len(batch.patches)} patch groups")
  x = vision.encode(
    w["vision"], batch.patches, batch.patch_segment, batch.patch_hw, c.vision, compute
  )
  sizes = tuple(
    (s.shape[1] * s.shape[2], m) for s, m in zip(batch.patch_segment, merges, strict=True)
  )
  kept = vision.kept_tokens(w["vision"], x, batch.visual_source, sizes, c.vision, compute)
  return projector.forward(w["projector"], kept)


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
  """Token embeddings with the visual tokens in their places: [batch, L, embed]."""
  x = decoder.embed(w["decoder"], batch.tokens, compute)
  if not batch.patches:
    return x
  seen = visual_tokens(w, batch, merges, c, compute)
  is_visual = batch.visual_slot < seen.shape[1]
  return jnp.where(is_visual[..., None], take_rows(seen, batch.visual_slot), x)


def forward(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """Hidden states of every position: [batch, L, embed].

  batch: a `data.schema.Batch` of arrays; merges: the merge size of each of its patch groups.
  """

  def attend(q, k, v, cache):
    name = compute.kernels.decoder_attention
    return attention.in_rows(q, k, v, batch.segments, name), cache

  x = embed(w, batch, merges, c, compute)
  return decoder.forward(w["decoder"], x, batch.positions, attend, None, c.decoder, compute)[0]


def logits(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """float32 [batch, L, vocab]: for short batches; training uses `supervised_hidden`."""
  return decoder.logits(w["decoder"], forward(w, batch, merges, c, compute), c.decoder)


def supervised_hidden(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """Hidden states at `batch.loss_index`, [batch, K, embed]: the head never sees other positions."""
  return take_rows(forward(w, batch, merges, c, compute), batch.loss_index)


def supervised_logits(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  """float32 [batch, K, vocab] at `batch.loss_index`."""
  return decoder.logits(w["decoder"], supervised_hidden(w, batch, merges, c, compute), c.decoder)
