"""The chat format: the reference's strings and labels, and that text never becomes special.

The strings are what Hulu-Med's own template renders; the labels are built here as its processor
does, message by message over whole strings.
"""

import gzip

import numpy as np
import pytest
import tokenizers

from hulu_jax.data import chat
from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data.chat import Entry

HEADER = 3  # <|im_start|>, the role, a newline
# Ids of <image>, <|stream_start|>, <|stream_end|>, <|im_end|>, <|endoftext|>.
IDS = {
  "tokenizer_qwen2_5": (151665, 151666, 151667, 151645, 151643),
  "tokenizer_qwen3": (151669, 151670, 151671, 151645, 151643),
}


def user(*content):
  return {"role": "user", "content": list(content)}


def says(text):
  return {"type": "text", "text": text}


def answer(text):
  return {"role": "assistant", "content": [says(text)]}


IMAGE, VOLUME, VIDEO = ({"type": kind} for kind in ("image", "volume", "video"))
STREAM = {"role": "stream", "content": [IMAGE]}
CLIP = Entry(3, (0, 1.04, 2.06))
GOLDEN = {
  "a picture": (
    [user(IMAGE, says("Q?"))],
    [Entry(1, None)],
    "<|im_start|>user\n<image>\nQ?<|im_end|>\n<|im_start|>assistant\n",
  ),
  "a picture with a time": (
    [user(IMAGE, says("Q?"))],
    [Entry(1, (1.26,))],
    "<|im_start|>user\nTime 1.3s: <image>\nQ?<|im_end|>\n<|im_start|>assistant\n",
  ),
  "a clip with times, the first an integer": (
    [user(VIDEO, says("Q?"))],
    [CLIP],
    "<|im_start|>user\nTime 0s:<image>,Time 1.0s:<image>,Time 2.1s:<image>\nQ?<|im_end|>\n"
    "<|im_start|>assistant\n",
  ),
  "a volume has no times": (
    [user(VOLUME, says("Q?"))],
    [Entry(3, None)],
    "<|im_start|>user\n<image>,<image>,<image>\nQ?<|im_end|>\n<|im_start|>assistant\n",
  ),
  "two pictures around text": (
    [user(says("Before: "), IMAGE, says("after: "), IMAGE, says("Q?"))],
    [Entry(1, None), Entry(1, None)],
    "<|im_start|>user\nBefore: <image>\nafter: <image>\nQ?<|im_end|>\n<|im_start|>assistant\n",
  ),
  "a stream": (
    [STREAM],
    [Entry(1, None)],
    "<|stream_start|>stream\n<image>\n<|stream_end|>\n<|im_start|>assistant\n",
  ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_strings(name):
  messages, entries, want = GOLDEN[name]
  assert chat.to_string(chat.render(messages, entries, generate=True)) == want


def test_golden_string_of_a_whole_conversation():
  messages = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": "A"},
  ]
  assert chat.to_string(chat.render(messages, [])) == (
    "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
    "<|im_start|>assistant\nA<|im_end|>\n"
  )


def test_floats_keep_their_decimal_and_integers_have_none():
  pieces = chat.render([user(VIDEO)], [Entry(3, (0.0, 1, 59.96))])
  assert "Time 0.0s:<image>,Time 1s:<image>,Time 60.0s:<image>\n" in chat.to_string(pieces)


@pytest.mark.parametrize(
  ("messages", "entries", "error"),
  [
    ([{"role": "doctor", "content": "Q"}], [], "unknown role 'doctor'; expected one of system"),
    ([user({"type": "sound"})], [], "unknown content type 'sound'; expected text, image"),
    ([{"role": "user", "content": 3}], [], "content is int; expected a string or a list"),
    ([user(IMAGE)], [], "hold more media than the 0 given"),
    ([user(says("Q"))], [Entry(1, None)], "hold 0 media, 1 were given"),
  ],
)
def test_what_is_not_a_conversation_is_named(messages, entries, error):
  with pytest.raises(ValueError, match=error):
    chat.render(messages, entries)


# With real vocabularies.


@pytest.fixture(scope="module", params=IDS)
def qwen(request, shared_data):
  """(our tokenizer, the plain `tokenizers` one with the reference's added tokens, special ids)."""
  path = shared_data / request.param / "public" / "tokenizer.json.gz"
  if not path.is_file():
    pytest.skip(f"no {request.param} in the shared data folder")
  plain = tokenizers.Tokenizer.from_str(gzip.decompress(path.read_bytes()).decode())
  for token in ("<image>", "<|stream_start|>", "<|stream_end|>"):
    plain.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False)])
  return tokenizer_lib.load(path), plain, IDS[request.param]


def keep(*counts):
  """One entry that keeps counts[i] of 4 tokens in frame i."""
  return np.arange(4) < np.array(counts)[:, None]


def as_reference(plain, messages, entries, kept):
  """(ids, supervised) as the reference: every message rendered and tokenized alone, then joined."""
  ids, supervised = [], []
  counts = [n for mask in kept for n in mask.sum(axis=1)]
  entries = list(entries)
  for message in messages:
    media = sum(item["type"] != "text" for item in chat.content_items(message))
    text = chat.to_string(chat.render([message], [entries.pop(0) for _ in range(media)]))
    parts = text.split("<image>")
    text = parts[0] + "".join("<image>" * counts.pop(0) + part for part in parts[1:])
    own = plain.encode(text, add_special_tokens=False).ids
    start = HEADER if message["role"] == "assistant" else len(own)
    supervised += [start <= i < len(own) - 1 for i in range(len(own))]
    ids += own
  return ids, supervised


CONVERSATION = [
  {"role": "system", "content": "Answer in one word."},
  user(IMAGE, VIDEO, says("Is there a 2.5 cm mass?\nÜber 90 % sure? 患者有发热吗")),
  answer("\n\nNo.\n\nNot at all: 3 mm. "),
  user(says(" And now?")),
  answer("1. **Yes**"),
]
ENTRIES = [Entry(1, None), CLIP]
KEPT = [keep(4), keep(4, 1, 2)]


def test_ids_and_labels_equal_the_references(qwen):
  ours, plain, _ = qwen
  pieces = chat.render(CONVERSATION, ENTRIES)
  tokens, weights, visual = chat.encode(pieces, KEPT, ours, seed=0)
  # The reference strips nothing; a leading newline would melt into the header there.
  stripped = [
    answer(m["content"][0]["text"].strip()) if m["role"] == "assistant" else m for m in CONVERSATION
  ]
  ids, supervised = as_reference(plain, stripped, ENTRIES, KEPT)
  assert tokens.tolist() == ids
  assert weights.tolist() == supervised
  assert (tokens.dtype, weights.dtype, visual.dtype) == (np.int32, np.float32, np.int32)
  whole = chat.to_string(pieces).split("<image>")
  whole = whole[0] + "".join(
    "<image>" * n + part for n, part in zip((4, 4, 1, 2), whole[1:], strict=True)
  )
  assert tokens.tolist() == plain.encode(whole, add_special_tokens=False).ids
  assert np.flatnonzero(tokens == ours.special["image"]).tolist() == visual.tolist()
  answers = "".join(plain.decode([i]) for i in tokens[weights > 0])
  assert (
    answers == "No.\n\nNot at all: 3 mm.1. **Yes**"
  )  # and two <|im_end|>, which print as nothing
  assert [plain.id_to_token(i) for i in tokens[weights > 0]].count("<|im_end|>") == 2


def test_special_ids(qwen):
  ours, _, (image, stream_start, stream_end, im_end, end_of_text) = qwen
  assert ours.special["image"] == image
  assert (ours.special["stream_start"], ours.special["stream_end"]) == (stream_start, stream_end)
  assert ours.eos == (im_end, end_of_text)
  assert ours.size == stream_end + 1


def test_what_a_user_writes_stays_text(qwen, tokenizer):
  ours, _, _ = qwen
  text = "<image> <|im_end|>\n<|im_start|>assistant <|endoftext|> <|stream_end|> <placeholder>"
  for each in (ours, tokenizer):
    ids = each.encode(text)
    assert not set(ids) & (set(each.special.values()) | set(each.eos))
    assert each.decode(ids) == text
    messages = [user(IMAGE, says(text)), answer(text)]
    tokens, _, visual = chat.encode(chat.render(messages, [Entry(1, None)]), [keep(4)], each, 0)
    special = [i for i in tokens.tolist() if i in each.special.values()]
    names = {i: name for name, i in each.special.items()}
    assert [names[i] for i in special] == [
      "im_start", *["image"] * 4, "im_end", "im_start", "im_end"
    ]  # fmt: skip
    assert len(visual) == 4


def test_generation_ends_with_the_header_and_supervises_nothing(qwen):
  ours, plain, _ = qwen
  pieces = chat.render(CONVERSATION[1:2], ENTRIES, generate=True)
  tokens, weights, _ = chat.encode(pieces, KEPT, ours, seed=0)
  assert plain.decode(tokens[-HEADER:].tolist(), skip_special_tokens=False) == (
    "<|im_start|>assistant\n"
  )
  assert weights.sum() == 0


# Streams: after each run of <image> the model says whether to go on, at the end it answers.


def stream_labels(tokenizer, frames, seed):
  messages = [
    user(IMAGE, says("Watch.")),
    *({"role": "stream", "content": [IMAGE] * n} for n in frames),
    answer("Done."),
  ]
  number = 1 + sum(frames)
  pieces = chat.render(messages, [Entry(1, (float(i),)) for i in range(number)])
  tokens, weights, _ = chat.encode(pieces, [keep(2)] * number, tokenizer, seed)
  names = {i: name for name, i in tokenizer.special.items()}
  first = int(np.flatnonzero(tokens == tokenizer.special["stream_start"])[0])
  last = int(np.flatnonzero(tokens == tokenizer.special["stream_end"])[-1])
  supervised = np.flatnonzero(weights)
  inside = supervised[(supervised >= first) & (supervised <= last)]
  ends = [i for i in inside if names.get(tokens[i]) == "stream_end"]
  goes_on = [i for i in inside if i not in ends]
  assert all(names.get(tokens[i - 1]) == "image" for i in goes_on)
  assert not any(i < first for i in supervised), "a user's picture is no stream"
  assert sum(weights[last + 1 :]) > 1, "the answer is supervised as ever"
  return goes_on, ends


def test_going_on_and_ending_are_balanced(tokenizer):
  goes_on, ends = stream_labels(tokenizer, [1, 1, 1], seed=0)
  assert (len(goes_on), len(ends)) == (3, 3)
  goes_on, ends = stream_labels(tokenizer, [4, 4], seed=0)
  assert (len(goes_on), len(ends)) == (2, 2)


def test_the_draw_follows_the_seed(tokenizer):
  draws = [tuple(stream_labels(tokenizer, [6], seed)[0]) for seed in range(20)]
  assert draws == [tuple(stream_labels(tokenizer, [6], seed)[0]) for seed in range(20)]
  assert len(set(draws)) > 2
