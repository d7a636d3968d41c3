"""Patch embedding: a product over bytes, normalised on device, against torch's convolution."""

import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.models import vision
from hulu_jax.models.scan import FLOAT32

# float32 on both sides; sums of 588 products of order 1/24, taken in another order.
TOLERANCE = 1e-5


@pytest.mark.parametrize("channels", [3, 1])
def test_patch_embedding(pair, pictures, as_torch, channels):
  picture = pictures.image(5, 6, channels)
  theirs = pair.theirs.model.vision_model.embeddings(as_torch([picture])["pixel_values"])
  ours = vision.embed_patches(
    pair.params["vision"]["patch"], jnp.asarray(picture.patches), pair.config.vision, FLOAT32
  )
  np.testing.assert_allclose(ours[0], theirs.detach().numpy(), rtol=0, atol=TOLERANCE)
