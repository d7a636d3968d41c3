"""transformers' own VideoLlama3 with random weights beside ours, fed with the same bytes.

Weights travel as a user's do: `save_pretrained`, then `hulu_jax.weights`.  torch is imported inside
functions, because the newest interpreters are tested without it: there the folder is skipped.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import einops
import jax
import numpy as np
import pytest

from hulu_jax.data import packing
from hulu_jax.data import vision as vision_data
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.data.schema import Visual
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import FLOAT32
from hulu_jax.weights import load

IMAGE, VIDEO, VOCAB = 125, 126, 128
SEED = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """What the tested configurations differ by; every pair of neighbours differs in most fields."""

  text: str
  heads: int
  kv_heads: int
  head_dim: int
  tied: bool
  vision_heads: int
  vision_head_dim: int
  theta: float
  shard: str


CASES = {
  "qwen2-kv2": Case(
    text="qwen2",
    heads=4,
    kv_heads=2,
    head_dim=16,
    tied=False,
    vision_heads=4,
    vision_head_dim=16,
    theta=1e6,
    shard="50GB",
  ),
  "qwen2-kv1-tied": Case(
    text="qwen2",
    heads=6,
    kv_heads=1,
    head_dim=10,
    tied=True,
    vision_heads=3,
    vision_head_dim=12,
    theta=1e4,
    shard="60KB",
  ),
  "qwen3-kv3": Case(
    text="qwen3",
    heads=3,
    kv_heads=3,
    head_dim=22,
    tied=False,
    vision_heads=5,
    vision_head_dim=8,
    theta=5e6,
    shard="60KB",
  ),
  "qwen3-kv2-tied": Case(
    text="qwen3",
    heads=6,
    kv_heads=2,
    head_dim=24,
    tied=True,
    vision_heads=2,
    vision_head_dim=24,
    theta=1e6,
    shard="50GB",
  ),
}


def _torch_config(case: Case) -> Any:
  import transformers

  text = dict(
    model_type=case.text,
    vocab_size=VOCAB,
    # Qwen2 has no head_dim of its own; Qwen3's attention is wider than its residual stream.
    hidden_size=case.heads * case.head_dim if case.text == "qwen2" else 48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=case.heads,
    num_key_value_heads=case.kv_heads,
    max_position_embeddings=4096,
    rope_parameters={"rope_type": "default", "rope_theta": case.theta},
    tie_word_embeddings=case.tied,
    rms_norm_eps=1e-3,  # large enough to show where it is forgotten
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
  )
  if case.text == "qwen3":
    text["head_dim"] = case.head_dim
  vision = dict(
    hidden_size=case.vision_heads * case.vision_head_dim,
    intermediate_size=72,
    num_hidden_layers=2,
    num_attention_heads=case.vision_heads,
    patch_size=14,
    num_channels=3,
    layer_norm_eps=2e-3,
    rope_parameters={"rope_type": "axial", "rope_theta": 3e3},
  )
  return transformers.VideoLlama3Config(
    text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=VIDEO
  )


def _random_model(case: Case) -> Any:
  """Activations of order one in every layer, no bias at 0, no norm at 1: nothing can hide."""
  import torch
  import transformers

  torch.manual_seed(SEED)
  torch.set_num_threads(2)
  model = transformers.VideoLlama3ForConditionalGeneration(_torch_config(case)).eval()
  with torch.no_grad():
    for name, p in model.named_parameters():
      if p.ndim > 1:
        fan_in = 4 if "embed_tokens" in name else p[0].numel()
        p.normal_(std=fan_in**-0.5)
      else:
        p.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.3)
  return model


class Pictures:
  """Random media as the encoder sees them, and the same bytes as torch wants them."""

  def __init__(self, seed: int):
    self._random = np.random.default_rng(seed)

  def image(self, rows: int, columns: int, channels: int = 3) -> Visual:
    """A picture of rows x columns patches, unmerged."""
    return self._visual("image", 1, (rows, columns), channels, merge=1)

  def video(self, frames: int, rows: int, columns: int, channels: int = 3) -> Visual:
    """A clip merged 2 x 2, whole."""
    return self._visual("video", frames, (rows, columns), channels, merge=2)

  def compressed(self, video: Visual) -> Visual:
    """The clip with some of its tokens dropped; at least one of each frame stays."""
    keep = self._random.random(video.keep.shape) < 0.4
    keep[:, -1] |= ~keep.any(axis=1)
    return dataclasses.replace(video, keep=keep)

  def text(self, n: int) -> list[int]:
    return self._random.integers(3, IMAGE, n).tolist()

  def _visual(self, kind: str, frames: int, grid: tuple[int, int], channels: int, merge: int):
    shape = (frames, grid[0] * 14, grid[1] * 14, channels)
    pixels = self._random.integers(0, 256, shape, dtype=np.uint8)
    patches = vision_data.patchify(pixels, 14, merge)
    keep = np.ones((frames, patches.shape[1] // merge**2), bool)
    return Visual(kind=kind, patches=patches, grid=grid, merge=merge, keep=keep)


@pytest.fixture
def pictures() -> Pictures:
  return Pictures(SEED)


def _as_torch(visuals: Sequence[Visual]) -> dict[str, Any]:
  """pixel_values [patches, 588] float32, grid_thw and merge_sizes of a list of media."""
  import torch

  pixels = []
  for v in visuals:
    x = einops.rearrange(v.patches, "t p (c n) -> (t p) c n", n=196)
    x = np.broadcast_to(x, (len(x), 3, 196)).reshape(len(x), 588)
    pixels.append((x.astype(np.float32) / 255 - 0.5) / 0.5)
  return {
    "pixel_values": torch.from_numpy(np.concatenate(pixels)),
    "grid_thw": torch.tensor([[len(v.patches), *v.grid] for v in visuals]),
    "merge_sizes": torch.tensor([v.merge for v in visuals]),
  }


def _conversation(name: str, parts: Sequence[list[int] | Visual]) -> Example:
  """Text and media in the order given; each kept visual token is one placeholder."""
  tokens: list[int] = []
  positions: list[int] = []
  for part in parts:
    if isinstance(part, Visual):
      kept = int(part.keep.sum())
      positions += range(len(tokens), len(tokens) + kept)
      tokens += [VIDEO if part.kind == "video" else IMAGE] * kept
    else:
      tokens += part
  return Example(
    id=name,
    tokens=np.array(tokens, np.int32),
    weights=np.ones(len(tokens), np.float32),
    visuals=tuple(part for part in parts if isinstance(part, Visual)),
    visual_positions=np.array(positions, np.int32),
    source=0,
  )


# Two rows with room for the largest conversation of the tests beside another.  One shape, so that
# each configuration compiles once: grey and colour, merge 1 and 2, two sizes of one kind.
SHAPE = StepShape(
  rows=2,
  tokens=120,
  supervised=120,
  visual=80,
  groups=(
    Group(slots=2, size=24, channels=3, merge=1),
    Group(slots=1, size=40, channels=3, merge=1),
    Group(slots=4, size=48, channels=3, merge=2),
    Group(slots=1, size=24, channels=1, merge=1),
    Group(slots=2, size=48, channels=1, merge=2),
  ),
)


@dataclasses.dataclass(frozen=True)
class Pair:
  """One model twice."""

  theirs: Any  # transformers.VideoLlama3ForConditionalGeneration
  params: Any
  config: HuluConfig
  folder: pathlib.Path

  def layer(self, part: str, index: int) -> Any:
    """Our weights of one layer of "vision" or "decoder"."""
    return jax.tree.map(lambda leaf: leaf[index], self.params[part]["layers"])

  def their_logits(self, example: Example) -> np.ndarray:
    """[tokens, vocab] of one conversation alone."""
    import torch

    inputs: dict[str, Any] = {}
    for kind, suffix in (("image", ""), ("video", "_videos")):
      visuals = [v for v in example.visuals if v.kind == kind]
      if visuals:
        found = _as_torch(visuals)
        inputs[f"pixel_values{suffix}"] = found["pixel_values"]
        inputs[f"{kind}_grid_thw"] = found["grid_thw"]
        inputs[f"{kind}_merge_sizes"] = found["merge_sizes"]
      if kind == "video" and not all(v.keep.all() for v in visuals):
        keep = np.concatenate([v.keep.ravel() for v in visuals])
        inputs["video_compression_mask"] = torch.from_numpy(keep)
    with torch.no_grad():
      ids = torch.from_numpy(example.tokens.astype(np.int64))[None]
      return self.theirs(input_ids=ids, **inputs).logits[0].numpy()

  def our_logits(
    self, examples: Sequence[Example], shape: StepShape = SHAPE
  ) -> dict[str, np.ndarray]:
    """[tokens, vocab] by conversation, all of them packed into one batch."""
    packer = packing.Packer(shape)
    for example in examples:
      assert packer.add(example), packing.refusal(example, shape)
    batch = packer.batch()
    merges = tuple(group.merge for group in shape.groups)
    logits = np.asarray(_logits(self.params, batch, merges, self.config, FLOAT32))
    places = [(r, s) for r in range(shape.rows) for s in range(1, batch.segments[r].max() + 1)]
    found = zip(packer.examples, places, strict=True)
    return {example.id: logits[r][batch.segments[r] == s] for example, (r, s) in found}


_logits = jax.jit(hulu.logits, static_argnums=(2, 3, 4))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
  """Pairs by the name of their case, each made once."""
  for package in ("torch", "transformers"):
    pytest.importorskip(package, reason=f"parity compares with {package}: install extra 'verify'")

  @functools.cache
  def make(name: str) -> Pair:
    folder = tmp_path_factory.mktemp(name)
    model = _random_model(CASES[name])
    model.save_pretrained(folder, max_shard_size=CASES[name].shard)
    config = load.read_config(folder)
    return Pair(model, load.load_params(folder, config), config, folder)

  return make


@pytest.fixture(scope="session", params=CASES)
def pair(request: pytest.FixtureRequest, pairs: Callable[[str], Pair]) -> Pair:
  return pairs(request.param)


@pytest.fixture
def as_torch() -> Callable[[Sequence[Visual]], dict[str, Any]]:
  return _as_torch


@pytest.fixture
def conversation() -> Callable[[str, Sequence[list[int] | Visual]], Example]:
  return _conversation
