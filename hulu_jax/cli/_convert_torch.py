"""The PyTorch side of `hulu convert --verify`: transformers' own class, fed as ours is.

torch and transformers are imported here, inside functions, because nothing else needs them.
"""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import tempfile
from typing import Any

import einops
import numpy as np

from hulu_jax.data import vision
from hulu_jax.data.schema import PATCH
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Visual
from hulu_jax.models.config import HuluConfig
from hulu_jax.weights import files
from hulu_jax.weights import hf_write
from hulu_jax.weights import names
from hulu_jax.weights import unpickle

# The original layouts' prefixes to those of transformers' class, as plain text: what `names` says,
# said again, so that a mistake there cannot hide here.
_RENAMES = (
  ("model.vision_encoder.vision_encoder.", "model.vision_model."),
  ("model.vision_encoder.", "model.vision_model."),
  ("model.mm_projector.", "model.projector."),
  ("model.", "model.language_model."),
)


class Torch:
  """transformers' model of a folder of any torch layout, and how to ask it."""

  def __init__(self, folder: Path, config: HuluConfig, dtype: str):
    import torch
    import transformers

    self._model: Any
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    layout, tensors = _renamed(folder)
    if layout == "video_llama_3":
      self._model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=kind)
    else:
      self._model = _built(tensors, config).to(kind)
    self._model.eval()

  def answer(self, example: Example, image: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """(greedy tokens after a prompt, float32 logits [tokens, vocab] of the prompt and of those).

    image: the id that stands for a visual token in the example.
    """
    import torch

    inputs = self._inputs(example, image)
    with torch.no_grad():
      found = self._model.generate(
        **inputs, do_sample=False, max_new_tokens=new, eos_token_id=None, pad_token_id=0
      )
      whole = {**inputs, "input_ids": found, "attention_mask": torch.ones_like(found)}
      logits = self._model(**whole).logits[0].float().numpy()
    return found[0, len(example.tokens) :].numpy().astype(np.int32), logits

  def _inputs(self, example: Example, image: int) -> dict[str, Any]:
    """A clip goes by transformers' path for clips; a volume as the pictures of its slices."""
    import torch

    config = self._model.config
    ids, start = example.tokens.astype(np.int64), 0
    kinds: dict[str, list[Visual]] = {"image": [], "video": []}
    for v in example.visuals:
      kind = "video" if v.kind == "video" and config.video_token_id < self._vocab else "image"
      places = example.visual_positions[start : start + v.keep.sum()]
      ids[places] = config.video_token_id if kind == "video" else config.image_token_id
      start += len(places)
      kinds[kind].append(v)
    if (example.tokens == image).sum() != start:
      raise ValueError(f"{start} visual tokens in {(example.tokens == image).sum()} places")
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids)[None]}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for kind, visuals in kinds.items():
      inputs |= _pixels(kind, visuals) if visuals else {}
    for name in ("pixel_values", "pixel_values_videos"):
      if name in inputs:
        inputs[name] = inputs[name].to(self._model.dtype)
    return inputs

  @property
  def _vocab(self) -> int:
    return self._model.config.text_config.vocab_size


def _pixels(kind: str, visuals: Sequence[Visual]) -> dict[str, Any]:
  import torch

  pixels, grids, merges = [], [], []
  for v in visuals:
    x = einops.rearrange(v.patches, "t p (c n) -> (t p) c n", n=PATCH**2)
    x = np.broadcast_to(x, (len(x), 3, PATCH**2)).reshape(len(x), -1)
    pixels.append((x.astype(np.float32) / 255 - 0.5) / 0.5)
    frames = len(v.patches)
    grids += [[frames, *v.grid]] if kind == "video" else [[1, *v.grid]] * frames
    merges += [v.merge] * (1 if kind == "video" else frames)
  suffix = "_videos" if kind == "video" else ""
  return {
    f"pixel_values{suffix}": torch.from_numpy(np.concatenate(pixels)),
    f"{kind}_grid_thw": torch.tensor(grids),
    f"{kind}_merge_sizes": torch.tensor(merges),
  }


def _renamed(folder: Path) -> tuple[str, dict[str, np.ndarray]]:
  """(layout, tensors by transformers' names; none where transformers opens the folder itself)."""
  with tempfile.TemporaryDirectory() as scratch:
    place = folder
    if pickles := unpickle.found(folder):
      place = Path(scratch)
      unpickle.to_safetensors(pickles, place)
    with files.opened(place) as stored:
      layout = names.detect(stored.shapes)
      if layout == "video_llama_3" and place == folder:
        return layout, {}
      found = {}
      for name, shape in stored.shapes.items():
        new = next((b + name[len(a) :] for a, b in _RENAMES if name.startswith(a)), name)
        found[new] = stored.read(name, (slice(None),) * len(shape))
      return "renamed", found


def _built(tensors: Mapping[str, np.ndarray], config: HuluConfig) -> Any:
  import torch
  import transformers

  ids = {"image": config.decoder.vocab - 2, "video": config.decoder.vocab - 1}
  said = hf_write.config(
    config, "video_llama_3", vision.HULUMED, np.dtype(np.float32), {**ids, "eos": None, "pad": None}
  )
  with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "config.json").write_text(json.dumps(said))
    made = transformers.AutoConfig.from_pretrained(folder)
  model = transformers.VideoLlama3ForConditionalGeneration(made)
  state = {name: torch.from_numpy(t.astype(np.float32)) for name, t in tensors.items()}
  if config.decoder.tied:
    state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"]
  model.load_state_dict(state, strict=True)
  return model
