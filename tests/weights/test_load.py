"""Folders of weights: round trips, shards, a missing file, and errors that name everything."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from hulu_jax.core import sharding
from hulu_jax.models import hulu
from hulu_jax.weights import export
from hulu_jax.weights import load
from hulu_jax.weights import names


@pytest.mark.parametrize("layout", names.LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shards", [1, 3])
def test_round_trip_is_byte_equal(checkpoint, layout, dtype, shards):
  made = checkpoint(layout=layout)
  made.tensors = {name: x.astype(dtype) for name, x in made.tensors.items()}
  folder = made.write(shards)
  assert load.read_config(folder) == made.config
  params = load.load_params(folder, made.config, dtype=dtype)
  back = dict(export.tensors(params, made.config, layout))
  assert back.keys() == made.tensors.keys()
  for name, tensor in made.tensors.items():
    assert back[name].dtype == tensor.dtype
    assert back[name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_under_a_mesh_every_leaf_is_born_in_its_shards(checkpoint, mesh_2x2x2, dtype):
  made = checkpoint()
  folder = made.write(shards=2)
  whole = load.load_params(folder, made.config, dtype=dtype)
  params = load.load_params(folder, made.config, mesh_2x2x2, dtype)
  where = sharding.shardings(hulu.specs(made.config), mesh_2x2x2)
  jax.tree.map(np.testing.assert_array_equal, params, whole)
  assert jax.tree.map(lambda leaf: leaf.sharding, params) == where
  for name, array in export.tensors(params, made.config, "video_llama_3"):
    np.testing.assert_array_equal(array, made.tensors[name].astype(dtype))


def test_a_file_that_the_index_misnames_is_found_by_its_content(checkpoint):
  """The published 7B names a fourth file of three."""
  made = checkpoint()
  folder = made.write(shards=3)
  (folder / "model-00003-of-00003.safetensors").rename(folder / "model-00003-of-00004.safetensors")
  params = load.load_params(folder, load.read_config(folder))
  back = dict(export.tensors(params, made.config, "video_llama_3"))
  assert all(np.array_equal(back[name], made.tensors[name]) for name in made.tensors)


def test_files_that_the_index_does_not_name_are_ignored(checkpoint):
  folder = checkpoint().write(shards=2)
  save_file({"adapter": np.zeros(3, np.float32)}, folder / "adapter.safetensors")
  load.load_params(folder, load.read_config(folder))


def test_a_lost_shard(checkpoint):
  """The head alone may lie in a shard: its absence must not look like tied embeddings."""
  made = checkpoint()
  head = {"lm_head.weight": made.tensors.pop("lm_head.weight")}
  folder = made.write(shards=2)
  index = folder / "model.safetensors.index.json"
  content = json.loads(index.read_text())
  content["weight_map"] |= dict.fromkeys(head, "model-00003-of-00003.safetensors")
  index.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r"no file holds lm_head.weight; .*model-00003-of-00003"):
    load.read_config(folder)


def test_everything_wrong_is_in_one_error(checkpoint):
  made = checkpoint()
  at = "model.language_model."
  for layer in range(made.config.decoder.layers):
    del made.tensors[f"{at}layers.{layer}.mlp.up_proj.weight"]
  made.tensors[f"{at}layers.1.self_attn.rotary_emb.inv_freq"] = np.zeros(4, np.float32)
  made.tensors[f"{at}norm.weight"] = np.zeros(5, np.float32)
  folder = made.write()
  with pytest.raises(ValueError) as error:
    load.load_params(folder, made.config)
  assert str(error.value) == (
    f"tensors of {folder} do not fit the config: "
    f"missing: {at}layers.{{0..2}}.mlp.up_proj.weight; "
    f"unexpected: {at}layers.1.self_attn.rotary_emb.inv_freq; "
    f"mis-shaped: {at}norm.weight has (5,), expected (64,)"
  )


def test_a_checkpoint_of_another_size(checkpoint):
  made = checkpoint()
  folder = made.write()
  deeper = dataclasses.replace(made.config.decoder, layers=7)
  with pytest.raises(ValueError, match=r"missing: .*layers\.\{3\.\.6\}\.self_attn\.q_proj\.weight"):
    load.load_params(folder, dataclasses.replace(made.config, decoder=deeper))


def test_a_tensor_in_two_files(checkpoint):
  made = checkpoint()
  folder = made.write(shards=2)
  (folder / "model.safetensors.index.json").unlink()
  save_file({"lm_head.weight": made.tensors["lm_head.weight"]}, folder / "copy.safetensors")
  with pytest.raises(ValueError, match="lm_head.weight is in both copy.safetensors and model-0000"):
    load.load_params(folder, made.config)


def test_damaged_and_absent_files(checkpoint, tmp_path):
  made = checkpoint()
  with pytest.raises(ValueError, match=r"no file .*config\.json"):
    load.read_config(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json is not JSON"):
    load.read_config(tmp_path)
  (tmp_path / "config.json").write_text("[]")
  with pytest.raises(ValueError, match=r"config\.json is not a JSON object"):
    load.read_config(tmp_path)
  folder = made.write()
  file = folder / "model.safetensors"
  file.write_bytes(file.read_bytes()[:-100])
  with pytest.raises(ValueError, match="not a whole safetensors file"):
    load.load_params(folder, made.config)
  file.rename(folder / "pytorch_model.bin")
  with pytest.raises(ValueError, match=r"no \*.safetensors; found .*pytorch_model.bin"):
    load.load_params(folder, made.config)
