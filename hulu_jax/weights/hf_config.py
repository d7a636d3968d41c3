"""config.json of a Hugging Face folder to architecture numbers, none of them guessed."""

from collections.abc import Iterator, Mapping
import dataclasses
import math
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

  def count(self, key: str) -> int:
    """A whole number of at least one."""
    value = self[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise ValueError(f"{self.where}: {key} = {value!r}; expected a whole number of at least 1")
    return value

  def real(self, key: str) -> float:
    """A finite number above zero."""
    value = self[key]
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not math.isfinite(value) or value <= 0:
      raise ValueError(f"{self.where}: {key} = {value!r}; expected a number above 0")
    return float(value)

  def inner(self, key: str) -> "_Section":
    """The object under a key."""
    value = self[key]
    if not isinstance(value, Mapping):
      raise ValueError(f"{self.where}: {key} is {type(value).__name__}; expected an object")
    return _Section(value, f"{self.where} {key}")

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
  if absent := sorted({"vision", "decoder"} - set(names.parts(layout))):
    raise ValueError(
      f"{where}: the tensors are those of {layout} alone, without {' and '.join(absent)}; "
      "hulu convert puts a model together from such pieces"
    )
  return HuluConfig(
    vision=vision(raw, where, shapes, layout), decoder=decoder(raw, where, shapes, layout)
  )


def vision(raw: Mapping[str, Any], where: str, shapes: Shapes, layout: str) -> VisionConfig:
  """The encoder's part of a config.json, or one that is the encoder's own; raises as `parse`."""
  top = _Section(raw, where)
  if "vision_config" in top:
    section = top.inner("vision_config")
  elif len(names.parts(layout)) == 1:
    section = top
  else:
    given = top.inner("vision_encoder_config").values if "vision_encoder_config" in top else {}
    known = _vision_from_tensors(shapes, layout)
    known |= {key: value for key, value in given.items() if value is not None}
    section = _Section(known, f"{where} vision_encoder_config")
  found = _vision(section)
  _layers_stored("vision", found.layers, section.where, shapes, layout)
  return found


def decoder(raw: Mapping[str, Any], where: str, shapes: Shapes, layout: str) -> DecoderConfig:
  """The decoder's part of a config.json, or one that is a decoder's own; raises as `parse`."""
  top = _Section(raw, where)
  text = top.inner("text_config") if "text_config" in top else top
  said = [s["tie_word_embeddings"] for s in (top, text) if "tie_word_embeddings" in s]
  found = _decoder(text, any(said) if said else None, layout, shapes)
  _layers_stored("decoder", found.layers, text.where, shapes, layout)
  return found


def _layers_stored(part: str, layers: int, where: str, shapes: Shapes, layout: str) -> None:
  """Stops at a number of layers that would only fill memory with names."""
  if layers > 2 * names.layers(part, layout, shapes) + 1000:
    stored = names.layers(part, layout, shapes)
    raise ValueError(f"{where}: num_hidden_layers = {layers}, but {stored} layers are stored")


# What a config.json may say beside what is read here, and what a converted one says anew: of the
# published Qwen2.5, Qwen3, SigLIP-NaViT, VideoLLaMA3 and Hulu-Med files, and of transformers.
_SAID = frozenset(
  """_attn_implementation _attn_implementation_autoset _name_or_path add_cross_attention
  architectures attention_bias attention_dropout bos_token_id chunk_size_feed_forward
  cross_attention_hidden_size decoder_start_token_id dtype eos_token_id head_dim hidden_act
  hidden_size id2label image_aspect_ratio image_size image_token_id image_token_index
  image_token_length initializer_range intermediate_size is_alignment is_decoder
  is_encoder_decoder label2id layer_norm_eps layer_types llm_lr max_frames
  max_position_embeddings max_window_layers mlp_bias mm_hidden_size mm_projector_lr
  mm_projector_type mm_vision_encoder model_type num_attention_heads num_channels
  num_hidden_layers num_key_value_heads output_attentions output_hidden_states pad_token_id
  partial_rotary_factor patch_size pretraining_tp problem_type return_dict rms_norm_eps
  rope_parameters rope_scaling rope_theta sep_token_id sliding_window text_config tf_legacy_loss
  tie_word_embeddings tokenizer_class tokenizer_model_max_length tokenizer_padding_side
  torch_dtype torchscript transformers_version use_bfloat16 use_cache use_mm_proj
  use_sliding_window use_token_compression video_token_id vision_config vision_encoder
  vision_encoder_config vision_encoder_lr vocab_size""".split()
)
_CODE = ("auto_map", "_attn_implementation_internal", "custom_pipelines")


def ignored(raw: Mapping[str, Any]) -> Iterator[str]:
  """A line for whatever a config.json says that has no effect: code first, then unknown keys."""
  inner = [raw, *(raw[key] for key in ("text_config", "vision_config", "vision_encoder_config")
                  if isinstance(raw.get(key), Mapping))]  # fmt: skip
  keys = {key for section in inner for key in section}
  if code := sorted(keys & set(_CODE)):
    yield f"config.json names code ({', '.join(code)}): not run, not carried over"
  if unknown := sorted(keys - _SAID - set(_CODE)):
    yield f"config.json has keys without a meaning here, not carried over: {', '.join(unknown)}"


def image_token_id(raw: Mapping[str, Any]) -> int | None:
  """The original code writes image_token_index, -1 where it was never set."""
  found = [raw[key] for key in ("image_token_id", "image_token_index") if raw.get(key) is not None]
  return found[0] if found and found[0] >= 0 else None


def _vision(s: _Section) -> VisionConfig:
  s.only("hidden_act", "gelu_pytorch_tanh")
  return VisionConfig(
    patch=_patch(s),
    channels=s.count("num_channels"),
    embed=s.count("hidden_size"),
    layers=s.count("num_hidden_layers"),
    heads=s.count("num_attention_heads"),
    head_dim=_head_dim(s),
    mlp=s.count("intermediate_size"),
    norm_eps=s.real("layer_norm_eps"),
    # A constant of the encoder's code before rope_parameters existed: no older file holds it.
    rope_theta=_theta(s, "axial") if _rope(s) or "rope_theta" in s else presets.SIGLIP.rope_theta,
  )


def _patch(s: _Section) -> int:
  """One number, or the two sides of a square."""
  value = s["patch_size"]
  if not isinstance(value, list):
    return s.count("patch_size")
  if len(value) != 2 or value[0] != value[1]:
    raise ValueError(f"{s.where}: patch_size = {value!r} is not supported, a square is")
  return _Section({"patch_size": value[0]}, s.where).count("patch_size")


def _vision_from_tensors(shapes: Shapes, layout: str) -> dict[str, Any]:
  """What an original config.json may leave out; heads only for the one encoder ever released."""
  s = presets.SIGLIP
  name = names.torch_name("vision/patch/kernel", layout)
  kernel = shapes.get(name, ())
  if len(kernel) != 4:
    raise ValueError(
      f"{name} has the shape {kernel or None}; expected out, channels, rows, columns"
    )
  layers = names.layers("vision", layout, shapes)
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
    layers=s.count("num_hidden_layers"),
    embed=s.count("hidden_size"),
    heads=s.count("num_attention_heads"),
    kv_heads=s.count("num_key_value_heads"),
    head_dim=_head_dim(s),
    mlp=s.count("intermediate_size"),
    vocab=s.count("vocab_size"),
    rope_theta=_theta(s, "default"),
    norm_eps=s.real("rms_norm_eps"),
    qkv_bias=names.torch_name("decoder/layers/q_bias", layout) in shapes,
    qk_norm=names.torch_name("decoder/layers/q_norm", layout) in shapes,
    tied=head not in shapes,
    max_positions=s.count("max_position_embeddings"),
    embed_std=s.real("initializer_range"),
  )


def _head_dim(s: _Section) -> int:
  """Stated by Qwen3; hidden / heads in Qwen2.5 and the encoder, whose files never hold it."""
  if "head_dim" in s:
    return s.count("head_dim")
  embed, heads = s.count("hidden_size"), s.count("num_attention_heads")
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
  return (rope if "rope_theta" in rope else s).real("rope_theta")
