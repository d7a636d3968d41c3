"""Checkpoints written by hand: names, shapes and bytes spelled out here, nothing of ours asked.

Sources: the tensor lists of the published Hulu-Med and VideoLLaMA3 repositories and of
transformers' VideoLlama3ForConditionalGeneration, and the format's page for safetensors.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import json
import math
import pathlib
import struct
from typing import Any

import ml_dtypes
import numpy as np

# (encoder, projector, decoder): what stands before each part's names.
PREFIXES = {
  "hulu-med": ("model.vision_encoder.", "model.mm_projector.", "model."),
  "hulu-med-local": ("model.vision_encoder.vision_encoder.", "model.mm_projector.", "model."),
  "transformers": ("model.vision_model.", "model.projector.", "model.language_model."),
}
TYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """A model by the words of its config.json."""

  qwen: int = 3
  hidden: int = 24
  heads: int = 4
  kv_heads: int = 2
  head_dim: int = 8
  intermediate: int = 40
  layers: int = 3
  vocab: int = 60
  tied: bool = False
  vision_hidden: int = 32
  vision_heads: int = 2
  vision_intermediate: int = 48
  vision_layers: int = 2
  max_positions: int = 512


QWEN3 = Size()
QWEN3_TIED = Size(tied=True, kv_heads=1, heads=6, layers=11)
QWEN2 = Size(qwen=2, hidden=32, vision_layers=3)
# As published; the encoder is the same in all.
_EYE = dict(vision_hidden=1152, vision_heads=16, vision_intermediate=4304, vision_layers=27)
FULL = {
  "hulu-4b": Size(
    hidden=2560, heads=32, kv_heads=8, head_dim=128, intermediate=9728, layers=36, vocab=151936,
    tied=True, **_EYE,
  ),
  "hulu-7b": Size(
    qwen=2, hidden=3584, heads=28, kv_heads=4, head_dim=128, intermediate=18944, layers=28,
    vocab=152064, **_EYE,
  ),
  "hulu-14b": Size(
    hidden=5120, heads=40, kv_heads=8, head_dim=128, intermediate=17408, layers=40, vocab=151936,
    **_EYE,
  ),
  "hulu-32b": Size(
    qwen=2, hidden=5120, heads=40, kv_heads=8, head_dim=128, intermediate=27648, layers=64,
    vocab=152064, **_EYE,
  ),
}  # fmt: skip


def shapes(s: Size, layout: str) -> dict[str, tuple[int, ...]]:
  """Every tensor of a checkpoint."""
  eye, projector, text = PREFIXES[layout]
  found = {f"{eye}{name}": shape for name, shape in encoder(s)}
  found |= {f"{projector}{name}": shape for name, shape in readout(s)}
  found |= {f"{text}{name}": shape for name, shape in decoder(s)}
  return found if s.tied else found | {"lm_head.weight": (s.vocab, s.hidden)}


def encoder(s: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
  """A SigLIP-NaViT encoder."""
  wide, mlp = s.vision_hidden, s.vision_intermediate
  yield "embeddings.patch_embedding.weight", (wide, 3, 14, 14)
  yield "embeddings.patch_embedding.bias", (wide,)
  for j in range(s.vision_layers):
    at = f"encoder.layers.{j}."
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
      yield f"{at}self_attn.{name}.weight", (wide, wide)
      yield f"{at}self_attn.{name}.bias", (wide,)
    for name in ("layer_norm1", "layer_norm2"):
      yield f"{at}{name}.weight", (wide,)
      yield f"{at}{name}.bias", (wide,)
    yield f"{at}mlp.fc1.weight", (mlp, wide)
    yield f"{at}mlp.fc1.bias", (mlp,)
    yield f"{at}mlp.fc2.weight", (wide, mlp)
    yield f"{at}mlp.fc2.bias", (wide,)
  yield "post_layernorm.weight", (wide,)
  yield "post_layernorm.bias", (wide,)


def readout(s: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
  """A projector."""
  yield "readout.0.weight", (s.hidden, s.vision_hidden)
  yield "readout.0.bias", (s.hidden,)
  yield "readout.2.weight", (s.hidden, s.hidden)
  yield "readout.2.bias", (s.hidden,)


def decoder(s: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
  """A Qwen decoder without its head."""
  q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
  yield "embed_tokens.weight", (s.vocab, s.hidden)
  for i in range(s.layers):
    at = f"layers.{i}."
    for name, width in (("q_proj", q), ("k_proj", kv), ("v_proj", kv)):
      yield f"{at}self_attn.{name}.weight", (width, s.hidden)
      if s.qwen == 2:
        yield f"{at}self_attn.{name}.bias", (width,)
    if s.qwen == 3:
      yield f"{at}self_attn.q_norm.weight", (s.head_dim,)
      yield f"{at}self_attn.k_norm.weight", (s.head_dim,)
    yield f"{at}self_attn.o_proj.weight", (s.hidden, q)
    yield f"{at}mlp.gate_proj.weight", (s.intermediate, s.hidden)
    yield f"{at}mlp.up_proj.weight", (s.intermediate, s.hidden)
    yield f"{at}mlp.down_proj.weight", (s.hidden, s.intermediate)
    yield f"{at}input_layernorm.weight", (s.hidden,)
    yield f"{at}post_attention_layernorm.weight", (s.hidden,)
  yield "norm.weight", (s.hidden,)


def config(s: Size, layout: str) -> dict[str, Any]:
  """config.json."""
  text = {
    "hidden_act": "silu",
    "hidden_size": s.hidden,
    "initializer_range": 0.02,
    "intermediate_size": s.intermediate,
    "max_position_embeddings": s.max_positions,
    "num_attention_heads": s.heads,
    "num_hidden_layers": s.layers,
    "num_key_value_heads": s.kv_heads,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": s.tied,
    "vocab_size": s.vocab,
  }
  if s.qwen == 3:
    text["head_dim"] = s.head_dim
  eye = {
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": s.vision_hidden,
    "intermediate_size": s.vision_intermediate,
    "layer_norm_eps": 1e-6,
    "num_attention_heads": s.vision_heads,
    "num_channels": 3,
    "num_hidden_layers": s.vision_layers,
    "patch_size": 14,
  }
  if layout == "transformers":
    rope = {"rope_type": "default", "rope_theta": 1e6}
    return {
      "architectures": ["VideoLlama3ForConditionalGeneration"],
      "model_type": "video_llama_3",
      "image_token_id": 7,
      "video_token_id": 8,
      "tie_word_embeddings": s.tied,
      "text_config": {**text, "model_type": f"qwen{s.qwen}", "rope_parameters": rope},
      "vision_config": {
        **eye,
        "model_type": "video_llama_3_vision",
        "rope_parameters": {"rope_type": "axial", "rope_theta": 1e4},
      },
    }
  return {
    **text,
    "architectures": [f"HulumedQwen{s.qwen}ForCausalLM"],
    # The local package calls every decoder qwen2.
    "model_type": "hulumed_qwen2" if layout == "hulu-med-local" else f"hulumed_qwen{s.qwen}",
    "rope_theta": 1e6,
    "image_token_index": -1,
    "mm_projector_type": "mlp2x_gelu",
    "use_token_compression": False,
    "vision_encoder": None,
    "vision_encoder_config": {**eye, "model_type": "hulumed_vision_encoder"},
  }


def tensors(s: Size, layout: str, kind: str = "F32", seed: int = 0) -> dict[str, np.ndarray]:
  """Random values for every tensor."""
  return filled(shapes(s, layout), kind, seed)


def filled(
  wanted: Mapping[str, tuple[int, ...]], kind: str = "F32", seed: int = 0
) -> dict[str, np.ndarray]:
  random = np.random.default_rng(seed)
  return {n: random.normal(size=shape).astype(TYPES[kind]) for n, shape in wanted.items()}


def save(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """One safetensors file: length of the header, header, data."""
  names = {np.dtype(t): name for name, t in TYPES.items()}
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  start = 0
  for name, array in arrays.items():
    offsets = [start, start + array.nbytes]
    header[name] = {
      "dtype": names[array.dtype],
      "shape": list(array.shape),
      "data_offsets": offsets,
    }
    start += array.nbytes
  text = json.dumps(header).encode()
  data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
  path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def folder(
  path: pathlib.Path, s: Size, layout: str, kind: str = "F32", shards: int = 1
) -> dict[str, np.ndarray]:
  """A whole checkpoint; returns its tensors."""
  path.mkdir()
  arrays = tensors(s, layout, kind)
  (path / "config.json").write_text(json.dumps(config(s, layout)))
  if shards == 1:
    save(path / "model.safetensors", arrays)
    return arrays
  names, where = list(arrays), {}
  size = math.ceil(len(names) / shards)
  for i in range(shards):
    file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
    part = {name: arrays[name] for name in names[i * size : (i + 1) * size]}
    save(path / file, part)
    where |= dict.fromkeys(part, file)
  index = {"metadata": {"total_size": sum(a.nbytes for a in arrays.values())}, "weight_map": where}
  (path / "model.safetensors.index.json").write_text(json.dumps(index))
  return arrays


def read(path: pathlib.Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
  """Every tensor of a folder as (type, shape, bytes), checked against its index."""
  found = {}
  files = sorted(path.glob("*.safetensors"))
  for file in files:
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    for name, entry in header.items():
      assert name not in found, name
      first, last = (8 + length + at for at in entry["data_offsets"])
      found[name] = (entry["dtype"], tuple(entry["shape"]), data[first:last])
  if len(files) > 1:
    index = json.loads((path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == found.keys()
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in found.values())
  return found


def as_read(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
  """What `read` gives for tensors that were written."""
  names = {np.dtype(t): name for name, t in TYPES.items()}
  return {n: (names[a.dtype], a.shape, a.tobytes()) for n, a in arrays.items()}
