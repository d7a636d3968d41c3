"""Under a mesh the encoder's kernels give what they give on one device, with their gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import sharding
from hulu_jax.models import presets
from hulu_jax.models import vision
from hulu_jax.models.scan import FLOAT32

SIZES = ((4, 1), (8, 2))


def loss(w, patches, x, index, compute):
  c = presets.TINY.vision
  embedded = vision.embed_patches(w["patch"], patches, c, compute)
  kept = vision.kept_tokens(w, x + embedded, index, SIZES, c, compute)
  return jnp.sum(jnp.sin(kept))


@pytest.mark.parametrize(
  "way", ["pallas_tpu_interpret", pytest.param("pallas_gpu_interpret", marks=pytest.mark.slow)]
)
def test_value_and_gradient_on_2x2x2(way, mesh_2x2x2, quick):
  c, rng = presets.TINY.vision, np.random.default_rng(0)
  w = {
    "patch": {"kernel": rng.normal(0, 0.1, (588, c.embed)), "bias": rng.normal(size=c.embed)},
    "norm": {"scale": rng.normal(1, 0.1, c.embed), "bias": rng.normal(size=c.embed)},
  }
  w = jax.tree.map(lambda a: a.astype(np.float32), w)
  patches = rng.integers(0, 256, (4, 12, 196), dtype=np.uint8)
  x = rng.normal(size=(4, 12, c.embed)).astype(np.float32)
  index = np.array([[0, 3, 5], [1, 4, 6], [6, 6, 6], [2, 3, 4]], np.int32)
  names = dataclasses.replace(FLOAT32.kernels, visual_tokenizer=way, token_compaction=way)
  compute = dataclasses.replace(FLOAT32, kernels=names)
  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 2)), static_argnums=4, compiler_options=quick)
  want = run(w, patches, x, index, FLOAT32)
  specs = {name: vision.specs(c)[name] for name in w}
  rows = sharding.batch_sharding(mesh_2x2x2)
  with jax.set_mesh(mesh_2x2x2):
    placed = jax.device_put(w, sharding.shardings(specs, mesh_2x2x2))
    got = run(placed, *jax.device_put((patches, x, index), rows), compute)
  # Sums of up to 48 float32 terms of order one, over devices in another order.
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
