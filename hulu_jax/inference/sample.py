"""Choosing the next token: the likeliest, or a draw under temperature and top-p."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """temperature 0 is greedy; top_p keeps the smallest set of tokens with at least that mass."""

  temperature: float
  top_p: float

  def __post_init__(self) -> None:
    if self.temperature < 0 or not 0 < self.top_p <= 1:
      raise ValueError(f"temperature {self.temperature} must be >= 0, top_p {self.top_p} in (0, 1]")


GREEDY = Sampling(temperature=0.0, top_p=1.0)


def choose(key: jax.Array, logits: jax.Array, sampling: Sampling) -> jax.Array:
  """logits float32 [batch, vocab] -> token ids int32 [batch]."""
  if sampling.temperature == 0:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  logits = logits / sampling.temperature
  if sampling.top_p < 1:
    ranked = jnp.sort(logits, axis=-1, descending=True)
    mass = jnp.cumsum(jax.nn.softmax(ranked, axis=-1), axis=-1)
    # The last token needed to reach the mass: those before it hold less.
    last = jnp.sum(mass < sampling.top_p, axis=-1, keepdims=True)
    floor = jnp.take_along_axis(ranked, last, axis=-1)
    logits = jnp.where(logits < floor, -jnp.inf, logits)
  return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)
