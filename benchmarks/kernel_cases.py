"""Every kernel of `hulu_jax/kernels`, as functions to compile at real widths or to check in small.

`OPERATIONS` has one entry a folder of `hulu_jax/kernels`; the compiled cases and the checked ones
come from the same place, so that what is proven to compile is also what is compared.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hulu_jax.kernels import choice
from hulu_jax.kernels.attention import api as attention_api

Integers = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


class Case(NamedTuple):
  """A kernel under one name: `function` of arrays, their shapes, and what it should give.

  oracle: the reference, for the same arguments in float32; integers: draws an int32 argument;
  tolerance: largest difference of any output, relative to the output's largest value.
  """

  name: str
  function: Callable[..., Any]
  oracle: Callable[..., Any]
  arguments: tuple[jax.ShapeDtypeStruct, ...]
  integers: Integers
  tolerance: float


def cases(platform: str) -> Iterator[Case]:
  """At real widths; platform: "cpu", "tpu" or "gpu", which alone says what is among them."""
  for operation in OPERATIONS.values():
    yield from operation(platform, REAL)


def small(platform: str) -> Iterator[Case]:
  """The same at sizes that a reference can follow, ragged ones and float32 among them."""
  for operation in OPERATIONS.values():
    yield from operation(platform, SMALL)


def values(case: Case, seed: int) -> tuple[jax.Array, ...]:
  """Arrays for a case: floats normal, bytes uniform, integers as the case draws them."""
  rng = np.random.default_rng(seed)

  def draw(x: jax.ShapeDtypeStruct) -> jax.Array:
    if x.dtype == jnp.uint8:
      return jnp.asarray(rng.integers(0, 256, x.shape, np.uint8))
    if jnp.issubdtype(x.dtype, jnp.integer):
      return jnp.asarray(case.integers(rng, x.shape).astype(x.dtype))
    return jnp.asarray(rng.normal(size=x.shape).astype(np.float32)).astype(x.dtype)

  return tuple(draw(x) for x in case.arguments)


def implementations(operation: str, platform: str) -> list[str]:
  """The names that run on a platform, without the reference, which is no kernel."""
  table = choice.RUNS_ON[operation]
  return [name for name, where in table.items() if platform in where and name != "reference"]


def with_gradient(f: Callable[..., jax.Array]) -> Callable[..., Any]:
  """(arguments) -> (value, its pull-back of itself to every floating argument)."""

  def both(*arguments: jax.Array) -> Any:
    floating = [jnp.issubdtype(a.dtype, jnp.floating) for a in arguments]

    def of_floats(*given: jax.Array) -> jax.Array:
      left = iter(given)
      return f(
        *[next(left) if is_float else a for a, is_float in zip(arguments, floating, strict=True)]
      )

    chosen = [a for a, is_float in zip(arguments, floating, strict=True) if is_float]
    out, back = jax.vjp(of_floats, *chosen)
    return out, back(out)

  return both


class Attention(NamedTuple):
  """(batch, ..., n), heads, kv_heads, head_dim, causal, dtype."""

  lead: tuple[int, ...]
  heads: int
  kv_heads: int
  width: int
  causal: bool
  dtype: Any


class Sizes(NamedTuple):
  """attention: slots of the encoder (not causal) and packed rows of decoders."""

  attention: tuple[Attention, ...]


REAL = Sizes(
  attention=(
    Attention((1, 4, 4096), 16, 16, 72, False, jnp.bfloat16),
    Attention((1, 1, 1536), 16, 16, 72, False, jnp.bfloat16),
    Attention((1, 180, 324), 16, 16, 72, False, jnp.bfloat16),
    Attention((1, 16384), 28, 4, 128, True, jnp.bfloat16),
    Attention((1, 16384), 40, 8, 128, True, jnp.bfloat16),
  )
)
SMALL = Sizes(
  attention=(
    Attention((2, 3, 81), 2, 2, 72, False, jnp.bfloat16),
    Attention((1, 2, 650), 4, 4, 72, False, jnp.float32),
    Attention((2, 300), 4, 2, 128, True, jnp.bfloat16),
    Attention((1, 1030), 4, 1, 128, True, jnp.float32),
  )
)


def _segments(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  """Some segments a row, numbered from 1, then a little padding; the last row is all padding where
  there are several."""
  out = np.zeros((np.prod(shape[:-1], dtype=int), shape[-1]), np.int32)
  for row in out[: max(1, len(out) - 1)]:
    real = shape[-1] - int(rng.integers(0, shape[-1] // 4))
    starts = rng.random(real) < 3 / real
    row[:real] = 1 + np.cumsum(starts)
  return out.reshape(shape)


def _attention(platform: str, sizes: Sizes) -> Iterator[Case]:
  for size in sizes.attention:
    operation = "decoder_attention" if size.causal else "encoder_attention"
    q = jax.ShapeDtypeStruct((*size.lead, size.heads, size.width), size.dtype)
    kv = jax.ShapeDtypeStruct((*size.lead, size.kv_heads, size.width), size.dtype)
    arguments = (q, kv, kv, jax.ShapeDtypeStruct(size.lead, jnp.int32))
    shape = f"{list(q.shape)}, {size.kv_heads} kv, {jnp.dtype(size.dtype).name}"
    # bfloat16 has 8 bits; a gradient is a difference of several such products.
    tolerance = 3e-2 if size.dtype == jnp.bfloat16 else 1e-3
    oracle = _attend("reference", size.causal)
    for name in implementations(operation, platform):
      f = _attend(name, size.causal)
      label = f"{operation} {name} {shape}"
      yield Case(f"{label}, forward", f, oracle, arguments, _segments, tolerance)
      f, both = with_gradient(f), with_gradient(oracle)
      yield Case(f"{label}, both ways", f, both, arguments, _segments, tolerance)


def _attend(name: str, causal: bool) -> Callable[..., jax.Array]:
  def attend(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    return attention_api.attention(q, k, v, segments, causal=causal, implementation=name)

  return attend


OPERATIONS: dict[str, Callable[[str, Sizes], Iterator[Case]]] = {"attention": _attention}
