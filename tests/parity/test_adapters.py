"""A PEFT folder as torch sees it: branches written here that add B A x, by its own words."""

import json
import re

import jax
import numpy as np
from safetensors.numpy import load_file

from hulu_jax import peft
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.models import hulu
from hulu_jax.weights import adapters
from tests.parity.conftest import Pair

TARGETS = "(decoder|vision)/layers/(q|k|v|o|gate|up|down)|projector/(up|down)"


def adapt(model, folder):
  """`model` with a low-rank branch on every module that the config's pattern matches."""
  import torch

  said = json.loads((folder / "adapter_config.json").read_text())
  held = load_file(folder / "adapter_model.safetensors")
  scale = said["lora_alpha"] / (said["r"] ** 0.5 if said["use_rslora"] else said["r"])

  def branch(name):
    a, b = (torch.from_numpy(held.pop(f"base_model.model.{name}.lora_{x}.weight")) for x in "AB")
    return lambda module, inputs, output: output + scale * (inputs[0] @ a.T) @ b.T

  pattern = said["target_modules"]
  hooks = [
    module.register_forward_hook(branch(name))
    for name, module in model.named_modules()
    if re.fullmatch(pattern, name)
  ]
  assert all(
    isinstance(m, torch.nn.Linear) for n, m in model.named_modules() if re.fullmatch(pattern, n)
  )
  assert not held  # every tensor found its module
  return hooks


def test_logits_of_an_adapted_model(pairs, pictures, conversation, tmp_path):
  pair = pairs("qwen2-kv2")
  found = peft.named(
    {"method": "lora", "rank": 4, "alpha": 6.0, "rslora": True, "targets": TARGETS}
  )
  specs = hulu.specs(pair.config)
  rng = np.random.default_rng(0)
  new, _ = tree.partition(found.specs(specs), found.pattern(specs))
  factors = jax.tree.map(lambda s: rng.normal(0, 0.1, s.shape).astype(np.float32), new)
  mine = tree.merge(factors, found.wrap(pair.params))
  folder = tmp_path / "adapter"
  adapters.write(folder, mine, pair.config, found.settings, base="b", layout="video_llama_3")
  read, _ = adapters.load(folder, pair.params, pair.config, sharding.one_device_mesh())

  parts = [pictures.text(4), pictures.image(4, 6), pictures.text(5), pictures.video(2, 4, 4)]
  example = conversation("x", [*parts, pictures.text(4)])
  before = pair.their_logits(example)
  hooks = adapt(pair.theirs, folder)
  want = pair.their_logits(example)
  for hook in hooks:
    hook.remove()
  assert np.abs(want - before).max() > 1
  ours = Pair(pair.theirs, read, pair.config, pair.folder)
  # float32 on both sides, sums in another order; measured 4e-6.
  np.testing.assert_allclose(ours.our_logits([example])["x"], want, atol=1e-4)
