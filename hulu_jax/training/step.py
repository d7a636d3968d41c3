"""One optimizer step, as a pure function of (state, batch)."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hulu_jax.core import tree
from hulu_jax.data.schema import Batch
from hulu_jax.models import decoder
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute
from hulu_jax.training import losses
from hulu_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def make_loss(
  config: HuluConfig, merges: tuple[int, ...], compute: Compute, datasets: int
) -> Callable[[Any, Any, Batch], tuple[jax.Array, Metrics]]:
  """(trainable, frozen, batch) -> (mean loss over supervised positions, sums by dataset)."""

  def of_tokens(params: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def token_losses(hidden: jax.Array, targets: jax.Array) -> jax.Array:
      logits = decoder.logits(params["decoder"], hidden, config.decoder)
      return losses.token_losses(logits, targets)

    return token_losses

  def loss_fn(trainable: Any, frozen: Any, batch: Batch) -> tuple[jax.Array, Metrics]:
    params = tree.merge(trainable, frozen)
    hidden = hulu.supervised_hidden(params, batch, merges, config, compute)
    targets = hulu.take_rows(batch.targets, batch.loss_index)
    source = hulu.take_rows(batch.source, batch.loss_index)
    loss = losses.in_chunks(of_tokens(params), hidden, targets, compute.loss_chunk)
    loss = loss * batch.loss_weights
    total, weight = jnp.sum(loss), jnp.sum(batch.loss_weights)
    visual, overflow = hulu.visual_counts(batch, merges)
    sums = {
      "visual_tokens": visual,
      "visual_overflow": overflow,
      "weight": weight,
      "loss_by_dataset": losses.by_source(loss, source, datasets),
      "weight_by_dataset": losses.by_source(batch.loss_weights, source, datasets),
    }
    return total / jnp.maximum(weight, 1.0), sums

  return loss_fn


def make_train_step(
  loss_fn: Callable[[Any, Any, Batch], tuple[jax.Array, Metrics]],
  optimizer: optax.GradientTransformation,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """The step; only `trainable` is differentiated, so a frozen part costs no weight gradients."""

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    grad = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, sums), grads = grad(state.trainable, state.frozen, batch)
    updates, opt = optimizer.update(grads, state.opt, state.trainable)
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), **sums}
    trainable = optax.apply_updates(state.trainable, updates)
    return dataclasses.replace(state, step=state.step + 1, trainable=trainable, opt=opt), metrics

  return train_step
