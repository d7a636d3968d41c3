"""The small files of a Hugging Face folder: architecture, generation, how media are shown, chat."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np

from hulu_jax.data.vision import Policy
from hulu_jax.models.config import DecoderConfig
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.config import VisionConfig

# Qwen's, of both generations; transformers' class finds the places of pictures and clips by them.
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
# Of the encoder in the original code, which no file of it states.
_THETA = 1e4


def config(
  c: HuluConfig, layout: str, policy: Policy, dtype: np.dtype, ids: Mapping[str, int | None]
) -> dict[str, Any]:
  """config.json of `layout`; ids: "image", "video", "eos" and "pad", None where not known."""
  known = {name: value for name, value in ids.items() if value is not None}
  if layout == "video_llama_3":
    text = _decoder(c.decoder, "qwen3" if c.decoder.qk_norm else "qwen2")
    rope = {"rope_type": "default", "rope_theta": c.decoder.rope_theta}
    axial = {"rope_type": "axial", "rope_theta": c.vision.rope_theta}
    tokens = {f"{name}_token_id": known[name] for name in ("image", "video") if name in known}
    return {
      "architectures": ["VideoLlama3ForConditionalGeneration"],
      "model_type": "video_llama_3",
      "dtype": dtype.name,
      "tie_word_embeddings": c.decoder.tied,
      **tokens,
      "text_config": {**text, "dtype": dtype.name, "rope_parameters": rope, **_ends(known)},
      "vision_config": {
        **_vision(c.vision, "video_llama_3_vision"),
        "dtype": dtype.name,
        "rope_parameters": axial,
      },
    }
  qwen = "qwen3" if c.decoder.qk_norm else "qwen2"
  theta = {} if c.vision.rope_theta == _THETA else {"rope_theta": c.vision.rope_theta}
  return {
    "architectures": [f"Hulumed{qwen.capitalize()}ForCausalLM"],
    **_decoder(c.decoder, f"hulumed_{qwen}"),
    "rope_theta": c.decoder.rope_theta,
    "rope_scaling": None,
    "torch_dtype": dtype.name,
    "image_token_index": known.get("image", -1),
    "mm_projector_type": "mlp2x_gelu",
    # The only rule that the original code has.
    "use_token_compression": policy.compression.mode == "hulumed",
    "vision_encoder": None,
    "vision_encoder_config": {**_vision(c.vision, "hulumed_vision_encoder"), **theta},
    **_ends(known),
  }


def _ends(known: Mapping[str, int]) -> dict[str, int]:
  return {f"{name}_token_id": known[name] for name in ("eos", "pad") if name in known}


def _decoder(d: DecoderConfig, model_type: str) -> dict[str, Any]:
  return {
    "model_type": model_type,
    "hidden_act": "silu",
    "hidden_size": d.embed,
    "initializer_range": d.embed_std,
    "intermediate_size": d.mlp,
    "max_position_embeddings": d.max_positions,
    "num_attention_heads": d.heads,
    "num_hidden_layers": d.layers,
    "num_key_value_heads": d.kv_heads,
    "head_dim": d.head_dim,
    "rms_norm_eps": d.norm_eps,
    "tie_word_embeddings": d.tied,
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": d.vocab,
  }


def _vision(v: VisionConfig, model_type: str) -> dict[str, Any]:
  return {
    "model_type": model_type,
    "attention_dropout": 0.0,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": v.embed,
    "intermediate_size": v.mlp,
    "layer_norm_eps": v.norm_eps,
    "num_attention_heads": v.heads,
    "num_channels": v.channels,
    "num_hidden_layers": v.layers,
    "patch_size": v.patch,
  }


def refuse(c: HuluConfig, layout: str) -> None:
  """Raises ValueError for an architecture that the classes of a layout do not compute."""
  d, v = c.decoder, c.vision
  wrong = []
  if d.qkv_bias == d.qk_norm:
    wrong.append(f"qkv_bias = {d.qkv_bias} with qk_norm = {d.qk_norm} is neither Qwen2 nor Qwen3")
  if d.qkv_bias and d.head_dim * d.heads != d.embed:
    wrong.append(f"a Qwen2 decoder of {d.heads} heads of {d.head_dim} in a width of {d.embed}")
  if v.head_dim * v.heads != v.embed:
    wrong.append(f"an encoder of {v.heads} heads of {v.head_dim} in a width of {v.embed}")
  if wrong:
    raise ValueError(f"layout {layout} cannot say {'; '.join(wrong)}")


def write_processor(folder: pathlib.Path, layout: str, policy: Policy) -> None:
  """How the processors of a layout show media, as close to `policy` as they can."""
  shown = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "patch_size": policy.patch,
    "resample": 3,
    "rescale_factor": 1 / 255,
  }
  if layout != "video_llama_3":
    own = {"min_tokens": policy.min_tokens, "max_tokens": policy.max_tokens}
    names = {
      "image_processor_type": "HulumedImageProcessor",
      "processor_class": "HulumedProcessor",
      "image_merge_size": policy.merge["image"],
      "video_merge_size": policy.merge["video"],
    }
    _write(folder / "preprocessor_config.json", {**names, **shown, **own})
    _write(folder / "chat_template.json", {"chat_template": template(layout)})
    return
  image = {
    **shown,
    **_sides(policy, "image"),
    "image_processor_type": "VideoLlama3ImageProcessor",
  }
  video = {
    **shown,
    **_sides(policy, "video"),
    "video_processor_type": "VideoLlama3VideoProcessor",
    "do_sample_frames": False,
    "use_token_compression": policy.compression.mode == "videollama3",
  }
  both = {"processor_class": "VideoLlama3Processor"}
  # Releases of transformers before 5 read the last two, later ones the first.
  processors = {"image_processor": image, "video_processor": video}
  _write(folder / "processor_config.json", {**both, **processors})
  _write(folder / "preprocessor_config.json", {**both, **image})
  _write(folder / "video_preprocessor_config.json", {**both, **video})
  (folder / "chat_template.jinja").write_text(template(layout))


def _sides(policy: Policy, kind: str) -> dict[str, Any]:
  """transformers counts pixels where we count visual tokens."""
  token = (policy.patch * policy.merge[kind]) ** 2
  size = {"shortest_edge": policy.min_tokens * token, "longest_edge": policy.max_tokens * token}
  return {"merge_size": policy.merge[kind], "temporal_patch_size": 1, "size": size}


def template(layout: str) -> str:
  """`data.chat` as a Jinja template: what it makes of a conversation with text, pictures, clips.

  In transformers' layout a clip is one token, which the processor expands with the times of its
  frames; a volume is its slices, as pictures, in one item {"type": "volume", "num_frames": n}.  In
  the original layout every frame is an <image>, as many as the item's `num_frames`.
  """
  native = layout == "video_llama_3"
  clip = "{{ '" + VIDEO + "\\n' }}" if native else _FRAMES
  whole = _TEMPLATE.replace("CLIP", clip).replace("FRAMES", _FRAMES)
  return whole.replace("IMAGE", IMAGE if native else "<image>")


# White space around every tag is cut, so lines may be broken anywhere.
_FRAMES = """{%- for frame in range(item['num_frames']) -%}
      {%- if item['timestamps'] is defined -%}
        {{ 'Time ' ~ item['timestamps'][frame] | round(1) ~ 's:' }}
      {%- endif -%}
      {{ 'IMAGE' ~ (',' if not loop.last else '\\n') }}
    {%- endfor -%}"""
_TEMPLATE = """{%- for message in messages -%}
  {%- set kind = 'stream' if message['role'] == 'stream' else 'im' -%}
  {{ '<|' ~ kind ~ '_start|>' ~ message['role'] ~ '\\n' }}
  {%- set content = message['content'] -%}
  {%- if content is string -%}
    {%- set content = [{'type': 'text', 'text': content}] -%}
  {%- endif -%}
  {%- for item in content -%}
    {%- if item['type'] == 'text' -%}
      {{ item['text'] | trim if message['role'] == 'assistant' else item['text'] }}
    {%- elif item['type'] == 'image' -%}
      {{ ('Time ' ~ item['time'] | round(1) ~ 's: ') if item['time'] is defined else '' }}
      {{- 'IMAGE\\n' }}
    {%- elif item['type'] == 'video' -%}
      CLIP
    {%- elif item['type'] == 'volume' -%}
      FRAMES
    {%- endif -%}
  {%- endfor -%}
  {{ '<|' ~ kind ~ '_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def write_generation(folder: pathlib.Path, eos: tuple[int, ...], pad: int | None) -> None:
  """generation_config.json: greedy, as the numbers of `--verify` are, until any end token."""
  known = {} if pad is None else {"pad_token_id": pad}
  _write(
    folder / "generation_config.json", {"do_sample": False, "eos_token_id": list(eos), **known}
  )


def _write(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2) + "\n")


def write_tokenizer_config(folder: pathlib.Path, longest: int) -> None:
  """tokenizer_config.json beside a tokenizer.json that says everything about ids."""
  content = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "model_max_length": longest,
    "clean_up_tokenization_spaces": False,
  }
  _write(folder / "tokenizer_config.json", content)


def differences(c: HuluConfig, layout: str, policy: Policy) -> list[str]:
  """What a layout's model and processors do otherwise than ours, for the model card."""
  mode = policy.compression.mode
  if layout != "video_llama_3":
    rule = {
      "off": "`use_token_compression` is off",
      "hulumed": "`use_token_compression` is on: the original code has the policy's rule",
    }.get(mode, f"`use_token_compression` is off: the original code has no rule `{mode}`")
    notes = [rule, "Weights and settings only: the original code reads them, none is enclosed"]
    if c.vision.rope_theta != _THETA:
      notes.append(
        f"WARNING: the original code would compute otherwise. Its encoder has a rope_theta of "
        f"{_THETA:g} whatever a file says, this one has {c.vision.rope_theta:g}"
      )
    return notes
  return [
    "`<|image_pad|>` stands for a picture's tokens and `<|video_pad|>` for a clip's, where "
    "hulu_jax and Hulu-Med have `<image>`; the embeddings of these ids are never used",
    "transformers bounds each picture by itself; hulu_jax shares one budget of visual tokens over "
    "all media of a conversation. One picture or one clip alone is shown alike",
    "A volume is a list of slices as pictures with `merge_size` 2; transformers would put a time "
    "before each frame of a clip",
    {
      "off": "Token compression is off on both sides",
      "videollama3": "Clips are compressed by transformers' own rule, which is the policy's",
    }.get(
      mode,
      f"Token compression is off: transformers' processor cannot express the rule `{mode}`, so "
      "clips and volumes keep all their tokens",
    ),
  ]
