"""One table between our parameters and the torch tensors of a checkpoint: names and axes."""

from collections.abc import Callable, Collection, Mapping
import dataclasses
import math
import re

import einops
import numpy as np

from hulu_jax.core import tree
from hulu_jax.core.params import ParamSpec
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig


@dataclasses.dataclass(frozen=True)
class Rule:
  """How one of our parameters is stored by torch.

  torch: the name; {at} stands for the layout's prefix of this part, {layer} for the layer's number.
  axes: einops pattern from torch's axes to ours, its letters explained by `lengths`.
  """

  torch: str
  axes: str


# Our paths by part; linear weights are [out, in] in torch.  Letters are those of `core.linear`, and
# c, y, x for the channel, row and column of a patch; the projector leads from e over f to g.
RULES: Mapping[str, Mapping[str, Rule]] = {
  "vision": {
    "patch/kernel": Rule("{at}embeddings.patch_embedding.weight", "e c y x -> (c y x) e"),
    "patch/bias": Rule("{at}embeddings.patch_embedding.bias", "e -> e"),
    "layers/attn_norm/scale": Rule("{at}encoder.layers.{layer}.layer_norm1.weight", "e -> e"),
    "layers/attn_norm/bias": Rule("{at}encoder.layers.{layer}.layer_norm1.bias", "e -> e"),
    "layers/q": Rule("{at}encoder.layers.{layer}.self_attn.q_proj.weight", "(h d) e -> e h d"),
    "layers/q_bias": Rule("{at}encoder.layers.{layer}.self_attn.q_proj.bias", "(h d) -> h d"),
    "layers/k": Rule("{at}encoder.layers.{layer}.self_attn.k_proj.weight", "(h d) e -> e h d"),
    "layers/k_bias": Rule("{at}encoder.layers.{layer}.self_attn.k_proj.bias", "(h d) -> h d"),
    "layers/v": Rule("{at}encoder.layers.{layer}.self_attn.v_proj.weight", "(h d) e -> e h d"),
    "layers/v_bias": Rule("{at}encoder.layers.{layer}.self_attn.v_proj.bias", "(h d) -> h d"),
    "layers/o": Rule("{at}encoder.layers.{layer}.self_attn.out_proj.weight", "e (h d) -> h d e"),
    "layers/o_bias": Rule("{at}encoder.layers.{layer}.self_attn.out_proj.bias", "e -> e"),
    "layers/mlp_norm/scale": Rule("{at}encoder.layers.{layer}.layer_norm2.weight", "e -> e"),
    "layers/mlp_norm/bias": Rule("{at}encoder.layers.{layer}.layer_norm2.bias", "e -> e"),
    "layers/up": Rule("{at}encoder.layers.{layer}.mlp.fc1.weight", "m e -> e m"),
    "layers/up_bias": Rule("{at}encoder.layers.{layer}.mlp.fc1.bias", "m -> m"),
    "layers/down": Rule("{at}encoder.layers.{layer}.mlp.fc2.weight", "e m -> m e"),
    "layers/down_bias": Rule("{at}encoder.layers.{layer}.mlp.fc2.bias", "e -> e"),
    "norm/scale": Rule("{at}post_layernorm.weight", "e -> e"),
    "norm/bias": Rule("{at}post_layernorm.bias", "e -> e"),
  },
  "projector": {
    "up": Rule("{at}readout.0.weight", "f e -> e f"),
    "up_bias": Rule("{at}readout.0.bias", "f -> f"),
    "down": Rule("{at}readout.2.weight", "g f -> f g"),
    "down_bias": Rule("{at}readout.2.bias", "g -> g"),
  },
  "decoder": {
    "embed": Rule("{at}embed_tokens.weight", "v e -> v e"),
    "layers/attn_norm": Rule("{at}layers.{layer}.input_layernorm.weight", "e -> e"),
    "layers/q": Rule("{at}layers.{layer}.self_attn.q_proj.weight", "(h d) e -> e h d"),
    "layers/q_bias": Rule("{at}layers.{layer}.self_attn.q_proj.bias", "(h d) -> h d"),
    "layers/q_norm": Rule("{at}layers.{layer}.self_attn.q_norm.weight", "d -> d"),
    "layers/k": Rule("{at}layers.{layer}.self_attn.k_proj.weight", "(k d) e -> e k d"),
    "layers/k_bias": Rule("{at}layers.{layer}.self_attn.k_proj.bias", "(k d) -> k d"),
    "layers/k_norm": Rule("{at}layers.{layer}.self_attn.k_norm.weight", "d -> d"),
    "layers/v": Rule("{at}layers.{layer}.self_attn.v_proj.weight", "(k d) e -> e k d"),
    "layers/v_bias": Rule("{at}layers.{layer}.self_attn.v_proj.bias", "(k d) -> k d"),
    "layers/o": Rule("{at}layers.{layer}.self_attn.o_proj.weight", "e (h d) -> h d e"),
    "layers/mlp_norm": Rule("{at}layers.{layer}.post_attention_layernorm.weight", "e -> e"),
    "layers/gate": Rule("{at}layers.{layer}.mlp.gate_proj.weight", "m e -> e m"),
    "layers/up": Rule("{at}layers.{layer}.mlp.up_proj.weight", "m e -> e m"),
    "layers/down": Rule("{at}layers.{layer}.mlp.down_proj.weight", "e m -> m e"),
    "norm": Rule("{at}norm.weight", "e -> e"),
    "head": Rule("lm_head.weight", "v e -> v e"),
  },
}

# What stands before the names of each part.  video_llama_3: transformers' own class; hulumed: the
# published Hugging Face repositories; hulumed_local: checkpoints of the original training code.
LAYOUTS: Mapping[str, Mapping[str, str]] = {
  "video_llama_3": {
    "vision": "model.vision_model.",
    "projector": "model.projector.",
    "decoder": "model.language_model.",
  },
  "hulumed": {
    "vision": "model.vision_encoder.",
    "projector": "model.mm_projector.",
    "decoder": "model.",
  },
  "hulumed_local": {
    "vision": "model.vision_encoder.vision_encoder.",
    "projector": "model.mm_projector.",
    "decoder": "model.",
  },
}

# What holds one part only: a decoder as its authors publish it, with its head or without; the
# encoder alone; a projector as the alignment stage of the original training code saves it.
PIECES: Mapping[str, Mapping[str, str]] = {
  "decoder": {"decoder": "model."},
  "decoder_without_head": {"decoder": ""},
  "encoder": {"vision": ""},
  "encoder_vision_model": {"vision": "vision_model."},
  "encoder_vision_encoder": {"vision": "vision_encoder."},
  "projector": {"projector": "model.mm_projector."},
  "projector_mm": {"projector": "mm_projector."},
  "projector_native": {"projector": "model.projector."},
  "projector_readout": {"projector": ""},
}
_ALL = {**LAYOUTS, **PIECES}


def parts(layout: str) -> tuple[str, ...]:
  """Which parts of the model a layout holds."""
  return tuple(_ALL[layout])


def lengths(c: HuluConfig) -> dict[str, dict[str, int]]:
  """What the letters of the patterns mean, per part."""
  v, d = c.vision, c.decoder
  patch = dict(c=v.channels, y=v.patch, x=v.patch)
  return {
    "vision": dict(e=v.embed, h=v.heads, d=v.head_dim, m=v.mlp, **patch),
    "projector": dict(e=v.embed, f=d.embed, g=d.embed),
    "decoder": dict(e=d.embed, h=d.heads, k=d.kv_heads, d=d.head_dim, m=d.mlp, v=d.vocab),
  }


def torch_name(path: str, layout: str, layer: int = 0) -> str:
  """The torch name of our parameter at `path`; `layer` where it is one of a stack."""
  part, own = path.split("/", 1)
  return RULES[part][own].torch.format(at=_ALL[layout][part], layer=layer)


def layers(part: str, layout: str, stored: Collection[str]) -> int:
  """How many layers of a part are stored, told by the first matrix of their MLPs."""
  n = 0
  while torch_name(f"{part}/layers/up", layout, n) in stored:
    n += 1
  return n


def detect(stored: Collection[str]) -> str:
  """The layout that explains most of these tensor names; of equals, the one with fewest parts.

  Raises:
    ValueError: none explains any; the message says what each would hold.
  """
  shapes = {_LAYER.sub("{layer}", name) for name in stored}
  known = {
    layout: {
      _LAYER.sub("{layer}", torch_name(f"{part}/{own}", layout))
      for part in _ALL[layout]
      for own in RULES[part]
    }
    for layout in _ALL
  }
  hits = {layout: len(shapes & names) for layout, names in known.items()}
  best = max(_ALL, key=lambda layout: (hits[layout], -len(_ALL[layout])))
  # A head alone tells nothing: it has the same name everywhere.
  if hits[best] > ("lm_head.weight" in shapes):
    return best
  tops = sorted({".".join(name.split(".")[:3]) for name in stored})
  marks = {part: f"{part}/{own}" for part, own in _MARKS.items()}
  raise ValueError(
    f"tensors of no known layout: names start with {tops[:12]}; expected one of "
    + ", ".join(
      f"{layout} ({' and '.join(torch_name(marks[part], layout) for part in _ALL[layout])})"
      for layout in _ALL
    )
  )


_LAYER = re.compile(r"(?<=\blayers\.)\d+(?=\.)")
_MARKS = {"vision": "patch/kernel", "projector": "up", "decoder": "embed"}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One torch tensor that is all of one of our parameters, or one layer of it.

  shape: torch's; ours: of our parameter without the layer axis; letters: what `axes` needs.
  """

  name: str
  shape: tuple[int, ...]
  ours: tuple[int, ...]
  axes: str
  letters: Mapping[str, int]

  def to_torch(self, array: np.ndarray) -> np.ndarray:
    """Our axes to torch's."""
    torch, ours = self.axes.split(" -> ")
    return einops.rearrange(array, f"{ours} -> {torch}", **self.letters)

  @property
  def order(self) -> tuple[int, ...]:
    """Our axes in the order in which torch stores them, slowest first."""
    torch, ours = self.axes.split(" -> ")
    flat = [letter for group in _groups(torch) for letter in group]
    groups = _groups(ours)
    return tuple(sorted(range(len(groups)), key=lambda i: flat.index(groups[i][0])))

  def read(
    self, index: tuple[slice, ...], get: Callable[[tuple[slice, ...]], np.ndarray]
  ) -> np.ndarray:
    """`index` of our axes, from a `get` that slices torch's; reads no more than a slice must cover.

    Of axes that torch stores as one, e.g. (h d), only the first is narrowed before reading.
    """
    torch, ours = (_groups(side) for side in self.axes.split(" -> "))
    wanted = {
      group[0]: part.indices(self.letters[group[0]])
      for group, part in zip(ours, index, strict=True)
      if len(group) == 1
    }
    letters, parts = dict(self.letters), []
    for first, *inner in torch:
      start, stop, _ = wanted.get(first, (0, self.letters[first], 1))
      letters[first] = stop - start
      step = math.prod(self.letters[letter] for letter in inner)
      parts.append(slice(start * step, stop * step))
    firsts = [group[0] for group in torch]
    rest = tuple(
      slice(None) if len(group) == 1 and group[0] in firsts else part
      for group, part in zip(ours, index, strict=True)
    )
    return einops.rearrange(get(tuple(parts)), self.axes, **letters)[rest]


def _groups(side: str) -> list[list[str]]:
  """One side of a pattern by axis: "(h d) e" -> [[h, d], [e]]."""
  return [(many or one).split() for many, one in re.findall(r"\(([^)]*)\)|(\w+)", side)]


def entries(c: HuluConfig, layout: str) -> dict[str, list[Entry]]:
  """The torch tensors of every parameter of a layout's parts, by our path; one per layer."""
  of_part = lengths(c)
  table: dict[str, list[Entry]] = {}

  def add(path: str, spec: ParamSpec) -> None:
    part, own = path.split("/", 1)
    if part not in _ALL[layout]:
      return
    rule = RULES[part][own]
    torch, ours = (_groups(side) for side in rule.axes.split(" -> "))
    letters = {letter: of_part[part][letter] for group in torch for letter in group}
    shape, our_shape = (
      tuple(math.prod(letters[letter] for letter in group) for group in side)
      for side in (torch, ours)
    )
    table[path] = [
      Entry(torch_name(path, layout, layer), shape, our_shape, rule.axes, letters)
      for layer in range(spec.shape[0] if "{layer}" in rule.torch else 1)
    ]

  tree.map_named(add, hulu.specs(c))
  return table
