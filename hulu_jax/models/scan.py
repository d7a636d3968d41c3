"""A stack of equal layers as one `lax.scan`, with a named choice of what backward recomputes."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from hulu_jax.kernels import choice
from hulu_jax.kernels.attention import names
from hulu_jax.kernels.choice import Kernels

# The projections into and out of attention carry this name, so that a policy can save them.
PROJECTED = "projected"
# From the least that backward recomputes to the most; what is saved is paid in memory.
REMAT: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
  "none": lambda layer: layer,
  "save_dots": lambda layer: jax.checkpoint(
    layer, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
  ),
  "save_qkv_out": lambda layer: jax.checkpoint(
    layer, policy=jax.checkpoint_policies.save_only_these_names(names.SAVED, PROJECTED)
  ),
  "save_attention": lambda layer: jax.checkpoint(
    layer, policy=jax.checkpoint_policies.save_only_these_names(names.SAVED)
  ),
  "full": jax.checkpoint,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
  """How to run a model, apart from what it is: dtype of activations, what backward recomputes,
  which implementation of every kernel.

  vision_pass: most patches of a row that the encoder takes in one pass (`vision.passes`); None: all
  of them at once.  loss_chunk: supervised positions of a row whose logits exist at one time
  (`training.losses.in_chunks`); None: all of them.
  """

  dtype: Any
  vision_pass: int | None
  loss_chunk: int | None
  vision_remat: str
  decoder_remat: str
  kernels: Kernels

  def __post_init__(self) -> None:
    for key, name in (("vision", self.vision_remat), ("decoder", self.decoder_remat)):
      if name not in REMAT:
        raise ValueError(
          f"compute.{key}_remat: unknown remat {name!r}; there are: {', '.join(REMAT)}"
        )
    for name, most in (("vision_pass", self.vision_pass), ("loss_chunk", self.loss_chunk)):
      if most is not None and most < 1:
        raise ValueError(f"compute.{name} = {most}; expected at least 1, or None")


FLOAT32 = Compute(
  dtype=jnp.float32,
  vision_pass=None,
  loss_chunk=None,
  vision_remat="none",
  decoder_remat="none",
  kernels=choice.REFERENCE,
)


def projected(x: jax.Array) -> jax.Array:
  """x, which a layer made by a projection into or out of attention, under its name for REMAT."""
  return checkpoint_name(x, PROJECTED)


def over_layers(
  layer: Callable[[jax.Array, Any], tuple[jax.Array, Any]], x: jax.Array, stacked: Any, remat: str
) -> tuple[jax.Array, Any]:
  """Threads x through `layer(x, slice)` for every slice along the leading axis of `stacked`.

  Returns the last x and what the layers gave beside it, stacked.
  """
  return jax.lax.scan(REMAT[remat](layer), x, stacked)
