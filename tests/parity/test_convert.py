"""Converted folders by what PyTorch makes of them: logits, greedy tokens, prompts and pixels."""

import dataclasses
import json

import numpy as np
from PIL import Image
import pytest

from hulu_jax.cli import _convert_verify
from hulu_jax.cli import convert
from hulu_jax.data import vision
from hulu_jax.data.examples import Builder
from tests.weights import small_words
from tests.weights import written

pytest.importorskip("transformers", reason="compares with transformers: install extra 'verify'")


def run(*arguments) -> int:
  return convert.main([str(a) for a in arguments])


def model(path, size, layout, kind="F32"):
  """Activations of order one: what is wrong in one matrix shows in the logits."""
  words = small_words.made()
  size = dataclasses.replace(size, vocab=words.size + 5, max_positions=4096)
  arrays = written.folder(path, size, layout, kind)
  for name, array in arrays.items():
    scale = array[0].size ** -0.5 if array.ndim > 1 and "embed_tokens" not in name else 0.3
    shift = 1.0 if array.ndim == 1 and "norm" in name and name.endswith("weight") else 0.0
    arrays[name] = (array.astype(np.float32) * scale + shift).astype(array.dtype)
  written.save(path / "model.safetensors", arrays)
  words.save(path)
  return arrays, words


# Among them: both Qwens, tied and not, a padded vocabulary, every layout on either side.
SIDES = {
  "qwen2-to-transformers": (written.QWEN2, "hulu-med", "transformers", "F32"),
  "qwen3-tied-to-hulu-med": (written.Size(tied=True), "hulu-med-local", "hulu-med", "F32"),
  "qwen3-to-hulu_jax": (written.QWEN3, "transformers", "hulu_jax", "BF16"),
}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
  "side",
  [
    "qwen2-to-transformers",
    "qwen3-to-hulu_jax",
    pytest.param("qwen3-tied-to-hulu-med", marks=SLOW),
  ],
)
def test_verify(tmp_path, capsys, side):
  size, source, target, kind = SIDES[side]
  model(tmp_path / "a", size, source, kind)
  dtype = "bfloat16" if kind == "BF16" else "float32"
  arguments = (tmp_path / "a", tmp_path / "b", f"--to={target}", "--verify")
  assert run(*arguments, f"--verify-dtype={dtype}") == 0
  table = [line.split() for line in capsys.readouterr().out.splitlines()]
  found = {line[0]: line[1:] for line in table if line and line[0] in _convert_verify.MODALITIES}
  assert tuple(found) == _convert_verify.MODALITIES
  for error, largest, share, greedy in found.values():
    assert float(error) / float(largest) == pytest.approx(float(share), rel=2e-3)
    assert 0.5 < float(largest) < 50
    # bfloat16 may tip a token whose rivals are as likely; float32 does not here.
    assert dtype == "bfloat16" or (greedy == "8/8" and float(share) < 1e-5)


@pytest.mark.parametrize(
  ("name", "seen"),
  [
    ("model.layers.1.self_attn.k_proj.weight", ("text", "image", "images", "volume", "video")),
    pytest.param(
      "model.vision_encoder.encoder.layers.0.mlp.fc1.bias",
      ("image", "images", "volume", "video"),
      marks=SLOW,
    ),
  ],
)
def test_verify_sees_a_wrong_number(tmp_path, capsys, name, seen):
  arrays, _ = model(tmp_path / "a", written.QWEN2, "hulu-med")
  assert run(tmp_path / "a", tmp_path / "b", "--to=hulu-med") == 0
  found = {n: np.frombuffer(d, np.float32).reshape(s) for n, (_, s, d) in
           written.read(tmp_path / "b").items()}  # fmt: skip
  found[name] = found[name] * 1.02
  written.save(tmp_path / "b" / "model.safetensors", found)
  check = _convert_verify.Check(None, "float32", 1e-4, ema=False)
  assert not _convert_verify.compare(tmp_path / "a", tmp_path / "b", check)
  out = capsys.readouterr().out
  assert "BEYOND the tolerance" in out
  rows = [line.split() for line in out.splitlines()]
  shares = {row[0]: float(row[3]) for row in rows if row and row[0] in _convert_verify.MODALITIES}
  assert {n for n, share in shares.items() if share > 1e-4} == set(seen)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
  """A folder for transformers, and our builder of prompts for the same words."""
  root = tmp_path_factory.mktemp("native")
  _, words = model(root / "a", written.QWEN3, "hulu-med")
  assert run(root / "a", root / "b", "--to=transformers") == 0
  return root / "b", Builder(tokenizer=words, policy=vision.HULUMED, root=None)


TEXT = {"type": "text", "text": " Is it größer than 3 mm?\n"}


def ours(builder, content, token):
  """(ids with `token` for a visual token, float32 pixels) of one question."""
  example = builder.build([{"role": "user", "content": content}], "x", generate=True)
  ids = example.tokens.copy()
  ids[example.visual_positions] = token
  pixels = [v.patches.reshape(-1, v.patches.shape[-1]) for v in example.visuals]
  return ids, np.concatenate(pixels).astype(np.float32) / 127.5 - 1 if pixels else None


def test_it_opens_without_remote_code(native):
  import transformers

  folder, _ = native
  made = transformers.AutoModelForImageTextToText.from_pretrained(folder)
  assert type(made).__name__ == "VideoLlama3ForConditionalGeneration"
  said = json.loads((folder / "config.json").read_text())
  assert "auto_map" not in said
  assert not list(folder.glob("*.py"))
  words = transformers.AutoTokenizer.from_pretrained(folder)
  ends = made.generation_config.eos_token_id
  assert words.convert_ids_to_tokens(ends) == ["<|im_end|>", "<|endoftext|>"]
  assert words.eos_token == "<|im_end|>" and made.config.image_token_id == (
    words.convert_tokens_to_ids("<|image_pad|>")
  )


def test_conversations_become_the_same_tokens(native):
  """The template of the folder, with nothing to see, against `data.chat`."""
  import transformers

  folder, builder = native
  words = transformers.AutoTokenizer.from_pretrained(folder)
  talks = [
    [{"role": "user", "content": "which third holds the disc ?"}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": [TEXT]}],
    [
      {"role": "user", "content": [TEXT, TEXT]},
      {"role": "assistant", "content": " No.\n"},
      {"role": "user", "content": "Why?"},
    ],
  ]
  for talk in talks:
    want = builder.build(talk, "x", generate=True).tokens
    got = words.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)
    np.testing.assert_array_equal(got["input_ids"], want)


def test_pictures_and_slices_through_the_processor(native):
  """A picture; a volume as docs/convert.md shows it: its slices, merged 2 x 2, at their share."""
  import transformers
  from transformers.models.video_llama_3 import image_processing_pil_video_llama_3 as pil

  folder, builder = native
  words = transformers.AutoTokenizer.from_pretrained(folder)
  show = pil.VideoLlama3ImageProcessorPil.from_pretrained(folder)
  token = words.convert_tokens_to_ids("<|image_pad|>")
  random = np.random.default_rng(0)
  slices = random.integers(0, 256, (4, 100, 131, 3), dtype=np.uint8)
  size = {"shortest_edge": 16 * 784, "longest_edge": 16384 * 784 // 4}
  cases = [
    ({"type": "image", "frames": slices[:1]}, {"type": "image"}, {}),
    (
      {"type": "volume", "frames": slices},
      {"type": "volume", "num_frames": 4},
      {"merge_size": 2, "size": size},
    ),
  ]
  for item, theirs, options in cases:
    ids, pixels = ours(builder, [item, TEXT], token)
    pictures = [Image.fromarray(frame) for frame in item["frames"]]
    seen = show(pictures, return_tensors="np", **options)
    np.testing.assert_allclose(seen["pixel_values"], pixels, atol=1e-6)
    prompt = words.apply_chat_template(
      [{"role": "user", "content": [theirs, TEXT]}], add_generation_prompt=True, tokenize=False
    )
    for grid, merge in zip(seen["image_grid_thw"], seen["image_merge_sizes"], strict=True):
      prompt = prompt.replace("<|image_pad|>", "<seen>" * (grid.prod() // merge**2), 1)
    got = words(prompt.replace("<seen>", "<|image_pad|>")).input_ids
    np.testing.assert_array_equal(got, ids)


def test_the_whole_processor(native):
  """Needs torchvision, for clips; pixels then differ by a grey level, tokens do not."""
  pytest.importorskip("torchvision", reason="transformers shows clips through torchvision")
  import torch
  import transformers
  from transformers.video_utils import VideoMetadata

  folder, builder = native
  show = transformers.AutoProcessor.from_pretrained(folder)
  frames = np.random.default_rng(0).integers(0, 256, (4, 100, 131, 3), dtype=np.uint8)
  prompt = show.apply_chat_template(
    [{"role": "user", "content": [{"type": "video"}, TEXT]}],
    add_generation_prompt=True,
    tokenize=False,
  )
  seen = show(
    text=[prompt],
    videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
    video_metadata=[VideoMetadata(total_num_frames=4, fps=1.0, frames_indices=[0, 1, 2, 3])],
    return_tensors="pt",
  )
  clip = {"type": "video", "frames": frames, "timestamps": [0.0, 1.0, 2.0, 3.0]}
  ids, pixels = ours(builder, [clip, TEXT], show.video_token_id)
  np.testing.assert_array_equal(seen["input_ids"][0].numpy(), ids)
  np.testing.assert_allclose(seen["pixel_values_videos"].numpy(), pixels, atol=1.01 / 127.5)


def test_the_original_layouts_template(native, tmp_path):
  """chat_template.json of a Hulu-Med folder, rendered as its processor renders it."""
  import jinja2

  folder, builder = native
  assert run(folder, tmp_path / "b", "--to=hulu-med") == 0
  said = json.loads((tmp_path / "b" / "chat_template.json").read_text())["chat_template"]
  render = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(said).render
  video = {"type": "video", "num_frames": 3, "timestamps": [0, 1.04, 2.06]}
  for content, want in (
    ([{"type": "image"}, {"type": "text", "text": "Q?"}], "<image>\nQ?"),
    ([{"type": "image", "time": 1.26}], "Time 1.3s: <image>\n"),
    ([video], "Time 0s:<image>,Time 1.0s:<image>,Time 2.1s:<image>\n"),
    ([{"type": "video", "num_frames": 3}], "<image>,<image>,<image>\n"),
  ):
    found = render(messages=[{"role": "user", "content": content}], add_generation_prompt=True)
    assert found == f"<|im_start|>user\n{want}<|im_end|>\n<|im_start|>assistant\n"
