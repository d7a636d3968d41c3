"""Losses as (sum, weight), apart, so that rows, microbatches and devices add up exactly."""

from collections.abc import Callable
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp


class Settings(NamedTuple):
  """z: factor of the squared log of the softmax sum, which keeps logits from drifting (PaLM,
  section 5), 0 for none.  chunk: supervised positions of a row whose logits are in memory at once.
  """

  z: float
  chunk: int


def token_losses(logits: jax.Array, targets: jax.Array, z: float = 0.0) -> jax.Array:
  """Cross entropy per position.  logits: float32 [batch, k, vocab], targets: int [batch, k].

  The target's logit is picked by comparison, not by a gather: the vocabulary may be sharded, and
  compare-and-sum needs only an all-reduce.
  """
  hit = jnp.arange(logits.shape[-1]) == targets[..., None]
  sums = jax.nn.logsumexp(logits, axis=-1)
  return sums - jnp.sum(jnp.where(hit, logits, 0.0), axis=-1) + z * sums**2


def in_chunks(
  head: Callable[[jax.Array], jax.Array],
  hidden: jax.Array,
  targets: jax.Array,
  settings: Settings,
) -> jax.Array:
  """Cross entropy per position, without the logits of all of them: backward makes a chunk's again.

  head: hidden [batch, k, embed] -> float32 logits [batch, k, vocab]; targets: int [batch, k].
  """

  def losses(part: tuple[jax.Array, jax.Array]) -> jax.Array:
    own, wanted = part
    return token_losses(head(own), wanted, settings.z)

  k = targets.shape[1]
  if k <= settings.chunk:
    return losses((hidden, targets))
  extra = -k % settings.chunk
  hidden = jnp.pad(hidden, ((0, 0), (0, extra), (0, 0)))
  targets = jnp.pad(targets, ((0, 0), (0, extra)))
  cut = tuple(
    einops.rearrange(x, "b (n k) ... -> n b k ...", k=settings.chunk) for x in (hidden, targets)
  )
  found = jax.lax.map(jax.checkpoint(losses), cut)
  return einops.rearrange(found, "n b k -> b (n k)")[:, :k]


def by_source(values: jax.Array, source: jax.Array, number: int) -> jax.Array:
  """Sums values [batch, k] by dataset: source int [batch, k] -> float32 [number]."""
  return jnp.stack([jnp.sum(jnp.where(source == n, values, 0.0)) for n in range(number)])
