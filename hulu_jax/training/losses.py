"""Losses as (sum, weight), apart, so that rows, microbatches and devices add up exactly."""

from collections.abc import Callable

import einops
import jax
import jax.numpy as jnp


def token_losses(logits: jax.Array, targets: jax.Array, z: float) -> jax.Array:
  """Cross entropy per position, and `z` times the square of the logarithm of its softmax sum, which
  keeps logits from drifting (PaLM, section 5).

  logits: float32 [batch, k, vocab], targets: int [batch, k].

  The target's logit is picked by comparison, not by a gather: the vocabulary may be sharded, and
  compare-and-sum needs only an all-reduce.
  """
  hit = jnp.arange(logits.shape[-1]) == targets[..., None]
  total = jax.nn.logsumexp(logits, axis=-1)
  return total - jnp.sum(jnp.where(hit, logits, 0.0), axis=-1) + z * total**2


def in_chunks(
  f: Callable[[jax.Array, jax.Array], jax.Array],
  hidden: jax.Array,
  targets: jax.Array,
  chunk: int | None,
) -> jax.Array:
  """f(hidden, targets) over `chunk` positions at a time; backward makes their logits again.

  hidden: [batch, k, embed]; targets: int [batch, k]; f gives [batch, positions], and so does this.
  At a vocabulary of 152,064 the float32 logits of 4,096 positions take 2.5 GB; without a chunk all
  are held at once.

  Raises:
    ValueError: positions that do not fall into whole chunks.
  """
  positions = targets.shape[1]
  if chunk is None or positions <= chunk:
    return f(hidden, targets)
  if positions % chunk:
    raise ValueError(f"{positions} supervised positions do not fall into chunks of {chunk}")
  parts = (
    einops.rearrange(hidden, "b (n k) e -> n b k e", k=chunk),
    einops.rearrange(targets, "b (n k) -> n b k", k=chunk),
  )
  again = jax.checkpoint(f)
  found = jax.lax.map(lambda part: again(*part), parts)
  return einops.rearrange(found, "n b k -> b (n k)")


def by_source(values: jax.Array, source: jax.Array, number: int) -> jax.Array:
  """Sums values [batch, k] by dataset or modality: source int [batch, k] -> float32 [number]."""
  return jnp.stack([jnp.sum(jnp.where(source == n, values, 0.0)) for n in range(number)])
