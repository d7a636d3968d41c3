"""Every kernel of `hulu_jax/kernels` at its real widths, as functions to compile or to run."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hulu_jax.kernels import choice
from hulu_jax.kernels.attention import api as attention_api


class Case(NamedTuple):
  """A kernel under one name: a function of arrays, and their shapes."""

  name: str
  function: Callable[..., Any]
  arguments: tuple[jax.ShapeDtypeStruct, ...]


def cases(platform: str) -> Iterator[Case]:
  """Everything but the references, which are no kernels; platform: "cpu", "tpu" or "gpu"."""
  for operation in OPERATIONS.values():
    yield from operation(platform)


def implementations(operation: str, platform: str) -> list[str]:
  """The names that run on a platform, without the reference."""
  table = choice.RUNS_ON[operation]
  return [name for name, where in table.items() if platform in where and name != "reference"]


def with_gradient(f: Callable[..., jax.Array]) -> Callable[..., Any]:
  """(arguments) -> (value, gradients by every floating argument of the sum of squares)."""

  def both(*arguments: jax.Array) -> Any:
    floating = [i for i, a in enumerate(arguments) if jnp.issubdtype(a.dtype, jnp.floating)]

    def loss(*arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
      out = f(*arguments)
      return jnp.sum(jnp.square(out.astype(jnp.float32))), out

    return jax.value_and_grad(loss, floating, has_aux=True)(*arguments)

  return both


def _attention(platform: str) -> Iterator[Case]:
  """Slots of the encoder (head_dim 72), packed rows of the 7B and 32B decoders (128, grouped)."""
  shapes = {
    # (batch, ..., n), heads, kv_heads, head_dim, causal
    "encoder_attention 4 x 4096": ((1, 4, 4096), 16, 16, 72, False),
    "encoder_attention 1 x 1536": ((1, 1, 1536), 16, 16, 72, False),
    "encoder_attention 180 x 324": ((1, 180, 324), 16, 16, 72, False),
    "decoder_attention 16384, 28/4": ((1, 16384), 28, 4, 128, True),
    "decoder_attention 16384, 40/8": ((1, 16384), 40, 8, 128, True),
  }
  for label, (lead, heads, kv_heads, width, causal) in shapes.items():
    for name in implementations(label.split()[0], platform):

      def attend(q, k, v, segments, causal=causal, name=name):
        return attention_api.attention(q, k, v, segments, causal=causal, implementation=name)

      q = jax.ShapeDtypeStruct((*lead, heads, width), jnp.bfloat16)
      kv = jax.ShapeDtypeStruct((*lead, kv_heads, width), jnp.bfloat16)
      segments = jax.ShapeDtypeStruct(lead, jnp.int32)
      arguments = (q, kv, kv, segments)
      yield Case(f"{label} {name}, forward", attend, arguments)
      yield Case(f"{label} {name}, with gradient", with_gradient(attend), arguments)


# One entry a folder of `hulu_jax/kernels`.
OPERATIONS: dict[str, Callable[[str], Iterator[Case]]] = {"attention": _attention}
