"""config.json in its several forms; a number that is not there is an error, not a guess."""

import dataclasses

import pytest

from hulu_jax.models import presets
from hulu_jax.weights import hf_config
from hulu_jax.weights import load
from hulu_jax.weights import names


def original(made):
  """The native config.json in the original form, the encoder's part whole."""
  text, vision = dict(made.json["text_config"]), dict(made.json["vision_config"])
  theta = text.pop("rope_parameters")["rope_theta"]
  vision.pop("rope_parameters")
  made.json = {**text, "rope_theta": theta, "rope_scaling": None, "vision_encoder_config": vision}
  return made.json


@pytest.mark.parametrize(
  ("section", "key"),
  [
    *(("text_config", key) for key in ("hidden_size", "num_key_value_heads", "rms_norm_eps")),
    *(("text_config", key) for key in ("vocab_size", "max_position_embeddings")),
    *(("vision_config", key) for key in ("hidden_size", "num_attention_heads", "layer_norm_eps")),
    *(("vision_config", key) for key in ("patch_size", "num_channels")),
  ],
)
def test_a_missing_key_names_itself_and_its_file(checkpoint, section, key):
  made = checkpoint()
  del made.json[section][key]
  with pytest.raises(ValueError, match=rf"config\.json {section} has no '{key}'"):
    load.read_config(made.write())


def test_a_missing_theta(checkpoint):
  made = checkpoint()
  del made.json["text_config"]["rope_parameters"]
  with pytest.raises(ValueError, match="text_config has no 'rope_theta'"):
    load.read_config(made.write())


def test_older_files_state_theta_by_itself(checkpoint):
  made = checkpoint()
  del made.json["text_config"]["rope_parameters"]
  made.json["text_config"] |= {"rope_theta": 5e6, "rope_scaling": None}
  assert load.read_config(made.write()).decoder.rope_theta == 5e6


def test_head_dim_follows_from_the_width_where_it_is_not_stated(checkpoint):
  made = checkpoint()
  del made.json["text_config"]["head_dim"]
  assert load.read_config(made.write()).decoder.head_dim == made.config.decoder.head_dim
  made.json["text_config"]["num_attention_heads"] = 5
  with pytest.raises(ValueError, match="hidden_size 64 does not divide into 5 heads"):
    load.read_config(made.write())


@pytest.mark.parametrize(
  ("section", "change", "message"),
  [
    ("text_config", {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported, 'silu' is"),
    ("text_config", {"use_sliding_window": True}, "use_sliding_window = True is not supported"),
    (
      "text_config",
      {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}},
      "rope_type = 'yarn' is not supported, 'default' is",
    ),
    ("vision_config", {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
    ("vision_config", {"patch_size": [14, 16]}, r"patch_size = \[14, 16\] is not supported"),
  ],
)
def test_what_the_model_does_not_compute_is_refused(checkpoint, section, change, message):
  made = checkpoint()
  made.json[section] |= change
  with pytest.raises(ValueError, match=message):
    load.read_config(made.write())


@pytest.mark.parametrize("layout", ["hulumed", "hulumed_local"])
def test_original_form(checkpoint, layout):
  made = checkpoint(layout=layout)
  original(made)
  vision = dataclasses.replace(made.config.vision, rope_theta=presets.SIGLIP.rope_theta)
  assert load.read_config(made.write()) == dataclasses.replace(made.config, vision=vision)


def test_original_form_without_the_number_of_heads(checkpoint):
  """Shapes tell all else; heads only for the encoder that was released."""
  made = checkpoint(layout="hulumed")
  original(made)["vision_encoder_config"] = {"num_attention_heads": None}
  with pytest.raises(ValueError, match="vision_encoder_config has no 'num_attention_heads'"):
    load.read_config(made.write())


@pytest.mark.parametrize("preset", ["hulu-4b", "hulu-7b", "hulu-14b", "hulu-32b"])
@pytest.mark.parametrize("given", [None, {"model_type": "hulumed_vision_encoder"}])
def test_released_sizes_without_an_encoder_config(checkpoint, preset, given):
  """From shapes alone, nothing allocated."""
  config = presets.get(preset)
  made = checkpoint()
  made.describe(config)
  original(made)["vision_encoder_config"] = given
  table = names.entries(config, "hulumed")
  shapes = {entry.name: entry.shape for entries in table.values() for entry in entries}
  assert hf_config.parse(made.json, "config.json", shapes) == config


def test_qwen3_is_told_by_its_tensors(checkpoint):
  """Local checkpoints call every decoder qwen2."""
  made = checkpoint(layout="hulumed_local")
  original(made)["model_type"] = "hulumed_qwen2"
  decoder = load.read_config(made.write()).decoder
  assert (decoder.qk_norm, decoder.qkv_bias) == (True, False)


def test_tying_follows_what_is_stored(checkpoint):
  made = checkpoint()
  made.json["tie_word_embeddings"] = True
  assert not load.read_config(made.write()).decoder.tied
  del made.tensors["lm_head.weight"]
  assert load.read_config(made.write()).decoder.tied
  made.json["tie_word_embeddings"] = False
  with pytest.raises(
    ValueError, match="tie_word_embeddings is false, but no tensor lm_head.weight"
  ):
    load.read_config(made.write())


@pytest.mark.parametrize(
  ("keys", "expected"),
  [
    ({"image_token_id": 151655}, 151655),
    ({"image_token_index": 151665}, 151665),
    ({"image_token_index": -1}, None),
    ({}, None),
  ],
)
def test_image_token_id(checkpoint, keys, expected):
  made = checkpoint()
  del made.json["image_token_id"]
  made.json |= keys
  assert load.image_token_id(made.write()) == expected


def test_a_square_patch_may_be_given_by_both_sides(checkpoint):
  made = checkpoint()
  made.json["vision_config"]["patch_size"] = [14, 14]
  assert load.read_config(made.write()).vision.patch == 14
