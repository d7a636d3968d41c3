"""What token compaction means, in plain jnp: the oracle for every other implementation."""

import einops
import jax
import jax.numpy as jnp

Sizes = tuple[tuple[int, int], ...]  # (patches per row, merge) of each patch group, in order


def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
  """The encoder's last norm in float32: mean 0 and variance 1 over the last axis, then affine."""
  y = x.astype(jnp.float32)
  y = y - jnp.mean(y, axis=-1, keepdims=True)
  y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
  return y * scale + bias


def pool(x: jax.Array, sizes: Sizes) -> jax.Array:
  """Mean over each merge block, in float32.  x: [batch, all patches, embed] -> [batch, all visual
  tokens, embed], in x's dtype.

  For merge 1 and 2 this equals the released encoder's bilinear down-sampling.
  """
  out, start = [], 0
  for patches, merge in sizes:
    part = x[:, start : start + patches].astype(jnp.float32)
    out.append(einops.reduce(part, "b (n m) e -> b n e", "mean", m=merge**2))
    start += patches
  return jnp.concatenate(out, axis=1).astype(x.dtype)


def compact(
  x: jax.Array, index: jax.Array, scale: jax.Array, bias: jax.Array, *, sizes: Sizes, eps: float
) -> jax.Array:
  """Norm, pool and row-wise gather: x [batch, all patches, embed], index int32 [batch, V] into the
  row's visual tokens -> [batch, V, embed] in x's dtype; an index past the end gives 0.

  Everything is float32 until it is rounded once, at the end.
  """
  pooled = pool(normalise(x, scale, bias, eps), sizes)
  taken = jax.vmap(lambda row, i: row.at[i].get(mode="fill", fill_value=0))(pooled, index)
  return taken.astype(x.dtype)
