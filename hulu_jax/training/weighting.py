"""How much a supervised token counts: all alike, all conversations alike, or all datasets alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.data.schema import Batch
from hulu_jax.models import hulu
from hulu_jax.training import losses

NAMES = ("token", "sample", "dataset")


def factors(mixture: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
  """`loss_weight` of each entry of a mixture, 1 where it says none."""
  found = [entry.get("loss_weight") for entry in mixture]
  return tuple(1.0 if factor is None else float(factor) for factor in found)


def make(weighting: str, factors: tuple[float, ...]) -> Callable[[Batch], Batch]:
  """A batch to the same batch, its `loss_weights` those of the named weighting.

  "token": as they are; "sample": those of each conversation add up to 1; "dataset": those of each
  dataset that the batch has any of add up to 1.  Then those of dataset d are multiplied by
  factors[d].  The loss is their weighted mean, so only their proportions matter.

  Call it on a whole batch: what a dataset weighs is known only then, not in one of its microbatches
  or shards.

  Raises:
    ValueError: no weighting of that name.
  """
  if weighting not in NAMES:
    raise ValueError(f"loss_weighting = {weighting!r}; there are: {', '.join(NAMES)}")
  if weighting == "token" and set(factors) == {1.0}:
    return lambda batch: batch

  def weighed(batch: Batch) -> Batch:
    weights = batch.loss_weights
    source = hulu.take_rows(batch.source, batch.loss_index)
    if weighting == "sample":
      weights = weights / _of_samples(batch)
    if weighting == "dataset":
      weights = weights / _of_datasets(weights, source, len(factors))
    if set(factors) != {1.0}:
      weights = weights * _spread(factors, source)
    return batch._replace(loss_weights=weights)

  return weighed


def _of_samples(batch: Batch) -> jax.Array:
  """float32 [B, K]: at each supervised position the sum of its conversation's weights, 1 if none.

  A conversation lies in one row whole, so a row needs no other.
  """
  segments = hulu.take_rows(batch.segments, batch.loss_index)
  most = batch.tokens.shape[1] + 1  # segments of a row count from 1; 0 is padding

  def row(weights: jax.Array, segment: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(weights, segment, most)[segment]

  return _safe(jax.vmap(row)(batch.loss_weights, segments))


def _of_datasets(weights: jax.Array, source: jax.Array, number: int) -> jax.Array:
  """float32 [B, K]: at each position the sum of its dataset's weights in the batch, 1 if none."""
  return _safe(_spread(losses.by_source(weights, source, number), source))


def _spread(values: Any, source: jax.Array) -> jax.Array:
  """values by dataset, at the positions of source: int [B, K] -> float32 [B, K]."""
  return sum(
    (jnp.where(source == n, value, 0.0) for n, value in enumerate(values)),
    start=jnp.zeros(source.shape, jnp.float32),
  )


def _safe(divisor: jax.Array) -> jax.Array:
  return jnp.where(divisor > 0.0, divisor, 1.0)
