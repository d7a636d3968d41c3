"""What a user does: load a Hugging Face folder by its path, ask about files, compare with torch.

The tokenizer is Qwen2.5's real one, the picture a file; torch gets the token ids of `.tokens` and
the pixels that Pillow gives for the size the resize rule names.
"""

import numpy as np
from PIL import Image
import pytest

import hulu_jax

pytest.importorskip("torch", reason="parity compares with torch: install extra 'verify'")

VOCAB = 152064
IMAGE = 151665  # where a Qwen2.5 tokenizer puts <image>


@pytest.fixture(scope="module")
def torch_model():
  import torch
  import transformers

  text = dict(
    model_type="qwen2",
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    tie_word_embeddings=True,
    rms_norm_eps=1e-6,
  )
  vision = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    patch_size=14,
    num_channels=3,
    rope_parameters={"rope_type": "axial", "rope_theta": 1e4},
  )
  torch.manual_seed(0)
  config = transformers.VideoLlama3Config(
    text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=IMAGE + 1
  )
  model = transformers.VideoLlama3ForConditionalGeneration(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.05 * torch.randn_like(parameter))
  return model


@pytest.fixture(scope="module")
def model(torch_model, tmp_path_factory, shared_data):
  folder = tmp_path_factory.mktemp("hugging_face")
  torch_model.save_pretrained(folder)
  words = shared_data / "tokenizer_qwen2_5" / "public" / "tokenizer.json.gz"
  return hulu_jax.load(folder, tokenizer=words)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
  rng = np.random.default_rng(0)
  path = tmp_path_factory.mktemp("pictures") / "a.png"
  Image.fromarray(rng.integers(0, 256, (90, 121, 3), dtype=np.uint8)).save(path)
  return path


def conversation(*content):
  return [{"role": "user", "content": list(content)}]


def by_torch(torch_model, tokens, picture):
  """Logits for these ids; 90 x 121 pixels round to 84 x 126, so 6 x 9 patches."""
  import torch

  extra = {}
  if picture is not None:
    pixels = np.asarray(Image.open(picture).resize((126, 84), Image.Resampling.BICUBIC))
    patches = pixels.reshape(6, 14, 9, 14, 3).transpose(0, 2, 4, 1, 3).reshape(54, 588)
    extra = {
      "pixel_values": torch.tensor(patches / np.float32(127.5) - 1, dtype=torch.float32),
      "image_grid_thw": torch.tensor([[1, 6, 9]]),
      "image_merge_sizes": torch.tensor([1]),
    }
  with torch.no_grad():
    return torch_model(input_ids=torch.tensor(tokens[None].astype(np.int64)), **extra).logits[0]


def test_logits_and_greedy_tokens(model, torch_model, picture):
  text = conversation({"type": "text", "text": "Is there a fracture?"})
  asked = conversation({"type": "image", "path": picture}, {"type": "text", "text": "What is it?"})
  got = model.logits([text, asked])
  for row, path in ((0, None), (1, picture)):
    n = got.lengths[row]
    want = by_torch(torch_model, got.tokens[row, :n], path).numpy()
    # float32 on both sides over two layers; sums are ordered differently.
    np.testing.assert_allclose(got[row, :n], want, atol=1e-4)
  assert (got.tokens[1] == IMAGE).sum() == 54


def test_generation_follows_torch(model, torch_model, picture):
  """Each greedy token is torch's argmax after the tokens before it."""
  asked = conversation({"type": "image", "path": picture}, {"type": "text", "text": "What is it?"})
  prompt = model._examples([asked], generate=True)[0].tokens
  ids = prompt
  for _ in range(4):
    ids = np.append(ids, by_torch(torch_model, ids, picture)[-1].argmax().item())
  want = model.tokenizer.decode(ids[len(prompt) :])
  assert model.generate([asked], max_new_tokens=4) == [want]


def test_without_a_tokenizer_words_are_refused(torch_model, tmp_path):
  torch_model.save_pretrained(tmp_path)
  with pytest.raises(ValueError, match="came without a tokenizer; give load"):
    hulu_jax.load(tmp_path).generate([conversation("x")], max_new_tokens=1)
