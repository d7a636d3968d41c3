"""The table of model sizes: adding a size is one entry here.

Sources: the public configurations of Qwen2.5-7B/32B-Instruct, Qwen3-4B/14B and SigLIP-NaViT.  A
checkpoint's own config.json wins over this table (`weights.load`); it serves fresh models.
"""

from hulu_jax.models.config import DecoderConfig
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.config import VisionConfig

SIGLIP = VisionConfig(
  patch=14,
  channels=3,
  embed=1152,
  layers=27,
  heads=16,
  head_dim=72,
  mlp=4304,
  norm_eps=1e-6,
  rope_theta=1e4,
)


def _qwen2_5(*, layers: int, embed: int, heads: int, kv_heads: int, mlp: int) -> DecoderConfig:
  return DecoderConfig(
    layers=layers,
    embed=embed,
    heads=heads,
    kv_heads=kv_heads,
    head_dim=128,
    mlp=mlp,
    vocab=152064,
    rope_theta=1e6,
    norm_eps=1e-6,
    qkv_bias=True,
    qk_norm=False,
    tied=False,
    max_positions=32768,
    embed_std=0.02,
  )


def _qwen3(*, layers: int, embed: int, heads: int, mlp: int, tied: bool) -> DecoderConfig:
  return DecoderConfig(
    layers=layers,
    embed=embed,
    heads=heads,
    kv_heads=8,
    head_dim=128,
    mlp=mlp,
    vocab=151936,
    rope_theta=1e6,
    norm_eps=1e-6,
    qkv_bias=False,
    qk_norm=True,
    tied=tied,
    max_positions=40960,
    embed_std=0.02,
  )


# Every part of the real architecture at a size that learns on two CPU cores.
TINY = HuluConfig(
  vision=VisionConfig(
    patch=14,
    channels=3,
    embed=64,
    layers=2,
    heads=4,
    head_dim=16,
    mlp=192,
    norm_eps=1e-6,
    rope_theta=1e2,
  ),
  decoder=DecoderConfig(
    layers=3,
    embed=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    mlp=176,
    vocab=512,
    rope_theta=1e2,
    norm_eps=1e-6,
    qkv_bias=False,
    qk_norm=True,
    tied=False,
    max_positions=4096,
    embed_std=0.7,
  ),
)

PRESETS = {
  "tiny": TINY,
  "hulu-4b": HuluConfig(
    vision=SIGLIP, decoder=_qwen3(layers=36, embed=2560, heads=32, mlp=9728, tied=True)
  ),
  "hulu-7b": HuluConfig(
    vision=SIGLIP, decoder=_qwen2_5(layers=28, embed=3584, heads=28, kv_heads=4, mlp=18944)
  ),
  "hulu-14b": HuluConfig(
    vision=SIGLIP, decoder=_qwen3(layers=40, embed=5120, heads=40, mlp=17408, tied=False)
  ),
  "hulu-32b": HuluConfig(
    vision=SIGLIP, decoder=_qwen2_5(layers=64, embed=5120, heads=40, kv_heads=8, mlp=27648)
  ),
}


def get(name: str) -> HuluConfig:
  """The preset called `name`.

  Raises:
    ValueError: no such preset; the message lists those there are.
  """
  if name not in PRESETS:
    raise ValueError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
  return PRESETS[name]
