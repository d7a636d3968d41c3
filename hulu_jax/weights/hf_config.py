"""config.json of a Hugging Face folder to architecture numbers, none of them guessed."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl import logging

from hulu_jax.models import presets
from hulu_jax.models.config import DecoderConfig
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.config import VisionConfig
from hulu_jax.weights import names

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class _Section:
  """Part of a config.json that says where a missing key is missing; null counts as missing."""

  values: Mapping[str, Any]
  where: str

  def __contains__(self, key: str) -> bool:
    return self.values.get(key) is not None

  def __getitem__(self, key: str) -> Any:
    if key not in self:
      raise ValueError(f"{self.where} has no {key!r}")
    return self.values[key]

  def only(self, key: str, expected: Any) -> None:
    """Refuses an architecture that the model does not compute."""
    if key in self and self.values[key] != expected:
      found = f"{key} = {self.values[key]!r}"
      raise ValueError(f"{self.where}: {found} is not supported, {expected!r} is")


def parse(raw: Mapping[str, Any], where: str, shapes: Shapes) -> HuluConfig:
  """raw: the content of config.json; where: its name for errors; shapes: of the stored tensors.

  Raises:
    ValueError: a missing key or an unsupported architecture.
  """
  layout = names.detect(shapes)
  top = _Section(raw, where)
  if "text_config" in top:
    text = _Section(top["text_config"], f"{where} text_config")
    vision = _Section(top["vision_config"], f"{where} vision_config")
  else:
    given = top["vision_encoder_config"] if "vision_encoder_config" in top else {}
    known = _vision_from_tensors(shapes, layout)
    known |= {key: value for key, value in given.items() if value is not None}
    text, vision = top, _Section(known, f"{where} vision_encoder_config")
  said = [s["tie_word_embeddings"] for s in (top, text) if "tie_word_embeddings" in s]
  tied = any(said) if said else None
  return HuluConfig(vision=_vision(vision), decoder=_decoder(text, tied, layout, shapes))


def image_token_id(raw: Mapping[str, Any]) -> int | None:
  """The original code writes image_token_index, -1 where it was never set."""
  found = [raw[key] for key in ("image_token_id", "image_token_index") if raw.get(key) is not None]
  return found[0] if found and found[0] >= 0 else None


def _vision(s: _Section) -> VisionConfig:
  s.only("hidden_act", "gelu_pytorch_tanh")
  return VisionConfig(
    patch=_patch(s),
    channels=s["num_channels"],
    embed=s["hidden_size"],
    layers=s["num_hidden_layers"],
    heads=s["num_attention_heads"],
    head_dim=_head_dim(s),
    mlp=s["intermediate_size"],
    norm_eps=s["layer_norm_eps"],
    # A constant of the encoder's code before rope_parameters existed: no older file holds it.
    rope_theta=_theta(s, "axial") if _rope(s) else presets.SIGLIP.rope_theta,
  )


def _patch(s: _Section) -> int:
  """One number, or the two sides of a square."""
  value = s["patch_size"]
  sides = set(value) if isinstance(value, list) else {value}
  if len(sides) != 1:
    raise ValueError(f"{s.where}: patch_size = {value!r} is not supported, a square is")
  return sides.pop()


def _vision_from_tensors(shapes: Shapes, layout: str) -> dict[str, Any]:
  """What an original config.json may leave out; heads only for the one encoder ever released."""
  s = presets.SIGLIP
  kernel = shapes[names.torch_name("vision/patch/kernel", layout)]
  layers = 0
  while names.torch_name("vision/layers/up", layout, layers) in shapes:
    layers += 1
  if not layers:
    raise ValueError(f"no tensor {names.torch_name('vision/layers/up', layout)}")
  mlp = shapes[names.torch_name("vision/layers/up", layout)][0]
  found = {
    "hidden_size": kernel[0],
    "num_channels": kernel[1],
    "patch_size": kernel[2],
    "intermediate_size": mlp,
    "num_hidden_layers": layers,
    # The encoder's class leaves this out of a file where it has its own value, 1e-6.
    "layer_norm_eps": s.norm_eps,
  }
  if (kernel[0], mlp, layers) == (s.embed, s.mlp, s.layers):
    found["num_attention_heads"] = s.heads
  return found


def _decoder(s: _Section, tied: bool | None, layout: str, shapes: Shapes) -> DecoderConfig:
  s.only("hidden_act", "silu")
  s.only("use_sliding_window", False)
  head = names.torch_name("decoder/head", layout)
  if head not in shapes and tied is False:
    raise ValueError(f"{s.where}: tie_word_embeddings is false, but no tensor {head} is stored")
  if head in shapes and tied:
    logging.warning("%s says tied embeddings, but %s is stored: using it", s.where, head)
  return DecoderConfig(
    layers=s["num_hidden_layers"],
    embed=s["hidden_size"],
    heads=s["num_attention_heads"],
    kv_heads=s["num_key_value_heads"],
    head_dim=_head_dim(s),
    mlp=s["intermediate_size"],
    vocab=s["vocab_size"],
    rope_theta=_theta(s, "default"),
    norm_eps=s["rms_norm_eps"],
    qkv_bias=names.torch_name("decoder/layers/q_bias", layout) in shapes,
    qk_norm=names.torch_name("decoder/layers/q_norm", layout) in shapes,
    tied=head not in shapes,
    max_positions=s["max_position_embeddings"],
    embed_std=s["initializer_range"],
  )


def _head_dim(s: _Section) -> int:
  """Stated by Qwen3; hidden / heads in Qwen2.5 and the encoder, whose files never hold it."""
  if "head_dim" in s:
    return s["head_dim"]
  embed, heads = s["hidden_size"], s["num_attention_heads"]
  if embed % heads:
    raise ValueError(f"{s.where}: hidden_size {embed} does not divide into {heads} heads")
  return embed // heads


def _rope(s: _Section) -> Mapping[str, Any]:
  """rope_parameters since transformers 5, rope_scaling before."""
  return s.values.get("rope_parameters") or s.values.get("rope_scaling") or {}


def _theta(s: _Section, kind: str) -> float:
  rope = _Section(_rope(s), f"{s.where} rope")
  rope.only("rope_type", kind)
  rope.only("type", kind)
  rope.only("partial_rotary_factor", 1.0)
  return float((rope if "rope_theta" in rope else s)["rope_theta"])
