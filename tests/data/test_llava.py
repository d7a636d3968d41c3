"""LLaVA-style records become the project's own, media in their places."""

import pytest

from hulu_jax.data import llava
from hulu_jax.media.errors import BadRecord


def turns(*values):
  speakers = ("human", "gpt") * len(values)
  return [{"from": who, "value": value} for who, value in zip(speakers, values, strict=False)]


def text(words):
  return {"type": "text", "text": words}


def test_media_stand_where_their_tags_stand():
  record = {"image": ["a.png", "b.png"], "conversations": turns("<image>\nOr <image> ?", " A. ")}
  assert llava.to_messages(record) == [
    {
      "role": "user",
      "content": [
        {"type": "image", "path": "a.png"},
        text("Or"),
        {"type": "image", "path": "b.png"},
        text("?"),
      ],
    },
    {"role": "assistant", "content": [text("A.")]},
  ]


def test_without_a_tag_all_media_come_first():
  system = {"from": "system", "value": "Be brief."}
  record = {"video": "clip.mp4", "conversations": [system, *turns("What?", "A cine.")]}
  first, question, _ = llava.to_messages(record)
  assert first == {"role": "system", "content": [text("Be brief.")]}
  assert question["content"] == [{"type": "video", "path": "clip.mp4"}, text("What?")]
  both = {"image": ["a.png", "b.png"], "conversations": turns("What?", "Two.")}
  paths = [item.get("path") for item in llava.to_messages(both)[0]["content"]]
  assert paths == ["a.png", "b.png", None]


def test_text_only_and_leading_answers():
  greeting = {"from": "gpt", "value": "Hello."}
  messages = llava.to_messages({"conversations": [greeting, *turns("2 + 2 ?", "4")]})
  assert [m["role"] for m in messages] == ["user", "assistant"]


@pytest.mark.parametrize(
  ("record", "message"),
  [
    ({"image": "a", "conversations": turns("<image> <image>", "x")}, "more <image> tags than"),
    ({"image": ["a", "b"], "conversations": turns("<image>", "x")}, "1 of 2 media have no <image>"),
    ({"image": "a", "video": "b", "conversations": turns("x", "y")}, "both image and video"),
    ({"conversations": [{"from": "human", "value": "x"}, {"from": "bot", "value": "y"}]}, "'bot'"),
  ],
)
def test_says_what_does_not_fit(record, message):
  with pytest.raises(BadRecord) as error:
    llava.to_messages(record)
  assert message in str(error.value)
