"""One optimizer step, as a pure function of (state, batch)."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hulu_jax.core import tree
from hulu_jax.data.schema import MODALITIES
from hulu_jax.data.schema import Batch
from hulu_jax.models import decoder
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute
from hulu_jax.training import keeping
from hulu_jax.training import losses
from hulu_jax.training.keeping import Keeping
from hulu_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
# (trainable, frozen, batch) -> (sum of the weighted losses, further sums, all of them to be added)
LossFn = Callable[[Any, Any, Batch], tuple[jax.Array, Metrics]]


def make_loss(
  config: HuluConfig, merges: tuple[int, ...], compute: Compute, datasets: int, z: float
) -> LossFn:
  """The loss over supervised positions: a sum, with its weight and both by dataset beside it.

  z: factor of the squared logarithm of a position's softmax sum, see `losses.token_losses`.
  """

  def of_tokens(params: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def token_losses(hidden: jax.Array, targets: jax.Array) -> jax.Array:
      logits = decoder.logits(params["decoder"], hidden, config.decoder)
      return losses.token_losses(logits, targets, z)

    return token_losses

  def loss_fn(trainable: Any, frozen: Any, batch: Batch) -> tuple[jax.Array, Metrics]:
    params = tree.merge(trainable, frozen)
    hidden = hulu.supervised_hidden(params, batch, merges, config, compute)
    targets = hulu.take_rows(batch.targets, batch.loss_index)
    source = hulu.take_rows(batch.source, batch.loss_index)
    loss = losses.in_chunks(of_tokens(params), hidden, targets, compute.loss_chunk)
    loss = loss * batch.loss_weights
    visual, overflow = hulu.visual_counts(batch, merges)
    sums = {
      "visual_tokens": visual,
      "visual_overflow": overflow,
      "weight": jnp.sum(batch.loss_weights),
      "loss_by_dataset": losses.by_source(loss, source, datasets),
      "weight_by_dataset": losses.by_source(batch.loss_weights, source, datasets),
      "loss_by_modality": losses.by_source(loss, batch.loss_modality, len(MODALITIES)),
      "weight_by_modality": losses.by_source(
        batch.loss_weights, batch.loss_modality, len(MODALITIES)
      ),
    }
    return jnp.sum(loss), sums

  return loss_fn


def make_train_step(
  loss_fn: LossFn,
  optimizer: optax.GradientTransformation,
  accumulate: int,
  keep: Keeping = keeping.PLAIN,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """The step; only `trainable` is differentiated, so a frozen part costs no weight gradients.

  accumulate: microbatches that a batch's rows are dealt into, one after the other; sums of losses,
  weights and gradients are added up and divided once, so their number does not change the step.
  keep: how parameters and moments are kept until the next step; what happens here is float32.
  """
  gradient = _whole(loss_fn) if accumulate == 1 else _dealt(loss_fn, accumulate)

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    (loss, sums), grads = gradient(state.trainable, state.frozen, batch)
    grads, params = keeping.wide(grads), keeping.wide(state.trainable)
    updates, opt = optimizer.update(grads, keeping.wide(state.opt), params)
    metrics = {"loss": loss, **norms(grads), **sums}
    trainable = keep.params(optax.apply_updates(params, updates), state.step)
    new = dataclasses.replace(
      state,
      step=state.step + 1,
      trainable=trainable,
      opt=keep.moments(opt, state.step),
      ema=keep.average(state.ema, trainable),
    )
    return new, metrics

  return train_step


# (trainable, frozen, batch) -> ((mean loss, sums), its gradients)
_Gradient = Callable[[Any, Any, Batch], tuple[tuple[jax.Array, Metrics], Any]]


def _whole(loss_fn: LossFn) -> _Gradient:
  """Divides the loss: dividing its gradients would be one more pass over them."""

  def mean(trainable: Any, frozen: Any, batch: Batch) -> tuple[jax.Array, Metrics]:
    loss, sums = loss_fn(trainable, frozen, batch)
    return loss / _divisor(sums["weight"]), sums

  return jax.value_and_grad(mean, has_aux=True)


def _dealt(loss_fn: LossFn, accumulate: int) -> _Gradient:
  grad = jax.value_and_grad(loss_fn, has_aux=True)

  def gradient(trainable: Any, frozen: Any, batch: Batch) -> tuple[tuple[jax.Array, Metrics], Any]:
    def add(so_far: Any, micro: Batch) -> tuple[Any, None]:
      return jax.tree.map(jnp.add, so_far, grad(trainable, frozen, micro)), None

    # Each device deals its own rows: nothing moves.
    micros = jax.tree.map(lambda x: _deal(x, accumulate), batch)
    like, _ = jax.eval_shape(grad, trainable, frozen, jax.tree.map(lambda x: x[0], micros))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    # Float32 sums, whatever a microbatch's gradients are.
    no_grads = jax.tree.map(jnp.zeros_like, keeping.wide(trainable))
    ((loss, sums), grads), _ = jax.lax.scan(add, (nothing, no_grads), micros)
    weight = _divisor(sums["weight"])
    return (loss / weight, sums), jax.tree.map(lambda g: g / weight, grads)

  return gradient


def _deal(x: jax.Array, accumulate: int) -> jax.Array:
  """[rows, ...] -> [accumulate, rows / accumulate, ...]; a shape without media has no length."""
  return x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1)


def _divisor(weight: jax.Array) -> jax.Array:
  """What a sum of losses is divided by: its weight, and 1 where nothing was supervised."""
  return jnp.where(weight > 0.0, weight, 1.0)


def norms(grads: Any) -> Metrics:
  """`grad_norm` of all, and `grad_norm/MODULE` of each part that trains."""
  trains = {name: part for name, part in grads.items() if jax.tree.leaves(part)}
  own = {f"grad_norm/{name}": optax.tree.norm(part) for name, part in trains.items()}
  return {"grad_norm": optax.tree.norm(grads), **own}
