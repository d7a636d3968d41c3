"""Pooling: the mean of each merge block against torch's bilinear down-sampling."""

import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.kernels.token_compaction import reference as compaction

torch = pytest.importorskip("torch", reason="parity compares with torch: install extra 'verify'")


@pytest.mark.parametrize(("merge", "grid"), [(1, (3, 5)), (2, (4, 6)), (2, (2, 2))])
def test_pool(pair, merge, grid):
  frames, width = 3, pair.config.vision.embed
  x = torch.randn(frames * grid[0] * grid[1], width)
  theirs = pair.theirs.model.vision_model.pixel_unshuffle(
    x, torch.tensor([[frames, *grid]]), torch.tensor([merge])
  )
  ours = compaction.pool(jnp.asarray(x.numpy())[None], ((len(x), merge),))
  # At most four values of order one, each weighted by an exact quarter: only the order differs.
  np.testing.assert_allclose(ours[0], theirs, rtol=0, atol=1e-6)
