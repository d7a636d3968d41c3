"""A tokenizer.json as Qwen's are built, over few words: byte pairs, then the special tokens."""

import tokenizers

from hulu_jax.data import tokenizer as tokenizer_lib
from tests.conftest import CORPUS

_SPECIAL = [
  *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
  *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
]


def made() -> tokenizer_lib.Tokenizer:
  """Ids below 400; <image> and the stream's tokens come after Qwen's own."""
  words = tokenizers.Tokenizer(tokenizers.models.BPE())
  words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  words.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=320,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  words.train_from_iterator(CORPUS, trainer)
  words.add_special_tokens(_SPECIAL)
  return tokenizer_lib.JsonTokenizer(words.to_str())
