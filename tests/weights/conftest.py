"""Small checkpoints of random tensors, written without torch."""

from collections.abc import Callable
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.models import presets
from hulu_jax.models.config import HuluConfig
from hulu_jax.weights import names
from tests.weights import small_words

# The tiny preset at the thetas that its files can state.
CONFIG = dataclasses.replace(
  presets.TINY, decoder=dataclasses.replace(presets.TINY.decoder, rope_theta=1e6)
)


def _tensors(config: HuluConfig, layout: str) -> dict[str, np.ndarray]:
  random = np.random.default_rng(0)
  return {
    entry.name: random.normal(size=entry.shape).astype(np.float32)
    for entries in names.entries(config, layout).values()
    for entry in entries
  }


def _native_json(c: HuluConfig) -> dict[str, Any]:
  v, d = c.vision, c.decoder
  return {
    "model_type": "video_llama_3",
    "image_token_id": 7,
    "tie_word_embeddings": d.tied,
    "text_config": {
      "model_type": "qwen3",
      "hidden_act": "silu",
      "hidden_size": d.embed,
      "intermediate_size": d.mlp,
      "num_hidden_layers": d.layers,
      "num_attention_heads": d.heads,
      "num_key_value_heads": d.kv_heads,
      "head_dim": d.head_dim,
      "vocab_size": d.vocab,
      "rms_norm_eps": d.norm_eps,
      "rope_parameters": {"rope_type": "default", "rope_theta": d.rope_theta},
      "max_position_embeddings": d.max_positions,
      "initializer_range": d.embed_std,
    },
    "vision_config": {
      "hidden_act": "gelu_pytorch_tanh",
      "hidden_size": v.embed,
      "intermediate_size": v.mlp,
      "num_hidden_layers": v.layers,
      "num_attention_heads": v.heads,
      "num_channels": v.channels,
      "patch_size": v.patch,
      "layer_norm_eps": v.norm_eps,
      "rope_parameters": {"rope_type": "axial", "rope_theta": v.rope_theta},
    },
  }


class Checkpoint:
  """A folder under construction: change `tensors` or `json`, then `write`."""

  def __init__(self, folder: pathlib.Path, config: HuluConfig, layout: str):
    self.folder, self.config = folder, config
    self.tensors = _tensors(config, layout)
    self.json: dict[str, Any] = {}
    self.describe(config)

  def describe(self, config: HuluConfig) -> None:
    """Makes `json` that of another size."""
    self.json = _native_json(config)

  def write(self, shards: int = 1) -> pathlib.Path:
    (self.folder / "config.json").write_text(json.dumps(self.json))
    if shards == 1:
      save_file(self.tensors, self.folder / "model.safetensors")
      return self.folder
    weight_map = {}
    for i in range(shards):
      part = {name: self.tensors[name] for name in sorted(self.tensors)[i::shards]}
      file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
      save_file(part, self.folder / file)
      weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (self.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return self.folder


@pytest.fixture
def checkpoint(tmp_path: pathlib.Path) -> Callable[..., Checkpoint]:
  """checkpoint(config, layout): a Checkpoint in the test's own folder."""
  return lambda config=CONFIG, layout="video_llama_3": Checkpoint(tmp_path, config, layout)


@pytest.fixture(scope="session")
def words() -> tokenizer_lib.Tokenizer:
  """A tokenizer.json of Qwen's kind and special tokens, with few words."""
  return small_words.made()
