"""The projector: pooled visual features into the decoder's width, two layers with an exact GELU."""

import jax

from hulu_jax.core import params as P
from hulu_jax.core.linear import einsum
from hulu_jax.core.params import ParamSpec
from hulu_jax.models.config import HuluConfig


def specs(c: HuluConfig) -> P.Specs:
  """The hidden width is the decoder's; it takes the `mlp` axis so that `tensor` splits it."""
  into, width = c.vision.embed, c.decoder.embed
  return {
    "up": ParamSpec((into, width), ("embed", "mlp"), P.lecun(into)),
    "up_bias": ParamSpec((width,), ("mlp",), P.constant(0.0)),
    "down": ParamSpec((width, width), ("mlp", "embed"), P.lecun(width)),
    "down_bias": ParamSpec((width,), (None,), P.constant(0.0)),
  }


def forward(w: P.Params, x: jax.Array) -> jax.Array:
  """[batch, visual tokens, vision embed] -> [batch, visual tokens, decoder embed]."""
  h = einsum("bse,em->bsm", x, w["up"]) + w["up_bias"].astype(x.dtype)
  h = jax.nn.gelu(h, approximate=False)
  return einsum("bsm,mf->bsf", h, w["down"]) + w["down_bias"].astype(x.dtype)
