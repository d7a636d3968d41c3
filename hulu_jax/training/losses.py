"""Losses as (sum, weight), apart, so that rows, microbatches and devices add up exactly."""

from collections.abc import Callable

import einops
import jax
import jax.numpy as jnp

from hulu_jax.core import context
from hulu_jax.core import sharding


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

  hidden: [batch, k, embed], k over context where the mesh has one, of which `chunk` then counts
  each device's share; targets: int [batch, k]; f gives [batch, positions], and so does this.
  At a vocabulary of 152,064 the float32 logits of 4,096 positions take 2.5 GB; without a chunk all
  are held at once.

  Raises:
    ValueError: positions that do not fall into whole chunks.
  """
  ways, tokens = context.ways(), sharding.spec(("batch", "seq"))
  if ways > 1:
    targets = jax.reshard(targets, tokens)
  positions = targets.shape[1] // ways
  if chunk is None or positions <= chunk:
    found = f(hidden, targets)
  else:
    found = _in_chunks(f, hidden, targets, positions, chunk)
  return found if ways == 1 else jax.reshard(found, sharding.spec(("batch", None)))


def _in_chunks(
  f: Callable[[jax.Array, jax.Array], jax.Array],
  hidden: jax.Array,
  targets: jax.Array,
  positions: int,
  chunk: int,
) -> jax.Array:
  """Every device cuts the `positions` of a row that it holds."""
  if positions % chunk:
    raise ValueError(f"{positions} supervised positions do not fall into chunks of {chunk}")

  def cut(x: jax.Array) -> jax.Array:
    return einops.rearrange(x, "b (n k) ... -> n b k ...", k=chunk)

  def join(found: jax.Array) -> jax.Array:
    return einops.rearrange(found, "n b k -> b (n k)")

  if context.ways() > 1:
    whole, parts = sharding.spec(("batch", "seq")), sharding.spec((None, "batch", "seq"))
    cut = jax.shard_map(cut, in_specs=whole, out_specs=parts)
    join = jax.shard_map(join, in_specs=parts, out_specs=whole)
  again = jax.checkpoint(f)
  return join(jax.lax.map(lambda part: again(*part), (cut(hidden), cut(targets))))


def by_source(values: jax.Array, source: jax.Array, number: int) -> jax.Array:
  """Sums values [batch, k] by dataset or modality: source int [batch, k] -> float32 [number]."""
  return jnp.stack([jnp.sum(jnp.where(source == n, values, 0.0)) for n in range(number)])
