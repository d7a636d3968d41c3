"""The projector: two linear layers around an exact GELU."""

import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.models import projector

torch = pytest.importorskip("torch", reason="parity compares with torch: install extra 'verify'")


def test_projector(pair):
  x = torch.randn(30, pair.config.vision.embed)
  with torch.no_grad():
    theirs = pair.theirs.model.projector(x)
  ours = projector.forward(pair.params["projector"], jnp.asarray(x.numpy())[None])
  # float32 on both sides; sums of at most 144 terms of order 1/12 in another order.
  np.testing.assert_allclose(ours[0], theirs, rtol=0, atol=1e-5)
