"""Rotary positions: where a patch stands, its angles, and the turn they give."""

import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.data import vision as vision_data
from hulu_jax.models import rope

torch = pytest.importorskip("torch", reason="parity compares with torch: install extra 'verify'")

# Frequencies are rounded alike but for a rare unit in the last place, times a position.
TOLERANCE = 1e-5


@pytest.mark.parametrize(("grid", "merge"), [((6, 9), 1), ((4, 10), 2)])
def test_patch_places(grid, merge):
  from transformers import vision_utils

  theirs = vision_utils.get_vision_position_ids(torch.tensor([[2, *grid]]), torch.tensor([merge]))
  np.testing.assert_array_equal(np.tile(vision_data.patch_places(grid, merge), (2, 1)), theirs)


def test_vision_angles_and_rotation(pair):
  from transformers.models.video_llama_3 import modeling_video_llama_3 as reference

  c = pair.config.vision
  places = vision_data.patch_places((37, 40), 1).astype(np.int32)
  theirs = pair.theirs.model.vision_model.rotary_pos_emb(torch.zeros(1), torch.from_numpy(places))
  angles = rope.grid_angles(jnp.asarray(places), c.head_dim, c.rope_theta)
  for ours, their in zip((jnp.cos(angles), jnp.sin(angles)), theirs, strict=True):
    np.testing.assert_allclose(np.tile(ours, 2), their, rtol=0, atol=TOLERANCE)
  q = torch.randn(len(places), c.heads, c.head_dim)
  turned, _ = reference.apply_rotary_pos_emb_vision(q, q, *theirs)
  # The angle's error times values of up to about 4.
  np.testing.assert_allclose(rope.rotate(q.numpy(), angles), turned, rtol=0, atol=4 * TOLERANCE)


def test_decoder_angles_and_rotation(pair):
  from transformers.models.qwen2 import modeling_qwen2 as reference

  c = pair.config.decoder
  positions = np.arange(64)
  theirs = pair.theirs.model.language_model.rotary_emb(
    torch.zeros(1), torch.from_numpy(positions)[None]
  )
  angles = rope.sequence_angles(jnp.asarray(positions), c.head_dim, c.rope_theta)
  for ours, their in zip((jnp.cos(angles), jnp.sin(angles)), theirs, strict=True):
    np.testing.assert_allclose(np.tile(ours, 2), their[0], rtol=0, atol=TOLERANCE)
  q = torch.randn(1, c.heads, len(positions), c.head_dim)
  turned, _ = reference.apply_rotary_pos_emb(q, q, *theirs)
  ours = rope.rotate(q[0].transpose(0, 1).numpy(), angles)
  np.testing.assert_allclose(ours, turned[0].transpose(0, 1), rtol=0, atol=4 * TOLERANCE)


@pytest.mark.parametrize("head_dim", [128, 64])
def test_decoder_angles_of_the_released_sizes(head_dim):
  """To the last position: a frequency that is rounded otherwise is 0.002 radians off there."""
  from transformers import Qwen2Config
  from transformers.models.qwen2 import modeling_qwen2 as reference

  config = Qwen2Config(
    hidden_size=head_dim,
    num_attention_heads=1,
    max_position_embeddings=32768,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6},
  )
  positions = np.arange(0, 32768, 7)
  theirs = reference.Qwen2RotaryEmbedding(config)(torch.zeros(1), torch.from_numpy(positions)[None])
  angles = rope.sequence_angles(jnp.asarray(positions), head_dim, 1e6)
  for ours, their in zip((jnp.cos(angles), jnp.sin(angles)), theirs, strict=True):
    np.testing.assert_allclose(np.tile(ours, 2), their[0], rtol=0, atol=TOLERANCE)


def test_vision_angles_of_the_released_size():
  """16384 visual tokens, unmerged, as one wide picture."""
  from transformers import VideoLlama3VisionConfig
  from transformers.models.video_llama_3 import modeling_video_llama_3 as reference

  config = VideoLlama3VisionConfig(
    hidden_size=1152,
    num_attention_heads=16,
    rope_parameters={"rope_type": "axial", "rope_theta": 1e4},
  )
  places = vision_data.patch_places((14, 1170), 1).astype(np.int32)
  theirs = reference.VideoLlama3VisionRotaryEmbedding(config)(
    torch.zeros(1), torch.from_numpy(places)
  )
  angles = rope.grid_angles(jnp.asarray(places), 72, 1e4)
  for ours, their in zip((jnp.cos(angles), jnp.sin(angles)), theirs, strict=True):
    np.testing.assert_allclose(np.tile(ours, 2), their, rtol=0, atol=TOLERANCE)
