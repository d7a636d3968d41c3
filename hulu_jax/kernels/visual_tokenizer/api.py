"""The visual tokenizer by implementation: the caller names one, and bad input raises here.

`embed` is the part that training uses, on patch groups; `tokenize` and `tokenize_kept` take one
whole entry (a picture, volume, phase or clip) and also decide which of its visual tokens survive.
"""

import functools
from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp

from hulu_jax.kernels import names
from hulu_jax.kernels.visual_tokenizer import pallas_gpu
from hulu_jax.kernels.visual_tokenizer import pallas_tpu
from hulu_jax.kernels.visual_tokenizer import pallas_tpu_entry
from hulu_jax.kernels.visual_tokenizer import pallas_tpu_prune
from hulu_jax.kernels.visual_tokenizer import reference
from hulu_jax.kernels.visual_tokenizer.rule import Rule

DTYPES = (jnp.float32, jnp.bfloat16)


class Tokenized(NamedTuple):
  """embeddings: [T, N, m * m, embed]; score: int32 [T, N], sum of absolute differences to the
  version compared with, 0 in the first frame; keep: bool [T, N]; place: int32 [T, N], tokens kept
  before this one; total: int32, kept in all."""

  embeddings: jax.Array
  score: jax.Array
  keep: jax.Array
  place: jax.Array
  total: jax.Array


class Kept(NamedTuple):
  """embeddings: [capacity, m * m, embed] of kept tokens in order, 0 past the last; source: int32
  [capacity], which token each is (t * N + n), T * N past the last; valid: int32, how many are
  there; overflow: int32, kept tokens for which there was no room; score, keep, place: as in
  `Tokenized`."""

  embeddings: jax.Array
  source: jax.Array
  valid: jax.Array
  overflow: jax.Array
  score: jax.Array
  keep: jax.Array
  place: jax.Array


def embed(
  patches: jax.Array, kernel: Any, bias: jax.Array, *, dtype: Any, implementation: str
) -> jax.Array:
  """uint8 [batch, seq, values] -> embeddings [batch, seq, embed] in `dtype`.

  kernel: [values, embed], or [3 * values, embed] for grey patches, whose channels are equal: it is
  then summed over them.  bias: [embed].  Products of `dtype` are added in float32.

  Raises:
    ValueError, TypeError: shapes or types that do not fit, or an unknown implementation.
  """
  _check(implementation, dtype)
  _check_bytes(patches, 3, "[batch, seq, values]")
  if implementation == "reference":
    return reference.embed(patches, folded(kernel, patches.shape[-1]), bias, dtype=dtype)
  kernel, bias = _weights(kernel, bias, patches.shape[-1], dtype)
  if not patches.size:
    return jnp.zeros((*patches.shape[:2], kernel.shape[1]), dtype)
  rows = _embed(patches.reshape(-1, patches.shape[-1]), kernel, bias, implementation)
  return rows.reshape(*patches.shape[:2], -1)


def tokenize(
  patches: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  *,
  rule: Rule,
  dtype: Any,
  implementation: str,
) -> Tokenized:
  """One whole entry, uint8 [T, N, m * m, values]; kernel, bias, dtype: as for `embed`.

  Raises:
    ValueError, TypeError: as `embed`.
  """
  patches, kernel, bias, limit = _entry(patches, kernel, bias, rule, dtype, implementation)
  frames, tokens, block, _ = patches.shape
  if not frames:
    return _no_frames(patches, kernel)
  found = _tokenize(patches, kernel, bias, limit, _static(rule), implementation)
  embeddings, score, keep, place = found
  embeddings = embeddings.reshape(frames, tokens, block, -1)
  return Tokenized(embeddings, score, keep, place, place[-1, -1] + keep[-1, -1])


def tokenize_kept(
  patches: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  *,
  rule: Rule,
  capacity: int,
  dtype: Any,
  implementation: str,
) -> Kept:
  """From the bytes of one whole entry to the embeddings of its kept tokens, for `prune="before"`.

  capacity: tokens that there is room for.  The rest: as `tokenize`.

  Raises:
    ValueError, TypeError: as `embed`, or a capacity below 1.
  """
  if capacity < 1:
    raise ValueError(f"capacity {capacity}; expected at least 1")
  patches, kernel, bias, limit = _entry(patches, kernel, bias, rule, dtype, implementation)
  frames, tokens, block, _ = patches.shape
  if not frames:
    none = _no_frames(patches, kernel)
    embeddings = jnp.zeros((capacity, block, kernel.shape[1]), kernel.dtype)
    index = jnp.zeros(capacity, jnp.int32)
    return Kept(embeddings, index, none.total, none.total, none.score, none.keep, none.place)
  static = (*_static(rule), capacity)
  found = _kept(patches, kernel, bias, limit, static, implementation)
  embeddings, index, score, keep, place = found
  count = place[-1, -1] + keep[-1, -1]
  valid = jnp.minimum(count, capacity)
  embeddings = embeddings.reshape(capacity, block, -1)
  return Kept(embeddings, index, valid, count - valid, score, keep, place)


def folded(kernel: Any, values: int) -> Any:
  """The kernel for patches of `values` bytes: summed over channels where patches are grey.

  Raises:
    ValueError: a kernel for patches of another size.
  """
  if kernel.shape[0] == values:
    return kernel
  if kernel.shape[0] != 3 * values:
    raise ValueError(
      f"patches of {values} bytes for a kernel of {kernel.shape[0]} rows; expected "
      f"{kernel.shape[0]}, or {kernel.shape[0] / 3:g} of a grey patch"
    )
  return einops.reduce(kernel, "(c p) e -> p e", "sum", c=3)


def _static(rule: Rule) -> tuple[bool, bool]:
  return rule.first_whole, rule.last_kept


def _no_frames(patches: jax.Array, kernel: jax.Array) -> Tokenized:
  none = jnp.zeros(patches.shape[:2], jnp.int32)
  embeddings = jnp.zeros((*patches.shape[:3], kernel.shape[1]), kernel.dtype)
  return Tokenized(embeddings, none, none.astype(bool), none, jnp.zeros((), jnp.int32))


def _check(implementation: str, dtype: Any) -> None:
  if implementation not in names.PALLAS:
    known = ", ".join(names.PALLAS)
    raise ValueError(f"visual_tokenizer has no implementation {implementation!r}; it has: {known}")
  if jnp.dtype(dtype) not in [jnp.dtype(d) for d in DTYPES]:
    raise TypeError(
      f"embeddings of {jnp.dtype(dtype).name}; every implementation gives float32 or bfloat16"
    )


def _check_bytes(patches: jax.Array, axes: int, meaning: str) -> None:
  if patches.dtype != jnp.uint8:
    raise TypeError(f"patches are {patches.dtype}; every implementation takes uint8")
  if patches.ndim != axes:
    raise ValueError(f"patches {patches.shape}; expected {meaning}")


def _weights(kernel: Any, bias: jax.Array, values: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
  """For a Pallas kernel: folded, in `dtype`, the bias float32 [1, embed]."""
  if not isinstance(kernel, jax.Array):
    raise TypeError(
      f"a patch kernel of type {type(kernel).__name__}; Pallas kernels take arrays, implementation "
      "'reference' takes every kind of weight"
    )
  kernel = folded(kernel, values)
  if bias.shape != kernel.shape[1:]:
    raise ValueError(f"bias {bias.shape} for a kernel {kernel.shape}")
  return kernel.astype(dtype), bias.astype(dtype).astype(jnp.float32)[None]


def _entry(
  patches: jax.Array, kernel: Any, bias: jax.Array, rule: Rule, dtype: Any, implementation: str
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Everything checked: patches, weights as `_weights` gives them, the limit as int32 [1]."""
  _check(implementation, dtype)
  _check_bytes(patches, 4, "[frames, tokens, merge * merge, values]")
  frames, tokens, block, values = patches.shape
  if not tokens or not block or not values:
    raise ValueError(f"patches {patches.shape}; a frame has at least one visual token")
  if frames * tokens >= 2**24 or values * 255 >= 2**24:
    raise ValueError(
      f"patches {patches.shape}; every implementation counts below {2**24} tokens, and below it in "
      "the change of one patch"
    )
  limit = jnp.asarray(rule.limit, jnp.int32).reshape(1)
  return patches, *_weights(kernel, bias, values, dtype), limit


def _interpret(implementation: str) -> bool:
  return implementation.endswith("_interpret")


def _module(implementation: str) -> Any:
  return pallas_tpu if implementation.startswith("pallas_tpu") else pallas_gpu


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _embed(
  patches: jax.Array, kernel: jax.Array, bias: jax.Array, implementation: str
) -> jax.Array:
  module, interpret = _module(implementation), _interpret(implementation)
  return module.embed(patches, kernel, bias, interpret=interpret)


def _embed_forward(
  patches: jax.Array, kernel: jax.Array, bias: jax.Array, implementation: str
) -> tuple[jax.Array, tuple[jax.Array]]:
  return _embed(patches, kernel, bias, implementation), (patches,)


def _embed_backward(
  implementation: str, saved: tuple[jax.Array], g: jax.Array
) -> tuple[None, jax.Array, jax.Array]:
  return None, *_weight_gradients(saved[0], g, implementation)


def _weight_gradients(
  patches: jax.Array, g: jax.Array, implementation: str
) -> tuple[jax.Array, jax.Array]:
  """Of any embedding: uint8 [rows, values] and g [rows, embed]; the kernel's in g's dtype."""
  if implementation == "reference":
    unit = reference.normalise(patches, g.dtype)
    d_kernel = jnp.einsum("rp,re->pe", unit, g, preferred_element_type=jnp.float32)
    return d_kernel.astype(g.dtype), jnp.sum(g.astype(jnp.float32), axis=0, keepdims=True)
  module, interpret = _module(implementation), _interpret(implementation)
  d_kernel, d_bias = module.gradient(patches, g, interpret=interpret)
  return d_kernel.astype(g.dtype), d_bias


_embed.defvjp(_embed_forward, _embed_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _tokenize(
  patches: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  limit: jax.Array,
  static: tuple[bool, bool],
  implementation: str,
) -> tuple[jax.Array, ...]:
  """Embeddings [T, N * m * m, embed], then score, keep, place [T, N]."""
  rows = einops.rearrange(patches, "t n m v -> t (n m) v")
  rule = dict(zip(("first_whole", "last_kept"), static, strict=True))
  if implementation.startswith("pallas_tpu"):
    block, interpret = patches.shape[2], _interpret(implementation)
    embeddings, *found = pallas_tpu_entry.whole(
      rows, kernel, bias, limit, block=block, rule=rule, interpret=interpret
    )
    score, keep, place = (x[:, 0] for x in found)
    return embeddings, score, keep > 0, place
  if implementation == "reference":
    embeddings = _plain(rows, kernel, bias)
    tokens = einops.rearrange(patches, "t n m v -> t n (m v)")
    score, keep = reference.mask(tokens, limit, **rule)
  else:
    embeddings, score, keep = pallas_gpu.whole(
      patches, kernel, bias, limit, rule=rule, interpret=_interpret(implementation)
    )
  return embeddings, score, keep, reference.places(keep)[0]


def _plain(rows: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  return jnp.einsum("...p,pe->...e", reference.normalise(rows, kernel.dtype), kernel) + bias.astype(
    kernel.dtype
  )


def _tokenize_forward(
  patches: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  limit: jax.Array,
  static: tuple[bool, bool],
  implementation: str,
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array]]:
  return _tokenize(patches, kernel, bias, limit, static, implementation), (patches,)


def _tokenize_backward(
  static: tuple[bool, bool], implementation: str, saved: tuple[jax.Array], g: Any
) -> tuple[Any, ...]:
  del static
  rows = saved[0].reshape(-1, saved[0].shape[-1])
  grads = _weight_gradients(rows, g[0].reshape(len(rows), -1), implementation)
  return None, *grads, None


_tokenize.defvjp(_tokenize_forward, _tokenize_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _kept(
  patches: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  limit: jax.Array,
  static: tuple[bool, bool, int],
  implementation: str,
) -> tuple[jax.Array, ...]:
  """Embeddings [capacity * m * m, embed], index [capacity], then score, keep, place [T, N]."""
  first_whole, last_kept, capacity = static
  rule = {"first_whole": first_whole, "last_kept": last_kept}
  if implementation.startswith("pallas_tpu"):
    embeddings, index, *found = pallas_tpu_prune.compacted(
      einops.rearrange(patches, "t n m v -> t (n m) v"),
      kernel,
      bias,
      limit,
      block=patches.shape[2],
      rule=rule,
      capacity=capacity,
      interpret=_interpret(implementation),
    )
    score, keep, place = (x[:, 0] for x in found)
    return embeddings, index, score, keep > 0, place
  if implementation == "reference":
    score, keep = reference.mask(einops.rearrange(patches, "t n m v -> t n (m v)"), limit, **rule)
  else:
    score, keep = pallas_gpu.mask(patches, limit, rule=rule, interpret=_interpret(implementation))
  index = reference.kept_index(keep, capacity)
  rows = _kept_rows(patches, index)
  if implementation == "reference":
    embeddings = _plain(rows, kernel, bias)
  else:
    embeddings = pallas_gpu.embed(rows, kernel, bias, interpret=_interpret(implementation))
  used = jnp.repeat(index < keep.size, patches.shape[2])
  embeddings = jnp.where(used[:, None], embeddings, 0).astype(kernel.dtype)
  return embeddings, index, score, keep, reference.places(keep)[0]


def _kept_rows(patches: jax.Array, index: jax.Array) -> jax.Array:
  """uint8 [capacity * m * m, values]: the bytes of the tokens in `index`, 0 past the end."""
  flat = einops.rearrange(patches, "t n m v -> (t n) m v")
  rows = flat.at[index].get(mode="fill", fill_value=0)
  return einops.rearrange(rows, "k m v -> (k m) v")


def _kept_forward(
  patches: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  limit: jax.Array,
  static: tuple[bool, bool, int],
  implementation: str,
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, jax.Array]]:
  out = _kept(patches, kernel, bias, limit, static, implementation)
  return out, (patches, out[1])


def _kept_backward(
  static: tuple[bool, bool, int], implementation: str, saved: tuple[jax.Array, jax.Array], g: Any
) -> tuple[Any, ...]:
  del static
  patches, index = saved
  frames, tokens, block, _ = patches.shape
  used = jnp.repeat(index < frames * tokens, block)
  own = jnp.where(used[:, None], g[0], 0).astype(g[0].dtype)
  grads = _weight_gradients(_kept_rows(patches, index), own, implementation)
  return None, *grads, None


_kept.defvjp(_kept_forward, _kept_backward)
