"""Losses as (sum, weight), apart, so that rows, microbatches and devices add up exactly."""

import jax
import jax.numpy as jnp


def token_losses(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Cross entropy per position.  logits: float32 [batch, k, vocab], targets: int [batch, k].

  The target's logit is picked by comparison, not by a gather: the vocabulary may be sharded, and
  compare-and-sum needs only an all-reduce.
  """
  hit = jnp.arange(logits.shape[-1]) == targets[..., None]
  return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)


def by_source(values: jax.Array, source: jax.Array, number: int) -> jax.Array:
  """Sums values [batch, k] by dataset: source int [batch, k] -> float32 [number]."""
  return jnp.stack([jnp.sum(jnp.where(source == n, values, 0.0)) for n in range(number)])
