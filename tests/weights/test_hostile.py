"""Checkpoints that mean harm, or are damaged: refused or neutralised, and it is said."""

import json
import os
import struct

import numpy as np
import pytest

from hulu_jax.cli import convert
from hulu_jax.weights import files
from hulu_jax.weights import headers
from tests.weights import written

LAYOUT = "hulu-med"


def run(*arguments) -> int:
  return convert.main([str(a) for a in arguments])


@pytest.fixture
def made(tmp_path):
  written.folder(tmp_path / "a", written.QWEN3, LAYOUT, shards=2)
  return tmp_path


def refused(root, capsys, message) -> None:
  assert run(root / "a", root / "b", "--to=transformers") == 2
  error = capsys.readouterr().err
  assert message in error and error.count("\n") == 1, error
  assert [p.name for p in root.iterdir()] == ["a"]


@pytest.mark.parametrize(
  "name",
  [
    "../secret.safetensors",
    "/etc/passwd",
    "x/../../y.safetensors",
    "..",
    "",
    "a\\..\\b.safetensors",
  ],
)
def test_an_index_that_leads_out_of_the_folder(made, capsys, name):
  written.save(made / "a" / "secret.safetensors", {"x": np.zeros(1, np.float32)})
  index = made / "a" / "model.safetensors.index.json"
  said = json.loads(index.read_text())
  said["weight_map"]["lm_head.weight"] = name
  index.write_text(json.dumps(said))
  refused(made, capsys, f"lm_head.weight is said to be in {name!r}")


@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin", 7])
def test_an_index_that_names_no_safetensors(made, capsys, name):
  index = made / "a" / "model.safetensors.index.json"
  said = json.loads(index.read_text())
  said["weight_map"]["lm_head.weight"] = name
  index.write_text(json.dumps(said))
  refused(made, capsys, f"lm_head.weight is said to be in {name!r}")


def test_a_pipe_in_the_place_of_a_file_is_not_opened(made, capsys):
  file = made / "a" / "model-00002-of-00002.safetensors"
  file.unlink()
  os.mkfifo(file)
  refused(made, capsys, "no file holds")


def file_of(path, header: bytes, data: bytes = b"\0" * 8) -> None:
  path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def entry(shape, dtype="F32", offsets=(0, 8)) -> bytes:
  return json.dumps({"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


@pytest.mark.parametrize(
  ("header", "message"),
  [
    (entry([2**40, 2**20]), "is F32 [1099511627776, 1048576], but has 8 bytes"),
    (entry([-1, -2]), "has the shape [-1, -2]"),
    (entry([2.0]), "has the shape [2.0]"),
    (entry([True, 2]), "has the shape [True, 2]"),
    (entry([2], dtype="F31"), "unknown type 'F31'"),
    (entry([2], offsets=[0, 2**62]), "has 4611686018427387904 bytes"),
    (entry([2], offsets=[8, 16]), "begins at byte 8"),
    (entry([1], offsets=[0, 4]), "its tensors end at byte"),
    (entry([2], offsets=[8, 0]), "but has -8 bytes"),
    (entry([2], offsets="all"), "has the place 'all'"),
    (b'{"t": 3}', "has the place None"),
    (b"[" * 100_000, "not JSON"),
    (b"[]", "not a JSON object"),
    (b"\xff\xfe", "not JSON"),
  ],
)
def test_headers_that_do_not_add_up(tmp_path, header, message):
  file_of(tmp_path / "x.safetensors", header)
  with pytest.raises(ValueError) as error:
    headers.read(tmp_path / "x.safetensors")
  assert message in str(error.value) and "not a whole safetensors file" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 8 + b"{}", struct.pack("<Q", 9)])
def test_files_without_a_header(tmp_path, content):
  (tmp_path / "x.safetensors").write_bytes(content)
  with pytest.raises(ValueError, match="its header claims"):
    headers.read(tmp_path / "x.safetensors")


def test_two_tensors_in_one_place(tmp_path):
  one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
  file_of(tmp_path / "x.safetensors", json.dumps({"a": one, "b": one}).encode())
  with pytest.raises(ValueError, match="b begins at byte 0 of the data, .* ends at 8"):
    headers.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000, but 3 layers are stored"),
    ({"vocab_size": 10**15}, "mis-shaped: lm_head.weight has (60, 24)"),
    ({"hidden_size": "24"}, "hidden_size = '24'; expected a whole number"),
    ({"hidden_size": True}, "hidden_size = True; expected a whole number"),
    ({"num_attention_heads": 0}, "num_attention_heads = 0; expected a whole number"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan; expected a number above 0"),
    ({"rope_theta": -1}, "rope_theta = -1; expected a number above 0"),
    ({"vision_encoder_config": [1]}, "vision_encoder_config is list; expected an object"),
  ],
)
def test_numbers_of_a_config_that_cannot_be(made, capsys, change, message):
  said = written.config(written.QWEN3, LAYOUT) | change
  (made / "a" / "config.json").write_text(json.dumps(said))
  refused(made, capsys, message)


def test_code_and_unknown_keys_are_left_behind(made, capsys):
  said = written.config(written.QWEN3, LAYOUT) | {
    "auto_map": {"AutoConfig": "evil.Config"},
    "_attn_implementation_internal": "someone/kernel",
    "surprise": {"auto_map": 1},
  }
  said["vision_encoder_config"]["another"] = 3
  (made / "a" / "config.json").write_text(json.dumps(said))
  (made / "a" / "evil.py").write_text("raise SystemExit")
  for layout in ("transformers", "hulu-med", "hulu_jax"):
    assert run(made / "a", made / layout, f"--to={layout}") == 0
    out = capsys.readouterr().out
    assert "names code (_attn_implementation_internal, auto_map): not run, not carried over" in out
    assert "keys without a meaning here, not carried over: another, surprise" in out
    for path in (made / layout).rglob("*"):
      assert path.suffix != ".py"
      if path.is_file() and path.suffix != ".safetensors":
        assert not {b"auto_map", b"evil", b"surprise"} & set(path.read_bytes().split(b'"')), path


def test_integers_where_weights_should_be(tmp_path):
  file_of(tmp_path / "x.safetensors", entry([1], dtype="I64"))
  with files.opened(tmp_path / "x.safetensors") as stored:
    assert stored.dtypes == {"t": "I64"}


def test_a_processor_that_shows_other_pixels(made, capsys):
  (made / "a" / "preprocessor_config.json").write_text(
    json.dumps({"image_mean": [0.48, 0.46, 0.41]})
  )
  refused(made, capsys, "image_mean = [0.48, 0.46, 0.41] is not supported, 0.5 is")


def test_bounds_on_visual_tokens_travel(made):
  said = {"image_mean": [0.5] * 3, "min_tokens": 4, "max_tokens": 99}
  (made / "a" / "preprocessor_config.json").write_text(json.dumps(said))
  for source, layout in (("a", "transformers"), ("transformers", "hulu_jax"), ("hulu_jax", LAYOUT)):
    assert run(made / source, made / layout, f"--to={layout}") == 0
  native = json.loads((made / "transformers" / "processor_config.json").read_text())
  assert native["image_processor"]["size"] == {"shortest_edge": 784, "longest_edge": 19404}
  assert native["video_processor"]["size"] == {"shortest_edge": 3136, "longest_edge": 77616}
  back = json.loads((made / LAYOUT / "preprocessor_config.json").read_text())
  assert (back["min_tokens"], back["max_tokens"]) == (4, 99)
