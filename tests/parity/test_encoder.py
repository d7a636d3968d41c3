"""The whole vision encoder on several media at once: features of every patch, and pooled."""

import jax
import numpy as np
import pytest

from hulu_jax.data import vision as vision_data
from hulu_jax.kernels.token_compaction import reference as compaction
from hulu_jax.models import scan
from hulu_jax.models import vision

torch = pytest.importorskip("torch", reason="parity compares with torch: install extra 'verify'")

# float32 on both sides; two layers, each within 1e-5 before a last norm that keeps the scale.
TOLERANCE = 1e-5

_forward = jax.jit(vision.forward, static_argnums=(4, 5))


def _groups(visuals, padding):
  """Each entry as a group of its own, its frames in one slot with padding behind."""
  groups = []
  for v in visuals:
    frames, n, values = v.patches.shape
    size = frames * n + padding
    patches, hw = np.zeros((1, 1, size, values), np.uint8), np.zeros((1, 1, size, 2), np.int16)
    segments = np.zeros((1, 1, size), np.int32)
    patches[0, 0, : frames * n] = v.patches.reshape(-1, values)
    hw[0, 0, : frames * n] = np.tile(vision_data.patch_places(v.grid, v.merge), (frames, 1))
    segments[0, 0, : frames * n] = np.repeat(np.arange(1, frames + 1), n)
    groups.append((patches, segments, hw))
  return tuple(zip(*groups, strict=True))


def test_encoder_and_pooled_features(pair, pictures, as_torch):
  visuals = [
    pictures.image(3, 4),
    pictures.video(3, 4, 6),
    pictures.video(2, 2, 8, channels=1),
  ]
  model, seen = pair.theirs.model.vision_model, []
  hook = model.post_layernorm.register_forward_hook(lambda module, args, out: seen.append(out))
  with torch.no_grad():
    their_pooled = model(**as_torch(visuals)).last_hidden_state
  hook.remove()

  groups = _groups(visuals, padding=4)
  ours = _forward(pair.params["vision"], *groups, pair.config.vision, scan.FLOAT32)
  sizes = [segments.size for segments in groups[1]]
  kept = np.concatenate([segments.ravel() > 0 for segments in groups[1]])
  np.testing.assert_allclose(ours[0][kept], seen[0], rtol=0, atol=TOLERANCE)

  merges = [v.merge for v in visuals]
  pooled = compaction.pool(ours, tuple(zip(sizes, merges, strict=True)))
  whole = np.concatenate([s.ravel()[:: m * m] > 0 for s, m in zip(groups[1], merges, strict=True)])
  np.testing.assert_allclose(pooled[0][whole], their_pooled, rtol=0, atol=TOLERANCE)
