"""Architecture numbers only: nothing about training, data or devices, and no defaults."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
  """A SigLIP-style encoder with 2D rotary positions.

  embed, mlp: widths; patch: side of a square patch in pixels; channels: of the stored kernel.
  """

  patch: int
  channels: int
  embed: int
  layers: int
  heads: int
  head_dim: int
  mlp: int
  norm_eps: float
  rope_theta: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
  """A Qwen2.5 decoder (`qkv_bias`) or a Qwen3 decoder (`qk_norm`); `tied` shares embed and head."""

  layers: int
  embed: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp: int
  vocab: int
  rope_theta: float
  norm_eps: float
  qkv_bias: bool
  qk_norm: bool
  tied: bool
  max_positions: int
  embed_std: float  # standard deviation of a fresh embedding table


@dataclasses.dataclass(frozen=True, kw_only=True)
class HuluConfig:
  """The whole model; the projector's widths follow from its two neighbours."""

  vision: VisionConfig
  decoder: DecoderConfig

  def __post_init__(self) -> None:
    v, d = self.vision, self.decoder
    if v.head_dim % 4:
      raise ValueError(f"vision head_dim {v.head_dim} must divide by 4: half rows, half columns")
    if d.heads % d.kv_heads:
      raise ValueError(f"decoder heads {d.heads} must be a multiple of kv_heads {d.kv_heads}")
