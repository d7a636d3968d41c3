"""One layer of the decoder: Qwen2.5 with its biases, Qwen3 with its norms, grouped key heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.kernels.attention import api
from hulu_jax.models import decoder
from hulu_jax.models import rope

torch = pytest.importorskip("torch", reason="parity compares with torch: install extra 'verify'")

# float32 on both sides; sums of at most 144 terms of order one in another order.
TOLERANCE = 1e-5

_layer = jax.jit(decoder.layer, static_argnums=(3, 4))


def _attend(q, k, v, segments):
  return api.attention(q, k, v, segments, causal=True, implementation="xla"), segments


@pytest.mark.parametrize("index", [0, 2])
def test_decoder_layer(pair, index):
  c, model = pair.config.decoder, pair.theirs.model.language_model
  n = 40
  x = np.random.default_rng(index).normal(size=(1, n, c.embed)).astype(np.float32)
  positions = np.arange(n)[None]
  segments = jnp.ones((1, n), jnp.int32)

  with torch.no_grad():
    hidden = torch.from_numpy(x)
    theirs = model.layers[index](
      hidden,
      attention_mask=torch.ones((1, 1, n, n), dtype=torch.bool).tril(),
      position_embeddings=model.rotary_emb(hidden, torch.from_numpy(positions)),
    )

  angles = rope.sequence_angles(jnp.asarray(positions), c.head_dim, c.rope_theta)
  ours, _ = _layer(pair.layer("decoder", index), jnp.asarray(x), angles, c, _attend, segments)
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
