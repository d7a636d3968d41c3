"""The vision encoder: uint8 patches to pooled features, all patch groups in one flat pass.

GEMMs run flat over every group; only attention and pooling look at slots.  There is no class
token, no absolute position and no attention between frames.  Slots never meet, so under a mesh with
context the rows here are parts of rows (`core.context.part`): letter n, axis "part".
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.core.linear import einsum
from hulu_jax.core.params import ParamSpec
from hulu_jax.kernels.token_compaction import api as token_compaction
from hulu_jax.kernels.token_compaction.reference import Sizes
from hulu_jax.kernels.visual_tokenizer import api as visual_tokenizer
from hulu_jax.models import attention
from hulu_jax.models import rope
from hulu_jax.models import scan
from hulu_jax.models.config import VisionConfig
from hulu_jax.models.norms import layer_norm
from hulu_jax.models.scan import Compute

# One patch group of a batch: patches, segments and places (see `forward`).
Group = tuple[jax.Array, jax.Array, jax.Array]
# (q, k, v), each [batch, all patches, heads, head_dim] -> attended, the same shape
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def specs(c: VisionConfig) -> P.Specs:
  """Initial values as SigLIP's: LeCun patch kernel, Xavier layers, zero biases."""
  pixels = c.channels * c.patch**2
  return {
    "patch": {
      "kernel": ParamSpec((pixels, c.embed), ("pixels", "embed"), P.lecun(pixels)),
      "bias": ParamSpec((c.embed,), (None,), P.constant(0.0)),
    },
    "layers": P.stack(layer_specs(c), c.layers),
    "norm": _norm_specs(c),
  }


def _norm_specs(c: VisionConfig) -> P.Specs:
  return {
    "scale": ParamSpec((c.embed,), (None,), P.constant(1.0)),
    "bias": ParamSpec((c.embed,), (None,), P.constant(0.0)),
  }


def layer_specs(c: VisionConfig) -> P.Specs:
  """One pre-norm block; every projection has a bias."""
  width = c.heads * c.head_dim
  attn, up = P.xavier(c.embed, width), P.xavier(c.embed, c.mlp)
  heads = ("embed", "heads", "head_dim")
  return {
    "attn_norm": _norm_specs(c),
    "q": ParamSpec((c.embed, c.heads, c.head_dim), heads, attn),
    "q_bias": ParamSpec((c.heads, c.head_dim), heads[1:], P.constant(0.0)),
    "k": ParamSpec((c.embed, c.heads, c.head_dim), heads, attn),
    "k_bias": ParamSpec((c.heads, c.head_dim), heads[1:], P.constant(0.0)),
    "v": ParamSpec((c.embed, c.heads, c.head_dim), heads, attn),
    "v_bias": ParamSpec((c.heads, c.head_dim), heads[1:], P.constant(0.0)),
    "o": ParamSpec((c.heads, c.head_dim, c.embed), (*heads[1:], "embed"), attn),
    "o_bias": ParamSpec((c.embed,), (None,), P.constant(0.0)),
    "mlp_norm": _norm_specs(c),
    "up": ParamSpec((c.embed, c.mlp), ("embed", "mlp"), up),
    "up_bias": ParamSpec((c.mlp,), ("mlp",), P.normal(1e-6)),
    "down": ParamSpec((c.mlp, c.embed), ("mlp", "embed"), up),
    "down_bias": ParamSpec((c.embed,), (None,), P.normal(1e-6)),
  }


def embed_patches(w: P.Params, patches: jax.Array, c: VisionConfig, compute: Compute) -> jax.Array:
  """uint8 [batch, seq, patch**2 * channels] -> [batch, seq, embed].

  Normalisation (x / 255 - 0.5) / 0.5 happens here: the host ships bytes.  Grey patches are one
  channel of a picture whose channels are equal, so the kernel is summed over its channels.

  Raises:
    ValueError: patches of neither all channels nor one.
  """
  if patches.shape[-1] not in (c.patch**2, c.channels * c.patch**2):
    expected = f"{c.patch**2} or {c.channels * c.patch**2}"
    raise ValueError(f"patches of {patches.shape[-1]} bytes; expected {expected}")
  name = compute.kernels.visual_tokenizer

  def embed(patches: jax.Array, kernel: Any, bias: jax.Array) -> tuple[jax.Array]:
    found = visual_tokenizer.embed(patches, kernel, bias, dtype=compute.dtype, implementation=name)
    return (found,)

  if name == "reference":
    return embed(patches, w["kernel"], w["bias"])[0]
  rows = ("part", None, None)
  run = sharding.per_shard(embed, (rows, (None, None), (None,)), (rows,))
  kernel = visual_tokenizer.folded(w["kernel"], patches.shape[-1]).astype(compute.dtype)
  return run(patches, _everywhere(kernel), _everywhere(w["bias"]))[0]


def _everywhere(x: jax.Array) -> jax.Array:
  """Whole on every device, as a kernel that knows no mesh takes it."""
  whole = sharding.spec((None,) * x.ndim)
  return x if whole is None else jax.reshard(x, whole)


def layer(
  w: P.Params, x: jax.Array, angles: jax.Array, attend: Attend, c: VisionConfig
) -> jax.Array:
  """One pre-norm block.  x: [batch, seq, embed]; angles: [batch, seq, head_dim / 2]."""
  h = layer_norm(x, w["attn_norm"]["scale"], w["attn_norm"]["bias"], c.norm_eps)
  q, k, v = (
    scan.projected(einsum("nte,ehd->nthd", h, w[n]) + w[f"{n}_bias"].astype(h.dtype)) for n in "qkv"
  )
  a = attend(rope.rotate(q, angles), rope.rotate(k, angles), v)
  x = x + scan.projected(einsum("nthd,hde->nte", a, w["o"])) + w["o_bias"].astype(x.dtype)
  h = layer_norm(x, w["mlp_norm"]["scale"], w["mlp_norm"]["bias"], c.norm_eps)
  h = jax.nn.gelu(einsum("nte,em->ntm", h, w["up"]) + w["up_bias"].astype(h.dtype))
  return x + einsum("ntm,me->nte", h, w["down"]) + w["down_bias"].astype(x.dtype)


def _flat(x: jax.Array) -> jax.Array:
  return einops.rearrange(x, "b s n c -> b (s n) c")


def encode(
  w: P.Params,
  patches: tuple[jax.Array, ...],
  segments: tuple[jax.Array, ...],
  hw: tuple[jax.Array, ...],
  c: VisionConfig,
  compute: Compute,
) -> jax.Array:
  """Patch groups to features of every patch, before the last norm: [batch, all patches, embed].

  patches[g]: uint8 [batch, slots, size, patch**2 * channels]; segments[g]: int [batch, slots,
  size]; hw[g]: int [batch, slots, size, 2].

  Attention never leaves a slot, so the encoder may run in passes over whole slots
  (`compute.vision_pass`).  Then backward keeps what a pass gives and recomputes what is inside it,
  one pass at a time: memory follows the largest pass instead of all patches of a row.  A row that
  fits into one pass is not recomputed beyond what `compute.vision_remat` says.
  """
  groups = tuple(zip(patches, segments, hw, strict=True))

  def one_pass(groups: tuple[Group, ...]) -> jax.Array:
    return _encode(w, groups, c, compute)

  runs = passes(tuple((s.shape[1], s.shape[2]) for s in segments), compute.vision_pass)
  if runs == (Run(0, len(groups), 1),):
    return one_pass(groups)
  again = jax.checkpoint(one_pass)
  parts = [_in_passes(again, groups[run.start : run.stop], run.times) for run in runs]
  return jnp.concatenate(parts, axis=1)


class Run(NamedTuple):
  """Groups start to stop of a row, encoded in `times` equal passes; several groups in one only."""

  start: int
  stop: int
  times: int


def passes(groups: tuple[tuple[int, int], ...], limit: int | None) -> tuple[Run, ...]:
  """Which groups (slots, size) share a pass, and which one needs several; all share one without a
  limit.

  No pass holds more than `limit` patches, but for a single slot, which is never cut.  Passes of one
  group are equal, so that they are one compiled scan: 26 slots fall into 1, 2, 13 or 26.
  """
  if limit is None:
    return (Run(0, len(groups), 1),)
  runs: list[Run] = []
  held = 0
  for g, (slots, size) in enumerate(groups):
    fits = slots * size <= limit
    if runs and fits and held + slots * size <= limit:
      runs[-1] = runs[-1]._replace(stop=g + 1)
      held += slots * size
      continue
    most = max(n for n in range(1, slots + 1) if slots % n == 0 and (n == 1 or n * size <= limit))
    runs.append(Run(g, g + 1, slots // most))
    held = slots * size
  return tuple(runs)


def _in_passes(
  encode: Callable[[tuple[Group, ...]], jax.Array], groups: tuple[Group, ...], times: int
) -> jax.Array:
  if times == 1:
    return encode(groups)
  cut = jax.tree.map(lambda t: einops.rearrange(t, "b (n s) ... -> n b s ...", n=times), groups)
  return einops.rearrange(jax.lax.map(encode, cut), "n b s e -> b (n s) e")


def _encode(w: P.Params, groups: tuple[Group, ...], c: VisionConfig, compute: Compute) -> jax.Array:
  """All layers over these groups, flat: [batch, their patches, embed], before the last norm."""
  embedded = [embed_patches(w["patch"], _flat(p), c, compute) for p, _, _ in groups]
  x = jnp.concatenate(embedded, axis=1)
  places = jnp.concatenate([_flat(hw) for _, _, hw in groups], axis=1)
  return through_layers(w, x, places, tuple(own for _, own, _ in groups), c, compute)


def through_layers(
  w: P.Params,
  x: jax.Array,
  places: jax.Array,
  segments: tuple[jax.Array, ...],
  c: VisionConfig,
  compute: Compute,
) -> jax.Array:
  """Embedded patches to features before the last norm, both [batch, patches, embed].

  places: int [batch, patches, 2], row and column; segments[g]: int [batch, slots, size]: the
  patches of x are those of all slots of all groups, one after another.
  """
  angles = rope.grid_angles(places, c.head_dim, c.rope_theta)

  def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return attention.in_slots(q, k, v, segments, compute.kernels.encoder_attention)

  def step(x: jax.Array, weights: P.Params) -> tuple[jax.Array, None]:
    return layer(weights, x, angles, attend, c), None

  return scan.over_layers(step, x, w["layers"], compute.vision_remat)[0]


def forward(
  w: P.Params,
  patches: tuple[jax.Array, ...],
  segments: tuple[jax.Array, ...],
  hw: tuple[jax.Array, ...],
  c: VisionConfig,
  compute: Compute,
) -> jax.Array:
  """`encode` and the last norm."""
  x = encode(w, patches, segments, hw, c, compute)
  return layer_norm(x, w["norm"]["scale"], w["norm"]["bias"], c.norm_eps)


def kept_tokens(
  w: P.Params, x: jax.Array, index: jax.Array, sizes: Sizes, c: VisionConfig, compute: Compute
) -> jax.Array:
  """The last norm, the mean of each merge block, and of these the kept: [batch, V, embed].

  x: what `encode` gave; index: int32 [batch, V] into the row's visual tokens, padding past their
  end gives 0; sizes: (patches per row, merge) of each group.
  """

  def compact(
    x: jax.Array, index: jax.Array, scale: jax.Array, bias: jax.Array
  ) -> tuple[jax.Array]:
    found = token_compaction.compact(
      x,
      index,
      scale,
      bias,
      sizes=sizes,
      eps=c.norm_eps,
      capacity=index.shape[1],
      implementation=compute.kernels.token_compaction,
    )
    return (found.tokens,)

  rows = ("part", None, None)
  # Also the reference: what is gathered inside one shard cannot move to another.
  run = sharding.per_shard(compact, (rows, ("part", None), (None,), (None,)), (rows,))
  return run(x, index, w["norm"]["scale"], w["norm"]["bias"])[0]


def pooled_tokens(
  w: P.Params, x: jax.Array, sizes: Sizes, c: VisionConfig, compute: Compute
) -> jax.Array:
  """`kept_tokens` where all are kept, in order: [batch, pooled, embed]."""
  pooled = sum(patches // merge**2 for patches, merge in sizes)
  where = sharding.spec(("part", None))
  index = jnp.arange(pooled, dtype=jnp.int32)
  index = jnp.broadcast_to(index, (x.shape[0], pooled), out_sharding=where)
  return kept_tokens(w, x, index, sizes, c, compute)
