"""A run with LoRA: the base keeps its bits, steps hold the adapters, the result answers."""

import json
import shutil

import jax
from ml_collections import ConfigDict
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments import finetune_vqa
import hulu_jax
from hulu_jax import peft
from hulu_jax.cli import main
from hulu_jax.core import linear
from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.peft import lora
from hulu_jax.training import build
from hulu_jax.training import loop
from hulu_jax.weights import adapters
from hulu_jax.weights import checkpoint
from tests.training import test_loop

MESH = {"data": 8}
LORA = {
  "method": "lora",
  "rank": 4,
  "alpha": 32.0,
  "rslora": True,
  "targets": "decoder/layers/(q|v|o|down)",
}
TRAINED = {f"decoder/layers/{n}/{x}" for n in ("q", "v", "o", "down") for x in "ab"}


def config(base, **changes) -> ConfigDict:
  """Three steps of text, saved each, with the last norm trained in full beside the adapters."""
  c = test_loop.config(mesh=MESH, steps=3)
  with c.unlocked():
    c.data.mixture = c.data.mixture[:1]
    c.shapes = {"text": {"tokens": 160, "supervised": 40, "visual": 8, "groups": ()}}
    c.compute.vision_remat = c.compute.decoder_remat = "none"
    c.checkpoint = {"every": 1, "keep": 3, "keep_every": None, "strict": False}
    c.peft, c.trainable = ConfigDict(LORA), "decoder/norm"
    c.init_from = base and str(base)
    for key, value in changes.items():
      c[key] = value
  return c


def train(cfg, workdir):
  return jax.device_get(loop.train(cfg, workdir, lambda _: None))


@pytest.fixture(scope="module")
def base(tmp_path_factory, fresh_tiny, tokenizer, builder):
  """A run folder of the tiny model without adapters: where the runs start."""
  folder = tmp_path_factory.mktemp("base")
  tokenizer.save(folder)
  checkpoint.write_description(folder, presets.TINY, builder.policy)
  with ocp.StandardCheckpointer() as writer:
    writer.save(checkpoint.folder(folder) / "1" / "state", {"params": fresh_tiny})
  return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp("lora")


@pytest.fixture(scope="module")
def state(workdir, base):
  return train(config(base), workdir)


def test_the_base_keeps_its_bits_and_the_adapters_move(state, fresh_tiny, quick):
  found, specs = peft.named(LORA), hulu.specs(presets.TINY)
  kept, before = tree.partition(found.wrap(fresh_tiny), "(?!decoder/norm$).*")
  jax.tree.map(np.testing.assert_array_equal, state.frozen, kept)
  assert set(tree.names(state.trainable)) == TRAINED | {"decoder/norm"}
  start = jax.jit(lambda key: P.initialize(key, lora.new(specs, found.settings)))
  first = tree.merge(start(jax.random.key(config(None).seed)), before)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.trainable, jax.device_get(first))
  # Adam moves a parameter by about its rate, 3e-3, a step; `a` not until `b` has left zero.
  assert min(jax.tree.leaves(moved)) > 1e-4


def test_optimizer_state_exists_for_what_trains_only(state):
  sizes = sum(x.size for x in jax.tree.leaves(state.trainable))
  moments = [x for x in jax.tree.leaves(state.opt) if np.ndim(x)]
  assert sum(m.size for m in moments) == 2 * sizes


def test_steps_hold_what_trains_and_the_base_is_stored_once(state, workdir, mesh_of_one):
  held = checkpoint.load_trained(workdir, hulu.specs(presets.TINY), mesh_of_one)
  assert set(tree.names(held)) == TRAINED | {"decoder/norm"}
  jax.tree.map(np.testing.assert_array_equal, held, state.trainable)
  whole = checkpoint.load_params(workdir, hulu.specs(presets.TINY), mesh_of_one)
  jax.tree.map(np.testing.assert_array_equal, whole, tree.merge(state.trainable, state.frozen))


def test_resume_is_bitwise(state, base, workdir, tmp_path):
  again = tmp_path / "again"
  shutil.copytree(workdir, again)
  shutil.rmtree(again / "checkpoints" / "3")
  jax.tree.map(np.testing.assert_array_equal, train(config(base), again), state)


def test_a_loaded_run_answers_as_the_merged_model(state, workdir, mesh_2x2x2):
  specs = hulu.specs(presets.TINY)
  model = hulu_jax.load(workdir)
  plain = checkpoint.load_plain(workdir, specs, mesh_2x2x2)
  want = linear.plain(tree.merge(state.trainable, state.frozen))
  # float32, sums of four products in another order.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, want)
  assert not np.array_equal(
    want["decoder"]["layers"]["q"], state.frozen["decoder"]["layers"]["q"].w
  )
  merged = model.__class__(**{**vars(model), "params": jax.device_get(plain)})
  asked = [[{"role": "user", "content": "which side is the finding ?"}]]
  assert model.generate(asked, max_new_tokens=6) == merged.generate(asked, max_new_tokens=6)


def test_a_saved_run_has_its_adapters_merged(state, workdir, tmp_path, capsys):
  """`hulu convert` streams tensors, so it says what merges."""
  hulu_jax.save(hulu_jax.load(workdir), tmp_path / "merged", layout="hulu_jax")
  got = hulu_jax.load(tmp_path / "merged").params
  want = linear.plain(tree.merge(state.trainable, state.frozen))
  # float32, sums of four products in another order.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)
  assert main.main(["convert", str(workdir), str(tmp_path / "x"), "--to=hulu-med"]) == 2
  assert "hulu_jax.save(hulu_jax.load(RUN), FOLDER" in capsys.readouterr().err
  assert not (tmp_path / "x").exists()


def test_a_base_is_loaded_with_a_peft_folder(state, base, workdir, tmp_path):
  """A run's own adapters are merged before others are put on top."""
  params = tree.merge(state.trainable, state.frozen)
  settings = peft.named(LORA).settings
  adapters.write(tmp_path / "a", params, presets.TINY, settings, base="b", layout="hulumed")
  got = hulu_jax.load(base, adapters=tmp_path / "a").params
  norm = {"decoder": {**params["decoder"], "norm": got["decoder"]["norm"]}}
  jax.tree.map(np.testing.assert_array_equal, got, {**params, **norm})
  twice = hulu_jax.load(workdir, adapters=tmp_path / "a").params["decoder"]["layers"]["q"]
  once = params["decoder"]["layers"]["q"]
  np.testing.assert_allclose(twice.w, linear.plain(once), atol=1e-6)
  np.testing.assert_array_equal(twice.b, once.b)


def test_a_resume_with_other_adapters_is_refused(state, base, workdir):
  with pytest.raises(ValueError, match="was trained with peft = .*alpha=32.0.*, not .*alpha=4.0"):
    train(config(base, peft=ConfigDict({**LORA, "alpha": 4.0})), workdir)
  with pytest.raises(ValueError, match="was trained with peft = .*, not None"):
    train(config(base, peft=None, trainable=".*"), workdir)


def test_what_adapters_keep_frozen_cannot_train_in_full():
  with pytest.raises(ValueError, match=r"'\.\*' matches decoder/layers/down/w, .* trainable = ''"):
    build.build(config(None, trainable=".*"), platform="cpu")
  with pytest.raises(ValueError, match="pattern 'decodr' matches no parameter"):
    build.build(config(None, trainable="decodr"), platform="cpu")


def test_flags_of_an_experiment_say_it(capsys, tmp_path, root, monkeypatch):
  monkeypatch.chdir(root)
  flags = [f"--config.peft={LORA | {'rank': 0}}", "--config.trainable="]
  command = [
    "train",
    "--config=experiments/finetune_vqa.py:tiny,full",
    f"--workdir={tmp_path}",
    *flags,
  ]
  assert main.main(command) == 2
  assert "peft.rank = 0; expected a whole number" in capsys.readouterr().err


def test_lora_on_the_7b_decoder_traces_on_256_chips():
  """Every linear layer at rank 64: 161,480,704 parameters train, and two moments for each."""
  cfg = finetune_vqa.get_config("7b,full")
  every = "decoder/layers/(q|k|v|o|gate|up|down)"
  with cfg.unlocked():
    cfg.trainable, cfg.peft = "", ConfigDict(LORA | {"rank": 64, "targets": every})
  mesh = sharding.abstract_mesh({"data": 2, "fsdp": 32, "tensor": 4})
  program = build.build(cfg, platform="cpu")
  with jax.sharding.use_abstract_mesh(mesh):
    state = jax.eval_shape(program.init, jax.eval_shape(lambda: jax.random.key(0)))
    batch = program.abstract_batch(0, sharding.batch_sharding(mesh))
    new, _ = jax.eval_shape(jax.jit(program.steps[0]), state, batch)
  trained = sum(x.size for x in jax.tree.leaves(new.trainable))
  assert trained == 161_480_704
  assert sum(x.size for x in jax.tree.leaves(new.opt) if x.ndim) == 2 * trained
  where = sharding.shardings(program.specs, mesh)
  held = tree.merge(new.trainable, new.frozen)
  jax.tree.map(lambda x, at: np.testing.assert_(x.sharding.spec == at.spec), held, where)


def test_the_description_of_a_run_names_its_adapters(state, workdir):
  assert json.loads((workdir / "model.json").read_text())["peft"] == LORA
