"""The decoder: Qwen2.5 or Qwen3, told apart by fields of its config.

`specs` says what the weights are, `layer` what they do.  What a query may see is the caller's: the
trainer packs segments, generation keeps a cache; both hand in an `attend`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.core import embedding
from hulu_jax.core import params as P
from hulu_jax.core.linear import einsum
from hulu_jax.core.params import ParamSpec
from hulu_jax.models import rope
from hulu_jax.models import scan
from hulu_jax.models.config import DecoderConfig
from hulu_jax.models.norms import rms_norm
from hulu_jax.models.scan import Compute

# (q, k, v, this layer's cache) -> (attended [batch, seq, heads, head_dim], this layer's new cache)
Attend = Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


def specs(c: DecoderConfig) -> P.Specs:
  """Without `head` where the embedding table serves as one (`tied`)."""
  table = {
    "embed": ParamSpec((c.vocab, c.embed), ("vocab", "embed"), P.normal(c.embed_std)),
    "layers": P.stack(layer_specs(c), c.layers),
    "norm": ParamSpec((c.embed,), (None,), P.constant(1.0)),
  }
  head = {"head": ParamSpec((c.vocab, c.embed), ("vocab", "embed"), P.lecun(c.embed))}
  return table if c.tied else table | head


def layer_specs(c: DecoderConfig) -> P.Specs:
  """One pre-norm block of grouped-query attention and SwiGLU."""
  heads = ("embed", "heads", "head_dim")
  kv = ("embed", "kv_heads", "head_dim")
  into, back = P.lecun(c.embed), P.lecun(c.heads * c.head_dim)
  block = {
    "attn_norm": ParamSpec((c.embed,), (None,), P.constant(1.0)),
    "q": ParamSpec((c.embed, c.heads, c.head_dim), heads, into),
    "k": ParamSpec((c.embed, c.kv_heads, c.head_dim), kv, into),
    "v": ParamSpec((c.embed, c.kv_heads, c.head_dim), kv, into),
    "o": ParamSpec((c.heads, c.head_dim, c.embed), (*heads[1:], "embed"), back),
    "mlp_norm": ParamSpec((c.embed,), (None,), P.constant(1.0)),
    "gate": ParamSpec((c.embed, c.mlp), ("embed", "mlp"), into),
    "up": ParamSpec((c.embed, c.mlp), ("embed", "mlp"), into),
    "down": ParamSpec((c.mlp, c.embed), ("mlp", "embed"), P.lecun(c.mlp)),
  }
  if c.qkv_bias:
    block |= {
      "q_bias": ParamSpec((c.heads, c.head_dim), heads[1:], P.constant(0.0)),
      "k_bias": ParamSpec((c.kv_heads, c.head_dim), kv[1:], P.constant(0.0)),
      "v_bias": ParamSpec((c.kv_heads, c.head_dim), kv[1:], P.constant(0.0)),
    }
  if c.qk_norm:
    block |= {
      "q_norm": ParamSpec((c.head_dim,), (None,), P.constant(1.0)),
      "k_norm": ParamSpec((c.head_dim,), (None,), P.constant(1.0)),
    }
  return block


def layer(
  w: P.Params, x: jax.Array, angles: jax.Array, c: DecoderConfig, attend: Attend, cache: Any
) -> tuple[jax.Array, Any]:
  """One block.  x: [batch, seq, embed]; angles: [batch, seq, head_dim / 2]."""
  h = rms_norm(x, w["attn_norm"], c.norm_eps)
  q, k, v = (einsum(eq, h, w[n]) for eq, n in zip(_QKV, "qkv", strict=True))
  if c.qkv_bias:
    q, k, v = (t + w[f"{n}_bias"].astype(t.dtype) for t, n in zip((q, k, v), "qkv", strict=True))
  q, k, v = (scan.projected(t) for t in (q, k, v))
  if c.qk_norm:
    q, k = rms_norm(q, w["q_norm"], c.norm_eps), rms_norm(k, w["k_norm"], c.norm_eps)
  a, cache = attend(rope.rotate(q, angles), rope.rotate(k, angles), v, cache)
  x = x + scan.projected(einsum("bshd,hde->bse", a, w["o"]))
  h = rms_norm(x, w["mlp_norm"], c.norm_eps)
  h = jax.nn.silu(einsum("bse,em->bsm", h, w["gate"])) * einsum("bse,em->bsm", h, w["up"])
  return x + einsum("bsm,me->bse", h, w["down"]), cache


_QKV = ("bse,ehd->bshd", "bse,ekd->bskd", "bse,ekd->bskd")


def forward(
  w: P.Params,
  x: jax.Array,
  positions: jax.Array,
  attend: Attend,
  cache: Any,
  c: DecoderConfig,
  compute: Compute,
) -> tuple[jax.Array, Any]:
  """Embedded tokens to normalised hidden states, and the caches the layers gave, stacked.

  x: [batch, seq, embed]; positions: int [batch, seq]; cache: a tree with a leading layer axis, or
  None; returns ([batch, seq, embed], cache).
  """
  angles = rope.sequence_angles(positions, c.head_dim, c.rope_theta)

  def step(x: jax.Array, slice_: tuple[P.Params, Any]) -> tuple[jax.Array, Any]:
    weights, own = slice_
    return layer(weights, x, angles, c, attend, own)

  x, cache = scan.over_layers(step, x, (w["layers"], cache), compute.decoder_remat)
  return rms_norm(x, w["norm"], c.norm_eps), cache


def embed(w: P.Params, tokens: jax.Array, compute: Compute) -> jax.Array:
  """Token ids int [batch, seq] -> [batch, seq, embed]."""
  return embedding.lookup(w["embed"], tokens, compute.dtype)


def logits(w: P.Params, x: jax.Array, c: DecoderConfig) -> jax.Array:
  """Hidden states [batch, seq, embed] -> float32 [batch, seq, vocab]."""
  return einsum("bse,ve->bsv", x, w["embed"] if c.tied else w["head"]).astype(jnp.float32)
