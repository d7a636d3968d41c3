"""From prompts to answers: one prefill, then one token per row and step, in one program."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hulu_jax.core import context
from hulu_jax.core import params as P
from hulu_jax.data.schema import Batch
from hulu_jax.inference import cache as cache_lib
from hulu_jax.inference import sample
from hulu_jax.inference.cache import Cache
from hulu_jax.inference.sample import Sampling
from hulu_jax.models import attention
from hulu_jax.models import decoder
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What a generation program is compiled for.

  merges: of the batch's patch groups; eos: ids that end an answer; new_tokens: at most.
  """

  config: HuluConfig
  compute: Compute
  merges: tuple[int, ...]
  eos: tuple[int, ...]
  new_tokens: int
  sampling: Sampling


class _Loop(NamedTuple):
  """step: tokens so far; token: the last per row; answers: int32 [batch, new], eos-padded."""

  step: jax.Array
  token: jax.Array
  done: jax.Array
  answers: jax.Array
  cache: Cache
  key: jax.Array


def prefill(
  w: P.Params, batch: Batch, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> tuple[jax.Array, Cache]:
  """One prompt per row -> (hidden [batch, L, embed], the cache of its L positions).

  Raises:
    ValueError: a mesh that deals rows over context.
  """
  if context.ways() > 1:
    raise ValueError(
      f"generation on a mesh with context = {context.ways()}; a cache keeps rows whole: use "
      "`core.sharding.without_context` of the mesh, and `moved` for the parameters"
    )

  def attend(q, k, v, _):
    name = compute.kernels.decoder_attention
    return attention.in_rows(q, k, v, batch.segments, name), Cache(k, v)

  x = hulu.embed(w, batch, merges, c, compute)
  return decoder.forward(w["decoder"], x, batch.positions, attend, None, c.decoder, compute)


def decode(
  w: P.Params, token: jax.Array, positions: jax.Array, cache: Cache, c: HuluConfig, compute: Compute
) -> tuple[jax.Array, Cache]:
  """One token per row, int [batch] at `positions` [batch] -> (logits [batch, vocab], cache)."""

  def attend(q, k, v, own):
    own = cache_lib.write(own, k, v, positions)
    return cache_lib.attend(q, own, positions), own

  x = decoder.embed(w["decoder"], token[:, None], compute)
  x, cache = decoder.forward(w["decoder"], x, positions[:, None], attend, cache, c.decoder, compute)
  return decoder.logits(w["decoder"], x, c.decoder)[:, 0], cache


@jax.jit(static_argnames="plan")
def generate(w: P.Params, batch: Batch, key: jax.Array, plan: Plan) -> jax.Array:
  """Answers, int32 [batch, new_tokens]; after a row's first eos it is all eos[0].

  batch: one prompt per row, from position 0.  Stops early once every row is done.
  """
  c, compute, eos, new_tokens = plan.config, plan.compute, plan.eos, plan.new_tokens
  lengths = jnp.sum(batch.segments > 0, axis=1)
  hidden, cache = prefill(w, batch, plan.merges, c, compute)
  last = hulu.take_rows(hidden, jnp.maximum(lengths - 1, 0)[:, None])
  key, own = jax.random.split(key)
  token = sample.choose(own, decoder.logits(w["decoder"], last, c.decoder)[:, 0], plan.sampling)
  start = _Loop(
    step=jnp.ones((), jnp.int32),
    token=token,
    done=_is_eos(token, eos) | (lengths == 0),
    answers=jnp.where(jnp.arange(new_tokens) == 0, token[:, None], eos[0]),
    cache=cache_lib.pad(cache, batch.tokens.shape[1] + new_tokens),
    key=key,
  )

  def more(loop: _Loop) -> jax.Array:
    return (loop.step < new_tokens) & ~jnp.all(loop.done)

  def one(loop: _Loop) -> _Loop:
    logits, cache = decode(w, loop.token, lengths + loop.step - 1, loop.cache, c, compute)
    key, own = jax.random.split(loop.key)
    token = jnp.where(loop.done, eos[0], sample.choose(own, logits, plan.sampling))
    here = jnp.arange(new_tokens) == loop.step
    answers = jnp.where(here, token[:, None], loop.answers)
    done = loop.done | _is_eos(token, eos)
    return _Loop(loop.step + 1, token, done, answers, cache, key)

  return jax.lax.while_loop(more, one, start).answers


def _is_eos(token: jax.Array, eos: tuple[int, ...]) -> jax.Array:
  return functools.reduce(jnp.logical_or, [token == e for e in eos])
