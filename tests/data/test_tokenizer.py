"""Tokenizers: text survives, special tokens are ids, and what is saved loads the same."""

import pytest

from hulu_jax.data import tokenizer as tokenizer_lib

TEXTS = [
  "Is there a pleural effusion? No.",
  "größer als 3 mm, 患者有发热吗, ½ µg\u00a0at 37 °C, 🩻",
  "two\n\nlines\nand a tab\there ",
  "  leading and   inner   spaces ",
  "\n",
  "",
  "unseen: Ξ𝔘 \u200d\u0301e\u0301 ﬁ ﷺ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_a_round_trip(tokenizer, text):
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  assert all(0 <= i < tokenizer.size for i in ids)
  assert not set(ids) & set(tokenizer.special.values())


def test_training_learns_merges_and_keeps_to_its_size(tokenizer):
  assert tokenizer.size <= 400
  assert len(tokenizer.encode("effusion")) < len("effusion")
  assert len(set(tokenizer.special.values())) == len(tokenizer_lib.SPECIAL)
  assert tokenizer.eos == (tokenizer.special["im_end"],)


def test_special_tokens_are_left_out_of_text(tokenizer):
  ids = [tokenizer.special["im_start"], *tokenizer.encode("No."), *tokenizer.eos]
  assert tokenizer.decode(ids) == "No."


def test_save_and_load(tokenizer, tmp_path):
  tokenizer.save(tmp_path)
  for path in (tmp_path, tmp_path / "tokenizer.model"):
    again = tokenizer_lib.load(path)
    assert again.special == tokenizer.special
    assert (again.eos, again.size) == (tokenizer.eos, tokenizer.size)
    for text in TEXTS:
      assert again.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("name", ["tokenizer_qwen2_5", "tokenizer_qwen3"])
def test_a_qwen_tokenizer_saves_and_loads(shared_data, tmp_path, name):
  source = shared_data / name / "public"
  if not (source / "tokenizer.json.gz").is_file():
    pytest.skip(f"no {name} in the shared data folder")
  first = tokenizer_lib.load(source)  # a folder with a packed file
  first.save(tmp_path)
  again = tokenizer_lib.load(tmp_path)
  assert (again.special, again.eos, again.size) == (first.special, first.eos, first.size)
  for text in TEXTS:
    assert again.encode(text) == first.encode(text)
    assert again.decode(again.encode(text)) == text or text == TEXTS[-1]  # Qwen's is NFC
  assert again.encode("<image>") == first.encode("<image>") != [first.special["image"]]


def test_training_twice_gives_the_same_ids():
  texts = ["a b c", "the heart is normal", "the lungs are clear"] * 10
  first, second = (tokenizer_lib.train(texts, 300) for _ in range(2))
  assert first.encode("the heart is clear") == second.encode("the heart is clear")


def test_a_folder_without_one_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="no tokenizer in .*tokenizer.json"):
    tokenizer_lib.load(tmp_path)


def test_a_tokenizer_without_chat_tokens_is_refused():
  plain = '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,'
  plain += '"pre_tokenizer":null,"post_processor":null,"decoder":null,'
  plain += '"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}'
  with pytest.raises(ValueError, match=r"has no <\|im_start\|>, <\|im_end\|>; expected a Qwen"):
    tokenizer_lib.JsonTokenizer(plain)
