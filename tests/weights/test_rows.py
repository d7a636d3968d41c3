"""Rows of the vocabulary that nobody uses may hold anything; those in use may not."""

import json

import ml_dtypes
import numpy as np
import pytest

from hulu_jax.cli import convert
from hulu_jax.weights import rows
from tests.weights import written


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_any_infinity_or_nan_is_seen(dtype):
  most = ml_dtypes.finfo(dtype).max
  block = np.array([0.0, -0.0, 1.5, -most, most, ml_dtypes.finfo(dtype).tiny], dtype)
  assert rows._clean(block)
  for bad in (np.nan, -np.nan, np.inf, -np.inf):
    for i in range(len(block)):
      worse = block.copy()
      worse[i] = bad
      assert not rows._clean(worse)


@pytest.fixture
def holed(tmp_path, words):
  """A checkpoint whose unused row and whose image token's row are NaN."""
  size = written.Size(vocab=words.size + 9, head_dim=8, heads=3, kv_heads=1)
  arrays = written.folder(tmp_path / "a", size, "hulu-med", "BF16")
  for name in ("model.embed_tokens.weight", "lm_head.weight"):
    arrays[name][words.size + 4] = np.nan
  arrays["model.embed_tokens.weight"][words.special["image"], 3] = np.inf
  written.save(tmp_path / "a" / "model.safetensors", arrays)
  return tmp_path, arrays


def run(*arguments) -> int:
  return convert.main([str(a) for a in arguments])


def test_unused_rows_become_zeros_and_it_is_said(holed, words, capsys):
  folder, arrays = holed
  words.save(folder / "a")
  assert run(folder / "a", folder / "b", "--to=transformers") == 0
  said = capsys.readouterr().out
  embed, head = "model.language_model.embed_tokens.weight", "lm_head.weight"
  assert f"{embed}: NaN or infinity in 2 rows of unused ids, written as zeros" in said
  assert f"{head}: NaN or infinity in 1 rows of unused ids" in said
  assert "NaN or infinity in 2 rows" in (folder / "b" / "README.md").read_text()
  for name, old in ((embed, "model.embed_tokens.weight"), (head, head)):
    kind, shape, data = written.read(folder / "b")[name]
    found = np.frombuffer(data, written.TYPES[kind]).reshape(shape)
    bad = ~np.isfinite(arrays[old]).all(axis=1)
    assert not found[bad].any()
    np.testing.assert_array_equal(found[~bad], arrays[old][~bad])


def test_used_rows_are_refused(holed, words, capsys):
  folder, arrays = holed
  assert run(folder / "a", folder / "b", "--to=hulu_jax") == 2
  assert "no tokenizer says which ids are used" in capsys.readouterr().err
  words.save(folder / "a")
  arrays["lm_head.weight"][5, 0] = np.nan
  written.save(folder / "a" / "model.safetensors", arrays)
  assert run(folder / "a", folder / "b", "--to=hulu_jax") == 2
  assert "lm_head.weight: NaN or infinity in the rows of the ids 5" in capsys.readouterr().err
  assert sorted(p.name for p in folder.iterdir()) == ["a"]


def test_a_tokenizer_larger_than_the_model(tmp_path, words, capsys):
  written.folder(tmp_path / "a", written.QWEN3, "hulu-med")
  words.save(tmp_path / "a")
  assert run(tmp_path / "a", tmp_path / "b", "--to=hulu_jax") == 2
  assert f"the tokenizer has {words.size} ids, the model 60" in capsys.readouterr().err


def test_token_ids(tmp_path, words):
  """A picture's token is <image> for Hulu-Med, <|image_pad|> for transformers."""
  size = written.Size(vocab=words.size)
  written.folder(tmp_path / "a", size, "hulu-med")
  words.save(tmp_path / "a")
  made = {}
  for layout in ("hulu-med", "transformers"):
    assert run(tmp_path / "a", tmp_path / layout, f"--to={layout}") == 0
    made[layout] = json.loads((tmp_path / layout / "config.json").read_text())
  tokens = json.loads((tmp_path / "transformers" / "tokenizer.json").read_text())["added_tokens"]
  ids = {token["content"]: token["id"] for token in tokens}
  assert made["hulu-med"]["image_token_index"] == ids["<image>"] == words.special["image"]
  assert made["transformers"]["image_token_id"] == ids["<|image_pad|>"]
  assert made["transformers"]["video_token_id"] == ids["<|video_pad|>"]
  assert made["transformers"]["text_config"]["eos_token_id"] == ids["<|im_end|>"]
