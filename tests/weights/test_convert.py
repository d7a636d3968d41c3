"""`hulu convert` from every layout to every other and back: not a byte is lost."""

import json

import numpy as np
import pytest

import hulu_jax
from hulu_jax.cli import convert
from hulu_jax.core import tree
from hulu_jax.models import presets
from hulu_jax.weights import names
from hulu_jax.weights import sources
from tests.weights import written

TARGETS = ("hulu_jax", "hulu-med", "hulu-med-local", "transformers")
OURS = {
  "hulu-med": "hulumed",
  "hulu-med-local": "hulumed_local",
  "transformers": "video_llama_3",
}
CASES = {
  "qwen3-bfloat16-sharded": (written.QWEN3, "BF16", 3),
  "qwen3-tied": (written.QWEN3_TIED, "F32", 1),
  "qwen2-float16": (written.QWEN2, "F16", 2),
}


def run(*arguments) -> int:
  return convert.main([str(a) for a in arguments])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", written.PREFIXES)
def test_there_and_back_is_byte_equal(tmp_path, layout, case):
  size, kind, shards = CASES[case]
  arrays = written.folder(tmp_path / "a", size, layout, kind, shards)
  before = written.as_read(arrays)
  for target in TARGETS:
    assert run(tmp_path / "a", tmp_path / target, f"--to={target}", "--shard-size=20KB") == 0
    if target in written.PREFIXES:
      # What is written is what someone else's list of names says.
      found = written.read(tmp_path / target)
      assert {n: s for n, (_, s, _) in found.items()} == written.shapes(size, target)
    back = tmp_path / f"{target}-back"
    assert run(tmp_path / target, back, f"--to={layout}") == 0
    assert written.read(back) == before, target


@pytest.mark.parametrize("preset", written.FULL)
@pytest.mark.parametrize("layout", written.PREFIXES)
def test_names_and_shapes_at_full_size(preset, layout):
  """Against a list that was not made from the table; nothing is allocated."""
  table = names.entries(presets.get(preset), OURS[layout])
  ours = {entry.name: entry.shape for entries in table.values() for entry in entries}
  assert ours == written.shapes(written.FULL[preset], layout)


@pytest.mark.parametrize(
  ("preset", "bytes_"),
  [("hulu-7b", 16_089_489_888), ("hulu-14b", 2 * 15_212_577_520), ("hulu-4b", 2 * 4_444_123_376)],
)
def test_bytes_of_the_released_models(preset, bytes_):
  """The total that the index of the published 7B states; the others from their parameter counts."""
  found = sources.items(None, presets.get(preset), "hulumed", np.dtype(np.float16))
  assert sum(item.size for item in found) == bytes_


def test_a_folder_that_is_saved_from_memory(tmp_path):
  arrays = written.folder(tmp_path / "a", written.QWEN3, "hulu-med")
  model = hulu_jax.load(tmp_path / "a")
  for layout in TARGETS:
    hulu_jax.save(model, tmp_path / layout, layout=layout)
    again = hulu_jax.load(tmp_path / layout)
    assert again.config == model.config
    tree.map_named(lambda name, a, b: np.testing.assert_array_equal(a, b, name), model.params,
                   again.params)  # fmt: skip
  assert written.read(tmp_path / "hulu-med") == written.as_read(arrays)
  with pytest.raises(ValueError, match="no layout 'torch'; there are: hulu_jax, hulu-med"):
    hulu_jax.save(model, tmp_path / "b", layout="torch")
  with pytest.raises(FileExistsError, match="exists"):
    hulu_jax.save(model, tmp_path / "hulu-med", layout="transformers")


def test_a_dtype_may_be_chosen(tmp_path):
  arrays = written.folder(tmp_path / "a", written.QWEN3, "transformers")
  assert run(tmp_path / "a", tmp_path / "b", "--to=hulu-med", "--dtype=bfloat16") == 0
  found = written.read(tmp_path / "b")
  assert {kind for kind, _, _ in found.values()} == {"BF16"}
  rounded = arrays["lm_head.weight"].astype(written.TYPES["BF16"])
  assert found["lm_head.weight"][2] == rounded.tobytes()
  assert json.loads((tmp_path / "b" / "config.json").read_text())["torch_dtype"] == "bfloat16"
  arrays["lm_head.weight"][3, 5] = 1e6
  written.save(tmp_path / "a" / "model.safetensors", arrays)
  assert run(tmp_path / "a", tmp_path / "c", "--to=hulu-med", "--dtype=float16") == 2


def test_types_that_differ_inside_a_stack_need_a_choice(tmp_path, capsys):
  arrays = written.folder(tmp_path / "a", written.QWEN3, "transformers")
  name = "model.language_model.layers.1.mlp.up_proj.weight"
  arrays[name] = arrays[name].astype(np.float16)
  written.save(tmp_path / "a" / "model.safetensors", arrays)
  assert run(tmp_path / "a", tmp_path / "b", "--to=hulu-med") == 0
  assert written.read(tmp_path / "b")["model.layers.1.mlp.up_proj.weight"][0] == "F16"
  assert run(tmp_path / "a", tmp_path / "c", "--to=hulu_jax") == 2
  expected = "layers of decoder/layers/up are stored as ['float16', 'float32']; choose one"
  assert expected in capsys.readouterr().err
  assert not (tmp_path / "c").exists()


def test_a_stored_head_is_kept_whatever_the_config_says(tmp_path, capsys):
  arrays = written.folder(tmp_path / "a", written.QWEN3, "hulu-med")
  said = written.config(written.QWEN3, "hulu-med") | {"tie_word_embeddings": True}
  (tmp_path / "a" / "config.json").write_text(json.dumps(said))
  assert run(tmp_path / "a", tmp_path / "b", "--to=transformers") == 0
  assert "says tied embeddings, but lm_head.weight is stored and DIFFERS" in capsys.readouterr().out
  made = json.loads((tmp_path / "b" / "config.json").read_text())
  assert not made["tie_word_embeddings"]
  assert written.read(tmp_path / "b")["lm_head.weight"][2] == arrays["lm_head.weight"].tobytes()


def test_a_videollama3_folder(tmp_path, capsys):
  """Hulu-Med kept its tensors' names; its config calls itself otherwise, and compresses."""
  arrays = written.folder(tmp_path / "a", written.QWEN2, "hulu-med")
  said = written.config(written.QWEN2, "hulu-med")
  said |= {
    "architectures": ["Videollama3Qwen2ForCausalLM"],
    "model_type": "videollama3_qwen2",
    "use_token_compression": True,
    "vision_encoder_config": said["vision_encoder_config"]
    | {"model_type": "videollama3_vision_encoder"},
  }
  (tmp_path / "a" / "config.json").write_text(json.dumps(said))
  assert run(tmp_path / "a", tmp_path / "b", "--to=transformers") == 0
  assert "use_token_compression: the policy keeps compression off" in capsys.readouterr().out
  assert run(tmp_path / "b", tmp_path / "c", "--to=hulu-med") == 0
  assert written.read(tmp_path / "c") == written.as_read(arrays)


def test_a_shard_under_another_name_and_one_in_the_wrong_place(tmp_path):
  """The published 7B names a file that is not there; here a name is also swapped."""
  arrays = written.folder(tmp_path / "a", written.QWEN2, "hulu-med", shards=3)
  old, new = (tmp_path / "a" / f"model-00003-of-0000{n}.safetensors" for n in (3, 4))
  old.rename(new)
  assert run(tmp_path / "a", tmp_path / "b", "--to=hulu-med") == 0
  assert written.read(tmp_path / "b") == written.as_read(arrays)
  index = tmp_path / "a" / "model.safetensors.index.json"
  said = json.loads(index.read_text())
  wrong = "model-00001-of-00003.safetensors"
  said["weight_map"] = dict.fromkeys(said["weight_map"], wrong)
  index.write_text(json.dumps(said))
  assert run(tmp_path / "a", tmp_path / "c", "--to=hulu-med") == 0
  assert written.read(tmp_path / "c") == written.as_read(arrays)


def test_everything_that_is_wrong_is_listed_and_nothing_is_written(tmp_path, capsys):
  arrays = written.folder(tmp_path / "a", written.QWEN2, "hulu-med")
  del arrays["model.norm.weight"]
  arrays["model.layers.0.mlp.up_proj.weight"] = np.zeros((3, 3), np.float32)
  arrays["model.layers.0.extra"] = np.zeros(2, np.float32)
  written.save(tmp_path / "a" / "model.safetensors", arrays)
  assert run(tmp_path / "a", tmp_path / "b", "--to=hulu_jax") == 2
  said = capsys.readouterr().err
  assert "missing: model.norm.weight" in said and "unexpected: model.layers.0.extra" in said
  assert "mis-shaped: model.layers.0.mlp.up_proj.weight has (3, 3), expected (40, 32)" in said
  assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_card(tmp_path):
  written.folder(tmp_path / "a", written.QWEN3, "hulu-med")
  (tmp_path / "a" / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.\n")
  assert run(tmp_path / "a", tmp_path / "b", "--to=transformers", "--base=Qwen3-4B") == 0
  card = (tmp_path / "b" / "README.md").read_text()
  for expected in (
    'license: "apache-2.0"',
    "not a medical device",
    "Base model: Qwen3-4B",
    "Training data: not stated",
    "preset `radiology`",
    "Token compression: `off`",
  ):
    assert expected in card, expected
  assert str(tmp_path) not in card
