"""PEFT folders: names, round trips, shards, and errors that list everything wrong."""

from collections.abc import Callable
import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save_file

from hulu_jax import peft
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.peft import lora
from hulu_jax.weights import adapters
from hulu_jax.weights import checkpoint
from hulu_jax.weights import names

SPECS = hulu.specs(presets.TINY)
TARGETS = (
  "decoder/layers/(q|k|v|o|gate|up|down)|vision/layers/(q|k|v|o|up|down)|projector/(up|down)"
)
LORA = {"method": "lora", "rank": 3, "alpha": 6.0, "rslora": False, "targets": TARGETS}


@pytest.fixture(scope="module")
def found():
  return peft.named(LORA)


@pytest.fixture(scope="module")
def params(found):
  """Random numbers in every leaf."""
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), found.specs(SPECS))


@pytest.fixture(scope="module")
def base(params, found):
  """The same without its adapters."""
  rest, _ = tree.partition(params, f"(?!({found.pattern(SPECS)})$).*")
  return jax.tree.map(
    lambda node: node.w if isinstance(node, lora.LowRank) else node,
    rest,
    is_leaf=lambda node: isinstance(node, lora.LowRank),
  )


@pytest.fixture
def write(params, found, tmp_path) -> Callable[..., tuple]:
  """write(change of the config, change of the tensors): a folder with a few things wrong."""

  def make(config=None, tensors=None, layout="video_llama_3"):
    folder = tmp_path / "adapter"
    adapters.write(folder, params, presets.TINY, found.settings, base="b", layout=layout)
    said = json.loads((folder / "adapter_config.json").read_text())
    held = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**said, **(config or {})}))
    if tensors:
      tensors(held)
      save_file(held, folder / "adapter_model.safetensors")
    return folder

  return make


def test_names_shapes_and_config(params, tmp_path):
  """Spelled out for one stack of heads and the projector."""
  few = peft.named(LORA | {"targets": "vision/layers/o|projector/down", "rslora": True})
  folder = tmp_path / "new" / "adapter"
  adapters.write(folder, params, presets.TINY, few.settings, base="org/model", layout="hulumed")
  held = load_file(folder / "adapter_model.safetensors")
  at = "base_model.model.model"
  o = f"{at}.vision_encoder.encoder.layers.1.self_attn.out_proj"
  down = f"{at}.mm_projector.readout.2"
  assert sorted(held) == sorted(
    [
      *(f"{o.replace('.1.', f'.{i}.')}.lora_{x}.weight" for i in (0, 1) for x in "AB"),
      *(f"{down}.lora_{x}.weight" for x in "AB"),
    ]
  )
  # torch computes x A^T B^T on inputs that join heads and head_dim.
  ours = params["vision"]["layers"]["o"]
  np.testing.assert_array_equal(held[f"{o}.lora_A.weight"], ours.a[1].reshape(64, 3).T)
  np.testing.assert_array_equal(held[f"{o}.lora_B.weight"], ours.b[1].T)
  np.testing.assert_array_equal(held[f"{down}.lora_B.weight"], params["projector"]["down"].b.T)
  assert json.loads((folder / "adapter_config.json").read_text()) == {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "org/model",
    "r": 3,
    "lora_alpha": 6.0,
    "lora_dropout": 0.0,
    "target_modules": (
      r"model\.mm_projector\.readout\.2|"
      r"model\.vision_encoder\.encoder\.layers\.\d+\.self_attn\.out_proj"
    ),
    "use_rslora": True,
    "bias": "none",
    "inference_mode": True,
  }
  assert [p.name for p in folder.parent.iterdir()] == ["adapter"]  # nothing half-written beside


@pytest.mark.parametrize("layout", names.LAYOUTS)
def test_round_trip(layout, write, params, base, mesh_2x2x2, found):
  """Bit by bit, born in their shards; the three layouts are told apart by their names."""
  got, settings = adapters.load(write(layout=layout), base, presets.TINY, mesh_2x2x2)
  jax.tree.map(np.testing.assert_array_equal, got, params)
  assert (settings.rank, settings.alpha, settings.rslora) == (3, 6.0, False)
  where = sharding.shardings(found.specs(SPECS), mesh_2x2x2)
  mine, _ = tree.partition(where, found.pattern(SPECS))
  tree.map_named(
    lambda name, at, x: np.testing.assert_(x.sharding == at, name),
    mine,
    tree.partition(got, found.pattern(SPECS))[0],
  )


def test_names_by_their_ends_match_every_part_as_in_peft(write, base, mesh_of_one):
  """`q_proj` is a name of the decoder's and of the encoder's layers; fc1 of the encoder's alone."""

  def keep(held):
    for name in list(held):
      if not name.split(".lora_")[0].endswith((".q_proj", ".fc1")):
        del held[name]

  folder = write({"target_modules": ["q_proj", "fc1"]}, keep)
  _, settings = adapters.load(folder, base, presets.TINY, mesh_of_one)
  assert settings.targets == "decoder/layers/q|vision/layers/q|vision/layers/up"


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"use_newdora": 1, "lora_x": 0}, "unknown: lora_x, use_newdora$"),
    ({"r": None, "lora_alpha": None}, "missing: r, lora_alpha$"),
    (
      {"use_dora": True, "rank_pattern": {"q": 1}, "peft_type": "IA3", "modules_to_save": ["x"]},
      r"not supported: modules_to_save = \['x'\], rank_pattern = .*, use_dora = True, peft_type",
    ),
    ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
    ({"init_lora_weights": 1}, "init_lora_weights = 1"),
    ({"target_modules": 3}, "target_modules = 3"),
    ({"target_modules": ["c_attn"]}, r"target_modules = \['c_attn'\] match no weight"),
    (
      {"target_modules": r".*layers\.1\.mlp\.down_proj"},
      r"some layers .*decoder/layers/down \[1\]",
    ),
    ({"target_modules": ["lm_head", "q_proj"]}, "no linear layer: decoder/head"),
    ({"r": 2.5}, "peft.rank = 2.5"),
  ],
)
def test_a_config_that_means_more_than_lora(config, message, write, base, mesh_of_one):
  with pytest.raises(ValueError, match=message):
    adapters.load(write(config), base, presets.TINY, mesh_of_one)


def test_what_peft_writes_beside_is_understood(write, base, mesh_of_one):
  extra = {
    "peft_version": "0.21.2",
    "auto_mapping": None,
    "lora_dropout": 0.05,
    "init_lora_weights": True,
    "alpha_pattern": {},
    "use_dora": False,
    "megatron_core": "megatron.core",
    "layers_to_transform": None,
  }
  adapters.load(write(extra), base, presets.TINY, mesh_of_one)


def test_every_tensor_that_is_wrong_is_named(write, base, mesh_of_one):
  at = "base_model.model.model.language_model.layers.0"

  def spoil(held):
    del held[f"{at}.self_attn.q_proj.lora_B.weight"]
    held[f"{at}.self_attn.q_norm.lora_A.weight"] = np.zeros((3, 4), np.float32)
    held[f"{at}.mlp.up_proj.lora_A.weight"] = np.zeros((4, 64), np.float32)

  with pytest.raises(ValueError) as error:
    adapters.load(write(tensors=spoil), base, presets.TINY, mesh_of_one)
  assert str(error.value).endswith(
    f"missing: {at}.self_attn.q_proj.lora_B.weight; "
    f"unexpected: {at}.self_attn.q_norm.lora_A.weight; "
    f"mis-shaped: {at}.mlp.up_proj.lora_A.weight has (4, 64), expected (3, 64)"
  )


def test_files_that_are_not_there_or_not_whole(write, base, mesh_of_one, tmp_path):
  with pytest.raises(ValueError, match=r"no file .*adapter_config\.json"):
    adapters.load(tmp_path, base, presets.TINY, mesh_of_one)
  file = write() / "adapter_model.safetensors"
  file.write_bytes(file.read_bytes()[:-9])
  with pytest.raises(ValueError, match="not a whole safetensors file"):
    adapters.load(file.parent, base, presets.TINY, mesh_of_one)
  file.rename(file.with_name("adapter_model.bin"))
  with pytest.raises(ValueError, match=r"no adapter_model.safetensors .*adapter_model\.bin"):
    adapters.load(file.parent, base, presets.TINY, mesh_of_one)


def test_names_of_no_layout(write, base, mesh_of_one):
  def rename(held):
    for name in list(held):
      held[name.replace("base_model.model.model", "model")] = held.pop(name)

  with pytest.raises(ValueError, match="no known layout: .*video_llama_3: model.language_model"):
    adapters.load(write(tensors=rename), base, presets.TINY, mesh_of_one)


def test_writing_leaves_all_or_nothing(params, found, tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError("no space left")

  monkeypatch.setattr(adapters, "save_file", full)
  arguments = (params, presets.TINY, found.settings)
  with pytest.raises(OSError, match="no space left"):
    adapters.write(tmp_path / "a", *arguments, base="b", layout="hulumed")
  assert not list(tmp_path.iterdir())
  (tmp_path / "a").mkdir()
  with pytest.raises(FileExistsError, match="exists"):
    adapters.write(tmp_path / "a", *arguments, base="b", layout="hulumed")
  with pytest.raises(ValueError, match="no layout 'llava'; there are: video_llama_3, hulumed"):
    adapters.write(tmp_path / "b", *arguments, base="b", layout="llava")


def a_run(folder, builder, trained, found):
  """A run folder as `hulu train` leaves one, without its base."""
  folder.mkdir()
  checkpoint.write_description(folder, presets.TINY, builder.policy, found)
  with ocp.StandardCheckpointer() as writer:
    writer.save(checkpoint.folder(folder) / "7" / "state", {"params": trained})


def test_a_runs_adapters_without_reading_its_base(builder, params, found, tmp_path):
  mine, rest = tree.partition(params, found.pattern(SPECS))
  a_run(tmp_path / "run", builder, mine, found)
  with ocp.StandardCheckpointer() as writer:
    writer.save(checkpoint.base_folder(tmp_path / "run"), {"params": rest})
  adapters.write_run(tmp_path / "run", tmp_path / "out", base="b", layout="hulumed")
  adapters.write(
    tmp_path / "want", params, presets.TINY, found.settings, base="b", layout="hulumed"
  )
  for name in ("adapter_config.json", "adapter_model.safetensors"):
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "want" / name).read_bytes()


def test_a_run_that_trained_more_is_refused(builder, params, found, tmp_path):
  a_run(tmp_path / "run", builder, params, found)
  with pytest.raises(ValueError, match="more than its adapters, .*decoder/embed, decoder/head"):
    adapters.write_run(tmp_path / "run", tmp_path / "out", base="b", layout="hulumed")
  checkpoint.write_description(tmp_path / "run", presets.TINY, builder.policy)
  with pytest.raises(ValueError, match="was trained with peft = None; expected the method lora"):
    adapters.write_run(tmp_path / "run", tmp_path / "out", base="b", layout="hulumed")
