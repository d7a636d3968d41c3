"""Where the first parameters come from: parts of a model in several places, each checked."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from hulu_jax.core import sharding
from hulu_jax.models import presets
from hulu_jax.training import build
from hulu_jax.training import start
from hulu_jax.training import tokenizers
from hulu_jax.weights import checkpoint
from tests.training import test_loop
from tests.weights import written

# The tiny preset in the words of a config.json, whose thetas are the published ones.
SIZE = written.Size(
  hidden=64,
  heads=4,
  kv_heads=2,
  head_dim=16,
  intermediate=176,
  layers=3,
  vocab=512,
  vision_hidden=64,
  vision_heads=4,
  vision_intermediate=192,
  vision_layers=2,
)
PUBLISHED = dataclasses.replace(
  presets.TINY,
  vision=dataclasses.replace(presets.TINY.vision, rope_theta=1e4),
  decoder=dataclasses.replace(presets.TINY.decoder, rope_theta=1e6),
)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
  """A decoder as its authors publish it."""
  folder = tmp_path_factory.mktemp("qwen")
  shapes = {f"model.{n}": s for n, s in written.decoder(SIZE)} | {"lm_head.weight": (512, 64)}
  written.save(folder / "model.safetensors", written.filled(shapes, "BF16", seed=1))
  said = {**written.config(SIZE, "hulu-med"), "model_type": "qwen3", "max_position_embeddings": 9}
  (folder / "config.json").write_text(json.dumps(said))
  return folder


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
  """An encoder alone."""
  folder = tmp_path_factory.mktemp("siglip")
  written.save(
    folder / "model.safetensors", written.filled(dict(written.encoder(SIZE)), "F32", seed=2)
  )
  said = written.config(SIZE, "hulu-med")["vision_encoder_config"]
  (folder / "config.json").write_text(json.dumps(said))
  return folder


@pytest.fixture
def begin(monkeypatch):
  """(places) -> the parameters with which a run of the tiny model begins, and on which mesh."""
  monkeypatch.setitem(presets.PRESETS, "tiny", PUBLISHED)

  def state(*places, mesh=None):
    cfg = test_loop.config(init_from=",".join(map(str, places)), mesh=mesh or {"data": 8})
    devices = sharding.make_mesh(cfg.mesh)
    with jax.set_mesh(devices):
      begun = start.state(cfg, build.build(cfg, platform="cpu"), devices)
      return jax.device_get(begun.trainable)

  return state


@pytest.mark.parametrize("mesh", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str)
def test_decoder_and_encoder_are_read_and_the_projector_is_drawn(begin, qwen, siglip, mesh):
  params = begin(qwen, siglip, mesh=mesh)
  text = written.read(qwen)
  _, shape, data = text["model.layers.2.self_attn.q_proj.weight"]
  stored = np.frombuffer(data, written.TYPES["BF16"]).reshape(shape).astype(np.float32)
  # torch: [out = heads x head_dim, in]; ours: [in, heads, head_dim].
  np.testing.assert_array_equal(params["decoder"]["layers"]["q"][2], stored.T.reshape(64, 4, 16))
  eye = written.read(siglip)
  _, shape, data = eye["encoder.layers.1.mlp.fc1.weight"]
  stored = np.frombuffer(data, np.float32).reshape(shape)
  np.testing.assert_array_equal(params["vision"]["layers"]["up"][1], stored.T)
  # As a run that begins with nothing draws it.
  fresh = begin()
  jax.tree.map(np.testing.assert_array_equal, params["projector"], fresh["projector"])
  assert np.ptp(params["projector"]["up"]) > 0


def test_places_that_do_not_make_one_model_are_refused(begin, qwen, siglip, tmp_path):
  with pytest.raises(ValueError, match="both hold the decoder; give each part once"):
    begin(qwen, qwen)
  with pytest.raises(ValueError, match="vision, but no decoder; add the folder of one"):
    begin(siglip)
  with pytest.raises(FileNotFoundError, match="init_from: no .*nowhere; expected a run"):
    begin(tmp_path / "nowhere")


def test_another_architecture_is_refused_though_its_shapes_fit(begin, qwen, siglip, tmp_path):
  other = tmp_path / "other"
  other.mkdir()
  said = json.loads((qwen / "config.json").read_text())
  (other / "config.json").write_text(json.dumps({**said, "rope_theta": 5e5}))
  (other / "model.safetensors").symlink_to(qwen / "model.safetensors")
  with pytest.raises(ValueError, match="rope_theta = 500000.0 there, 1000000.0 in the model"):
    begin(other, siglip)


def test_a_run_stands_alone(begin, siglip, tmp_path, builder):
  run = tmp_path / "run"
  run.mkdir()
  checkpoint.write_description(run, PUBLISHED, builder.policy)
  checkpoint.folder(run).mkdir(exist_ok=True)
  with pytest.raises(ValueError, match="run is a run and holds a whole model, so it stands alone"):
    begin(run, siglip)


def test_the_tokenizer_is_that_of_the_first_place_that_has_one(tmp_path, tokenizer):
  (tmp_path / "eye").mkdir()
  (tmp_path / "words").mkdir()
  tokenizer.save(tmp_path / "words")
  cfg = test_loop.config(init_from=f"{tmp_path / 'eye'},{tmp_path / 'words'}")
  found = tokenizers.prepare(cfg, 512, (), tmp_path / "run")
  assert found.encode("nodule left") == tokenizer.encode("nodule left")
