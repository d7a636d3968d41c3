"""Every kernel of `hulu_jax/kernels`, as functions to compile at real widths or to check in small.

`OPERATIONS` has one entry a folder of `hulu_jax/kernels`; the compiled cases and the checked ones
come from the same place, so that what is proven to compile is also what is compared.
"""

from collections.abc import Callable, Iterator
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hulu_jax.kernels import choice
from hulu_jax.kernels.attention import api as attention_api
from hulu_jax.kernels.attention import mosaic_gpu
from hulu_jax.kernels.token_compaction import api as token_compaction
from hulu_jax.kernels.visual_tokenizer import api as visual_tokenizer
from hulu_jax.kernels.visual_tokenizer.rule import Rule

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
  """Kernels at real widths; platform: "cpu", "tpu" or "gpu", which says what is among them.

  "xla" is left out: it is plain `jax.numpy`, which XLA compiles anywhere.
  """
  for operation in OPERATIONS.values():
    yield from (case for case in operation(platform, REAL) if " xla " not in case.name)


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


class Entry(NamedTuple):
  """One volume or clip, uint8 [frames, tokens, merge * merge, values]; room for `capacity` tokens;
  compared with the last kept version of a token or the previous frame; dtype of embeddings."""

  shape: tuple[int, int, int, int]
  capacity: int
  last_kept: bool
  dtype: Any


class Features(NamedTuple):
  """What the encoder gave: rows of the groups `sizes` (patches a row, merge), of whose visual
  tokens `kept` are gathered."""

  rows: int
  sizes: tuple[tuple[int, int], ...]
  kept: int
  dtype: Any


class Sizes(NamedTuple):
  """embed: width of the encoder; attention: slots of the encoder (not causal), packed rows of
  decoders; entries and features: of the visual tokenizer and of token compaction."""

  embed: int
  attention: tuple[Attention, ...]
  entries: tuple[Entry, ...]
  features: tuple[Features, ...]


REAL = Sizes(
  embed=1152,
  attention=(
    Attention((1, 4, 4096), 16, 16, 72, False, jnp.bfloat16),
    Attention((1, 1, 1536), 16, 16, 72, False, jnp.bfloat16),
    Attention((1, 180, 324), 16, 16, 72, False, jnp.bfloat16),
    Attention((1, 16384), 28, 4, 128, True, jnp.bfloat16),
    Attention((1, 16384), 40, 8, 128, True, jnp.bfloat16),
  ),
  entries=(
    Entry((180, 81, 4, 196), 8192, False, jnp.bfloat16),
    Entry((60, 264, 4, 588), 8192, True, jnp.bfloat16),
    Entry((16, 324, 1, 196), 2048, True, jnp.float32),
    Entry((4, 1369, 1, 588), 2048, False, jnp.bfloat16),
  ),
  features=(
    Features(1, ((1024, 1), (26 * 4096, 2)), 16384, jnp.bfloat16),
    Features(1, ((4096, 1), (4096, 1), (1536, 1)), 16384, jnp.bfloat16),
    Features(1, ((58320, 2),), 8192, jnp.float32),
  ),
)
SMALL = Sizes(
  embed=128,
  attention=(
    Attention((2, 3, 81), 2, 2, 72, False, jnp.bfloat16),
    Attention((1, 2, 650), 4, 4, 72, False, jnp.float32),
    Attention((2, 300), 4, 2, 128, True, jnp.bfloat16),
    Attention((1, 1030), 4, 1, 128, True, jnp.float32),
  ),
  entries=(
    Entry((5, 21, 4, 196), 50, False, jnp.bfloat16),
    Entry((4, 17, 1, 588), 100, True, jnp.float32),
  ),
  features=(
    Features(2, ((18, 1), (48, 2)), 20, jnp.bfloat16),
    Features(1, ((60, 2),), 11, jnp.float32),
  ),
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
      if name.startswith("mosaic") and not _by_mosaic(name, size.dtype):
        continue
      f = _attend(name, size.causal)
      label = f"{operation} {name} {shape}"
      yield Case(f"{label}, forward", f, oracle, arguments, _segments, tolerance)
      f, both = with_gradient(f), with_gradient(oracle)
      yield Case(f"{label}, both ways", f, both, arguments, _segments, tolerance)


def _by_mosaic(name: str, dtype: Any) -> bool:
  """Whether this kernel takes the dtype, and this JAX can run it: 0.10 has no interpreter."""
  able = not name.endswith("_interpret") or jax.__version_info__ >= (0, 11)
  return able and jnp.dtype(dtype).name in mosaic_gpu.DTYPES


def _attend(name: str, causal: bool) -> Callable[..., jax.Array]:
  def attend(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    return attention_api.attention(q, k, v, segments, causal=causal, implementation=name)

  return attend


def _visual_tokenizer(platform: str, sizes: Sizes) -> Iterator[Case]:
  """Training's embedding, whole entries, and whole entries down to their kept tokens."""
  for entry in sizes.entries:
    frames, tokens, block, values = entry.shape
    kernel = jax.ShapeDtypeStruct((588, sizes.embed), jnp.float32)
    weights = (kernel, jax.ShapeDtypeStruct((sizes.embed,), jnp.float32))
    flat = jax.ShapeDtypeStruct((1, frames * tokens * block, values), jnp.uint8)
    whole = jax.ShapeDtypeStruct(entry.shape, jnp.uint8)
    # Random bytes differ by 85 on the mean, so about half of the tokens survive.
    rule = Rule(limit=85 * block * values, first_whole=True, last_kept=entry.last_kept)
    tolerance = 2e-2 if entry.dtype == jnp.bfloat16 else 1e-4
    shape = f"{list(entry.shape)}, {jnp.dtype(entry.dtype).name}"
    for name in implementations("visual_tokenizer", platform):
      for part, make, patches in (("embed", _embed, flat), ("tokenize", _tokenize, whole)):
        f, want = make(rule, entry.dtype, name), make(rule, jnp.float32, "reference")
        label, arguments = f"visual_tokenizer {name} {part} {shape}", (patches, *weights)
        yield Case(f"{label}, forward", f, want, arguments, _none, tolerance)
        f, want = with_gradient(_first(f)), with_gradient(_first(want))
        yield Case(f"{label}, both ways", f, want, arguments, _none, tolerance)
      f = _tokenize_kept(rule, entry.dtype, name, entry.capacity)
      want = _tokenize_kept(rule, jnp.float32, "reference", entry.capacity)
      label = f"visual_tokenizer {name} tokenize_kept {shape}"
      yield Case(f"{label}, forward", f, want, (whole, *weights), _none, tolerance)
      f, want = with_gradient(_first(f)), with_gradient(_first(want))
      yield Case(f"{label}, both ways", f, want, (whole, *weights), _none, tolerance)


def _none(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  raise AssertionError(f"no integers of shape {shape} were asked for")


def _first(f: Callable[..., Any]) -> Callable[..., jax.Array]:
  """The embeddings or tokens alone: the rest of a result is integers."""
  return lambda *arguments: jax.tree.leaves(f(*arguments))[0]


def _embed(rule: Rule, dtype: Any, name: str) -> Callable[..., Any]:
  del rule
  return functools.partial(visual_tokenizer.embed, dtype=dtype, implementation=name)


def _tokenize(rule: Rule, dtype: Any, name: str) -> Callable[..., Any]:
  return functools.partial(visual_tokenizer.tokenize, rule=rule, dtype=dtype, implementation=name)


def _tokenize_kept(rule: Rule, dtype: Any, name: str, capacity: int) -> Callable[..., Any]:
  return functools.partial(
    visual_tokenizer.tokenize_kept, rule=rule, capacity=capacity, dtype=dtype, implementation=name
  )


def _token_compaction(platform: str, sizes: Sizes) -> Iterator[Case]:
  for size in sizes.features:
    patches = sum(n for n, _ in size.sizes)
    pooled = sum(n // merge**2 for n, merge in size.sizes)
    x = jax.ShapeDtypeStruct((size.rows, patches, sizes.embed), size.dtype)
    index = jax.ShapeDtypeStruct((size.rows, size.kept), jnp.int32)
    norm = jax.ShapeDtypeStruct((sizes.embed,), jnp.float32)
    tolerance = 2e-2 if size.dtype == jnp.bfloat16 else 1e-4

    def draw(rng: np.random.Generator, shape: tuple[int, ...], pooled: int = pooled) -> np.ndarray:
      """Sorted, each once, then padding past the end."""
      rows = [
        np.sort(rng.choice(pooled, min(pooled, shape[1]) - 1, False)) for _ in range(shape[0])
      ]
      return np.stack([np.pad(r, (0, shape[1] - len(r)), constant_values=pooled) for r in rows])

    want = _compact(size, "reference")
    for name in implementations("token_compaction", platform):
      f = _compact(size, name)
      label = f"token_compaction {name} {size.sizes}, {size.kept}, {jnp.dtype(size.dtype).name}"
      arguments = (x, index, norm, norm)
      yield Case(f"{label}, forward", f, want, arguments, draw, tolerance)
      f, both = with_gradient(_first(f)), with_gradient(_first(want))
      yield Case(f"{label}, both ways", f, both, arguments, draw, tolerance)


def _compact(size: Features, name: str) -> Callable[..., Any]:
  return functools.partial(
    token_compaction.compact, sizes=size.sizes, eps=1e-6, capacity=size.kept, implementation=name
  )


OPERATIONS: dict[str, Callable[[str, Sizes], Iterator[Case]]] = {
  "attention": _attention,
  "visual_tokenizer": _visual_tokenizer,
  "token_compaction": _token_compaction,
}
