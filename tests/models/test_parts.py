"""The parts of the model against their definitions, written as loops."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.data import vision as data_vision
from hulu_jax.kernels.attention import reference as masks
from hulu_jax.kernels.attention import xla
from hulu_jax.kernels.token_compaction import reference as compaction
from hulu_jax.models import attention
from hulu_jax.models import decoder
from hulu_jax.models import norms
from hulu_jax.models import presets
from hulu_jax.models import projector
from hulu_jax.models import rope
from hulu_jax.models import scan
from hulu_jax.models import vision
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import FLOAT32


def draw(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_attention_with_grouped_heads(heads, kv_heads):
  q, k, v = draw(0, 2, 5, heads, 8), draw(1, 2, 7, kv_heads, 8), draw(2, 2, 7, kv_heads, 8)
  mask = np.random.default_rng(3).random((2, 5, 7)) < 0.6
  mask[..., 0] = True
  want = np.zeros_like(q)
  for b in range(2):
    for h in range(heads):
      g = h // (heads // kv_heads)
      for i in range(5):
        seen = np.flatnonzero(mask[b, i])
        score = np.exp(k[b, seen, g] @ q[b, i, h] / math.sqrt(8))
        want[b, i, h] = (score / score.sum()) @ v[b, seen, g]
  # Sums over up to 8 float32 terms.
  np.testing.assert_allclose(masks.attend(q, k, v, mask), want, rtol=1e-4, atol=1e-5)


def test_a_query_that_sees_nothing_stays_finite_with_its_gradient():
  q, k, v = draw(0, 1, 2, 2, 4), draw(1, 1, 3, 1, 4), draw(2, 1, 3, 1, 4)
  mask = jnp.array([[[False] * 3, [True] * 3]])
  grads = jax.grad(lambda *t: masks.attend(*t, mask).sum(), argnums=(0, 1, 2))(q, k, v)
  assert all(np.isfinite(g).all() for g in grads)


def test_masks():
  assert masks.causal_segments(jnp.array([[1, 1, 2, 0]]))[0].astype(int).tolist() == [
    [1, 0, 0, 0],
    [1, 1, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 0, 0],
  ]
  assert masks.same_segment(jnp.array([1, 1, 2, 0])).astype(int).tolist() == [
    [1, 1, 0, 0],
    [1, 1, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 0, 0],
  ]


def test_sequence_positions_turn_dimension_i_with_i_plus_half():
  x, positions, theta = draw(0, 1, 3, 2, 8), np.array([[0, 5, 30000]]), 1e6
  want = x.astype(np.float64).copy()
  for s, position in enumerate(positions[0]):
    for i in range(4):
      angle = position * theta ** (-2 * i / 8)
      a, b = x[0, s, :, i], x[0, s, :, i + 4]
      want[0, s, :, i] = a * math.cos(angle) - b * math.sin(angle)
      want[0, s, :, i + 4] = b * math.cos(angle) + a * math.sin(angle)
  got = rope.rotate(x, rope.sequence_angles(positions, 8, theta))
  # float32 angles: 30000 radians are known to 30000 * 2^-24 = 2e-3.
  np.testing.assert_allclose(got, want, atol=5e-3)
  np.testing.assert_allclose(got[:, :2], want[:, :2], rtol=1e-5, atol=1e-5)


def test_patches_turn_with_their_row_then_their_column():
  """Pairs 0..17 of the released encoder's 36 carry the row, 18..35 the column."""
  row, column = 7, 11
  got = rope.grid_angles(jnp.array([row, column]), 72, 1e4)
  frequency = [10000 ** (-2 * j / 36) for j in range(18)]
  want = [row * f for f in frequency] + [column * f for f in frequency]
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_angles_are_float32_whatever_the_activations_are():
  positions = jnp.array([255, 4095])
  assert rope.sequence_angles(positions, 16, 1e4).dtype == jnp.float32
  x = jnp.ones((2, 1, 16), jnp.bfloat16)
  assert rope.rotate(x, rope.sequence_angles(positions, 16, 1e4)).dtype == jnp.bfloat16


def test_norms():
  x, scale, bias = draw(0, 3, 50) * 4 + 2, draw(1, 50), draw(2, 50)
  centred = x - x.mean(axis=-1, keepdims=True)
  want = centred / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6) * scale + bias
  np.testing.assert_allclose(norms.layer_norm(x, scale, bias, 1e-6), want, rtol=1e-4, atol=1e-5)
  want = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale
  np.testing.assert_allclose(norms.rms_norm(x, scale, 1e-6), want, rtol=1e-4, atol=1e-5)
  tiny = jnp.full((1, 50), 1e-3, jnp.float32)  # eps weighs as much as the values
  got = norms.rms_norm(tiny, jnp.ones(50), 1e-6)
  np.testing.assert_allclose(got, 1e-3 / math.sqrt(2e-6), rtol=1e-5)


def test_patches_are_normalised_to_minus_one_to_one_on_device():
  c = presets.TINY.vision
  w = {"kernel": draw(0, 588, 64), "bias": draw(1, 64)}
  patches = np.random.default_rng(2).integers(0, 256, (2, 3, 588), dtype=np.uint8)
  want = ((patches / 255 - 0.5) / 0.5) @ w["kernel"] + w["bias"]
  got = vision.embed_patches(w, patches, c, FLOAT32)
  # Sums of 588 float32 terms of size 1.
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def test_a_grey_patch_equals_the_same_patch_in_three_equal_channels():
  c = presets.TINY.vision
  w = {"kernel": draw(0, 588, 64), "bias": draw(1, 64)}
  frames = np.random.default_rng(3).integers(0, 256, (1, 28, 28, 1), dtype=np.uint8)
  grey = data_vision.patchify(frames, 14, 1)
  colour = data_vision.patchify(frames.repeat(3, axis=-1), 14, 1)
  np.testing.assert_allclose(
    vision.embed_patches(w, grey, c, FLOAT32),
    vision.embed_patches(w, colour, c, FLOAT32),
    rtol=1e-4,
    atol=1e-3,
  )


def test_pooling_is_the_mean_of_each_merge_block():
  x = draw(0, 2, 4 + 8, 5)
  got = compaction.pool(jnp.asarray(x), ((4, 1), (8, 2)))
  assert got.shape == (2, 4 + 2, 5)
  np.testing.assert_array_equal(got[:, :4], x[:, :4])
  want = np.stack([x[:, 4:8].mean(axis=1), x[:, 8:].mean(axis=1)], axis=1)
  np.testing.assert_allclose(got[:, 4:], want, rtol=1e-6, atol=1e-6)


def test_the_projector_uses_the_exact_gelu():
  w = {"up": draw(0, 6, 8), "up_bias": draw(1, 8), "down": draw(2, 8, 8), "down_bias": draw(3, 8)}
  x = draw(4, 2, 3, 6)
  h = x @ w["up"] + w["up_bias"]
  h = h * 0.5 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
  want = h @ w["down"] + w["down_bias"]
  np.testing.assert_allclose(projector.forward(w, jnp.asarray(x)), want, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_built_is_refused():
  with pytest.raises(ValueError, match="unknown remat 'half'; there are: none, save_dots"):
    dataclasses.replace(FLOAT32, vision_remat="half")
  tiny = presets.TINY
  odd = type(tiny.vision)(**{**vars(tiny.vision), "head_dim": 18})
  with pytest.raises(ValueError, match="vision head_dim 18 must divide by 4"):
    HuluConfig(vision=odd, decoder=tiny.decoder)
  three = type(tiny.decoder)(**{**vars(tiny.decoder), "kv_heads": 3})
  with pytest.raises(ValueError, match="decoder heads 4 must be a multiple of kv_heads 3"):
    HuluConfig(vision=tiny.vision, decoder=three)


@pytest.mark.parametrize("name", ["reference", "xla"])
def test_save_attention_keeps_one_copy_of_it(name, fresh_tiny, monkeypatch, capsys):
  """Beside the layer's arguments: what attention gave, and by blocks its softmax sums."""
  monkeypatch.setattr(xla, "LOGITS", 1)  # however short the row, in blocks
  c, segments = presets.TINY.decoder, jnp.ones((2, 24), jnp.int32)
  weights = jax.tree.map(lambda leaf: leaf[0], fresh_tiny["decoder"]["layers"])

  def attend(q, k, v, cache):
    return attention.in_rows(q, k, v, segments, name), cache

  def layer(x, w):
    return decoder.layer(w, x, jnp.zeros((2, 24, c.head_dim // 2)), c, attend, None)[0].sum()

  jax.ad_checkpoint.print_saved_residuals(
    scan.REMAT["save_attention"](layer), jnp.ones((2, 24, c.embed)), weights
  )
  saved = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "named" in line]
  sums = [] if name == "reference" else [f"f32[2,24,{c.heads},1]"]
  assert sorted(saved) == sorted([f"f32[2,24,{c.heads},{c.head_dim}]", *sums])


def test_angles_in_bfloat16_would_be_far_off():
  """The figure that rope.py and docs/architecture.md give as the reason for float32."""
  positions = jnp.arange(256)
  frequency = rope.sequence_angles(jnp.ones((), jnp.int32), 36, 1e4).astype(jnp.bfloat16)
  rounded = positions.astype(jnp.bfloat16)[:, None] * frequency
  error = jnp.abs(rounded.astype(jnp.float32) - rope.sequence_angles(positions, 36, 1e4))
  assert float(error.max()) == pytest.approx(0.889, abs=0.001)
