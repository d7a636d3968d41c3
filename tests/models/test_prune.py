"""With prune="before" the encoder gives what a plain encoder gives for the kept patches alone."""

import dataclasses

import jax
import numpy as np

from hulu_jax.data import packing
from hulu_jax.models import presets
from hulu_jax.models import vision
from tests.models.mixed import CONVERSATIONS
from tests.models.mixed import MERGES
from tests.models.mixed import PLAIN
from tests.models.mixed import SHAPE


def norm(x, w, eps):
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w["scale"] + w["bias"]


def rotated(x, hw, theta):
  """x: [patches, heads, head_dim]; pairs (i, i + half) turn by row, then column angles."""
  half = x.shape[-1] // 2
  rates = theta ** -(np.arange(0, half, 2) / half)
  angles = np.concatenate([hw[:, :1] * rates, hw[:, 1:] * rates], axis=1)[:, None]
  a, b = x[..., :half], x[..., half:]
  turned = (a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles))
  return np.concatenate(turned, axis=-1)


def encoded(w, patches, hw, c):
  """float64 features after the last norm of one frame: every patch sees every one given."""
  kernel = w["patch"]["kernel"]
  if patches.shape[1] != len(kernel):
    patches = np.tile(patches, (1, 3))
  x = (patches / 127.5 - 1) @ kernel + w["patch"]["bias"]
  for n in range(c.layers):
    own = jax.tree.map(lambda a, n=n: a[n], w["layers"])
    h = norm(x, own["attn_norm"], c.norm_eps)
    q, k, v = (np.einsum("se,ehd->shd", h, own[t]) + own[f"{t}_bias"] for t in "qkv")
    q, k = (rotated(t, hw, c.rope_theta) for t in (q, k))
    logits = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(c.head_dim)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    seen = np.einsum("hqk,khd->qhd", weights, v)
    x = x + np.einsum("qhd,hde->qe", seen, own["o"]) + own["o_bias"]
    h = norm(x, own["mlp_norm"], c.norm_eps) @ own["up"] + own["up_bias"]
    h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    x = x + h @ own["down"] + own["down_bias"]
  return norm(x, w["norm"], c.norm_eps)


def test_kept_tokens_equal_a_frame_by_frame_encoder_of_kept_patches(builder, params, quick):
  compression = dataclasses.replace(builder.policy.compression, prune="before")
  policy = dataclasses.replace(builder.policy, compression=compression)
  own = dataclasses.replace(builder, policy=policy)
  examples = [own.build(CONVERSATIONS[n], n, generate=False) for n in ("both", "volume", "clip")]
  packer = packing.Packer(SHAPE)
  assert all(packer.add(e) for e in examples)
  batch, c = packer.batch(), presets.TINY.vision
  sizes = tuple((g.slots * g.size, m) for g, m in zip(SHAPE.groups, MERGES, strict=True))

  def run(w, batch):
    x = vision.encode(w, batch.patches, batch.patch_segment, batch.patch_hw, c, PLAIN)
    return vision.kept_tokens(w, x, batch.visual_source, sizes, c, PLAIN)

  got = np.asarray(jax.jit(run, compiler_options=quick)(params["vision"], batch))
  w = jax.tree.map(lambda a: np.asarray(a, np.float64), params["vision"])
  rows, compared = {e.id: r for r, held in enumerate(packer._held) for e, _ in held}, 0
  for example in examples:
    want = []
    for visual in example.visuals:
      assert visual.pruned
      m = visual.merge
      grid = np.indices(visual.grid).reshape(2, -1).T
      side = visual.grid[1]
      blocks = [
        [(r * m + i) * side + s * m + j for i, j in np.ndindex(m, m)]
        for r, s in np.ndindex(visual.grid[0] // m, side // m)
      ]
      for patches, keep in zip(visual.patches, visual.keep, strict=True):
        chosen = np.flatnonzero(keep.repeat(m**2))
        hw = grid[np.concatenate([blocks[n] for n in np.flatnonzero(keep)])]
        features = encoded(w, patches[chosen], hw, c)
        want.append(features.reshape(-1, m**2, c.embed).mean(axis=1))
    want = np.concatenate(want)
    row = rows[example.id]
    held = [e for e, _ in packer._held[row]]
    start = sum(len(e.tokens) for e in held[: held.index(example)])
    slots = batch.visual_slot[row, start + example.visual_positions]
    # float32 against float64 over two layers; features are of order one.
    np.testing.assert_allclose(got[row, slots], want, rtol=0, atol=1e-3)
    compared += len(want)
  assert compared == sum(int(v.keep.sum()) for e in examples for v in e.visuals)
