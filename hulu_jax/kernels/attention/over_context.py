"""Causal attention of rows that are dealt over `context`: keys and values are gathered first.

Every device has two chunks of queries of a row (`core.context`) and the same work: what an early
chunk does not see of the row, its late one does.  Keys and values have few heads, so gathering them
moves little beside what a layer computes; it is done again in backward where a layer is recomputed.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from hulu_jax.core import context
from hulu_jax.core import sharding
from hulu_jax.kernels.attention import api
from hulu_jax.kernels.attention import reference
from hulu_jax.kernels.attention import xla_later


def attention(
  q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, *, implementation: str
) -> jax.Array:
  """`api.attention` with causal=True of arrays that `context.deal` has dealt, and so is the result.

  Raises:
    ValueError: shapes that do not fit together, or an implementation that does not know context.
  """
  api.check(q, k, v, segments)
  tokens = ("batch", "seq")
  queries, keys = (*tokens, "heads", "head_dim"), (*tokens, "kv_heads", "head_dim")
  inputs = tuple(sharding.spec(axes) for axes in (queries, keys, keys, tokens))
  run: Callable[..., jax.Array]
  kernel, placed = None, None
  match implementation:
    case "reference":
      run = functools.partial(_by_chunks, reference.later)
    case "xla":
      run = functools.partial(_by_chunks, xla_later.attention)
    case "splash" | "splash_interpret":
      from hulu_jax.kernels.attention import pallas_tpu  # a second of import, for those who use it

      run = pallas_tpu.later
      kernel, placed = pallas_tpu.dealt(q.shape, implementation == "splash_interpret")
    case _:
      raise ValueError(
        f"no attention {implementation!r} on a mesh with context; there are: reference, splash, "
        "splash_interpret, xla"
      )
  devices = context.ways()

  def local(kernel, q, k, v, own):
    k, v, segments = (context.gathered(x, devices) for x in (k, v, own))
    return run(kernel, q, k, v, own, segments)

  return jax.shard_map(
    local,
    in_specs=(placed, *inputs),
    out_specs=inputs[0],
    check_vma=False,  # as in `sharding.per_shard`
  )(kernel, q, k, v, segments)


def _by_chunks(later, kernel, q, k, v, own, segments):
  """Two halves of consecutive tokens, each by `later`; both places are known at run time only."""
  del kernel
  devices = segments.shape[1] // own.shape[1]
  halves = zip(jnp.split(q, 2, axis=1), jnp.split(own, 2, axis=1), strict=True)
  places = [number * (q.shape[1] // 2) for number in context.chunks(devices)]
  return jnp.concatenate(
    [later(q, k, v, own, segments, at) for (q, own), at in zip(halves, places, strict=True)], axis=1
  )
