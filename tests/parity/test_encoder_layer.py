"""One layer of the vision encoder, attention inside each frame only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.data import vision as vision_data
from hulu_jax.models import attention
from hulu_jax.models import rope
from hulu_jax.models import vision

torch = pytest.importorskip("torch", reason="parity compares with torch: install extra 'verify'")

# float32 on both sides; sums of at most 72 terms of order one in another order.
TOLERANCE = 1e-5

_layer = jax.jit(vision.layer, static_argnums=(3, 4))


@pytest.mark.parametrize("index", [0, 1])
def test_encoder_layer(pair, index):
  c, model = pair.config.vision, pair.theirs.model.vision_model
  grids = [((3, 5), 1), ((4, 6), 2), ((4, 6), 2)]
  places = np.concatenate([vision_data.patch_places(*grid) for grid in grids]).astype(np.int32)
  sizes = [grid[0] * grid[1] for grid, _ in grids]
  x = np.random.default_rng(index).normal(size=(len(places), c.embed)).astype(np.float32)

  with torch.no_grad():
    theirs = model.encoder.layers[index](
      torch.from_numpy(x),
      cu_seqlens=torch.tensor([0, *np.cumsum(sizes)]),
      position_embeddings=model.rotary_pos_emb(torch.from_numpy(x), torch.from_numpy(places)),
    )
  # One slot holds all three frames and a place of padding.
  segments = np.append(np.repeat([1, 2, 3], sizes), 0)[None, None]
  padded = np.pad(x, ((0, 1), (0, 0)))[None]
  angles = rope.grid_angles(
    jnp.asarray(np.pad(places, ((0, 1), (0, 0))))[None], c.head_dim, c.rope_theta
  )

  def attend(q, k, v):
    return attention.in_slots(q, k, v, (jnp.asarray(segments),), "xla")

  ours = _layer(pair.layer("vision", index), jnp.asarray(padded), angles, attend, c)
  np.testing.assert_allclose(ours[0, :-1], theirs, rtol=0, atol=TOLERANCE)
