"""Weights on their way: every layout of names, sharded or not, float32 or bfloat16, and back."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.weights import export
from hulu_jax.weights import load
from hulu_jax.weights import names

torch = pytest.importorskip("torch", reason="parity compares with torch: install extra 'verify'")

# transformers' prefixes to those of the two original layouts, as plain text.
RENAMES = {
  "hulumed": {
    "model.vision_model.": "model.vision_encoder.",
    "model.projector.": "model.mm_projector.",
    "model.language_model.": "model.",
  },
  "hulumed_local": {
    "model.vision_model.": "model.vision_encoder.vision_encoder.",
    "model.projector.": "model.mm_projector.",
    "model.language_model.": "model.",
  },
}


def _stored(model) -> dict[str, np.ndarray]:
  """What torch saves: a tied head is not stored twice."""
  tensors = {name: t.detach().contiguous() for name, t in model.state_dict().items()}
  if model.config.tie_word_embeddings:
    del tensors["lm_head.weight"]
  return tensors


def _renamed(tensors, layout):
  renamed = {}
  for name, tensor in tensors.items():
    for old, new in RENAMES[layout].items():
      if name.startswith(old):
        name = new + name[len(old) :]
        break
    renamed[name] = tensor
  return renamed


def _original_config(model) -> dict:
  """config.json of an original Hulu-Med repository, from transformers' config of the same model."""
  text, vision = model.config.text_config.to_dict(), model.config.vision_config.to_dict()
  theta = text.pop("rope_parameters")["rope_theta"]
  vision.pop("rope_parameters")
  # The local training code calls every decoder qwen2.
  own = {"model_type": "hulumed_qwen2", "image_token_index": -1, "vision_encoder": None}
  return {**text, **own, "rope_theta": theta, "rope_scaling": None, "vision_encoder_config": vision}


def test_native_tensors_return_byte_equal(pair):
  ours = dict(export.tensors(pair.params, pair.config, "video_llama_3"))
  theirs = _stored(pair.theirs)
  assert ours.keys() == theirs.keys()
  for name, tensor in theirs.items():
    assert ours[name].tobytes() == tensor.numpy().tobytes(), name


@pytest.mark.parametrize("layout", RENAMES)
def test_original_layouts(pair, tmp_path, layout):
  from safetensors.torch import save_file

  theirs = _renamed(_stored(pair.theirs), layout)
  save_file(theirs, tmp_path / "model.safetensors")
  (tmp_path / "config.json").write_text(json.dumps(_original_config(pair.theirs)))
  config = load.read_config(tmp_path)
  assert config.decoder == pair.config.decoder
  # No original file holds the encoder's theta: its code has 10000.
  assert config.vision == dataclasses.replace(pair.config.vision, rope_theta=1e4)
  assert load.image_token_id(tmp_path) is None
  params = load.load_params(tmp_path, config)
  jax.tree.map(np.testing.assert_array_equal, params, pair.params)
  ours = dict(export.tensors(params, config, layout))
  assert ours.keys() == theirs.keys()
  for name, tensor in theirs.items():
    assert ours[name].tobytes() == tensor.numpy().tobytes(), name


def test_config_and_image_token(pair):
  v, d = pair.theirs.config.vision_config, pair.theirs.config.text_config
  c = pair.config
  assert (c.vision.norm_eps, c.vision.rope_theta) == (
    v.layer_norm_eps,
    v.rope_parameters["rope_theta"],
  )
  assert (c.decoder.norm_eps, c.decoder.rope_theta) == (
    d.rms_norm_eps,
    d.rope_parameters["rope_theta"],
  )
  assert c.decoder.tied == d.tie_word_embeddings
  assert c.decoder.qk_norm == (d.model_type == "qwen3")
  assert c.decoder.qkv_bias == (d.model_type == "qwen2")
  assert c.decoder.max_positions == d.max_position_embeddings
  assert load.image_token_id(pair.folder) == pair.theirs.config.image_token_id


def test_both_kinds_of_folder_are_covered(pairs):
  """One file, and shards with an index."""
  assert (pairs("qwen2-kv2").folder / "model.safetensors").exists()
  assert (pairs("qwen3-kv3").folder / "model.safetensors.index.json").exists()


def test_bfloat16(pairs, tmp_path):
  """A bfloat16 checkpoint is read exactly, as bfloat16 and as float32."""
  pair = pairs("qwen3-kv3")
  from safetensors.torch import save_file

  theirs = {name: t.bfloat16() for name, t in _stored(pair.theirs).items()}
  save_file(theirs, tmp_path / "model.safetensors")
  for dtype in (jnp.bfloat16, jnp.float32):
    params = load.load_params(tmp_path, pair.config, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(dtype)}
    for name, array in export.tensors(params, pair.config, names.detect(theirs)):
      np.testing.assert_array_equal(array.astype(np.float32), theirs[name].float().numpy())
