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


def test_a_tag_in_an_answer_is_text():
  record = {"image": "a.png", "conversations": turns("<image>What?", "In the <image>, a lung.")}
  assert llava.to_messages(record)[1]["content"] == [text("In the <image>, a lung.")]


def test_system_turns_are_not_answers():
  middle = {"from": "system", "value": "Now in German."}
  record = {"conversations": [*turns("2 + 2 ?", "4"), middle, *turns("3 + 3 ?", "sechs")]}
  roles = [m["role"] for m in llava.to_messages(record)]
  assert roles == ["user", "assistant", "system", "user", "assistant"]


def test_a_video_may_be_tagged_as_an_image():
  record = {"video": "clip.mp4", "conversations": turns("<image>\nWhat?", "A cine.")}
  first = llava.to_messages(record)[0]
  assert first["content"] == [{"type": "video", "path": "clip.mp4"}, text("What?")]


def test_several_turns_and_several_media():
  record = {"images": ["a", "b"], "conversations": turns("<image>", "A.", "<image>And?", "B.")}
  paths = [[i.get("path") for i in m["content"]] for m in llava.to_messages(record)]
  assert paths == [["a"], [None], ["b", None], [None]]
  volume = {"volume": "ct.nii.gz", "conversations": turns("<volume>Clear?", "Yes.")}
  assert llava.to_messages(volume)[0]["content"][0] == {"type": "volume", "path": "ct.nii.gz"}


@pytest.mark.parametrize("empty", [None, "", []])
def test_no_medium_is_written_in_several_ways(empty):
  record = {"image": empty, "video": None, "conversations": turns("2 + 2 ?", "4")}
  assert [len(m["content"]) for m in llava.to_messages(record)] == [1, 1]


@pytest.mark.parametrize(
  ("record", "message"),
  [
    ({"image": "a", "conversations": turns("<image> <image>", "x")}, "1 media and 2 <image> tags"),
    ({"image": ["a", "b"], "conversations": turns("<image>", "x")}, "2 media and 1 <image> tags"),
    ({"conversations": turns("<image>", "x")}, "0 media and 1 <image> tags"),
    ({"image": "a", "video": "b", "conversations": turns("x", "y")}, "both image and video"),
    ({"conversations": [{"from": "human", "value": "x"}, {"from": "bot", "value": "y"}]}, "'bot'"),
    ({"conversations": turns("x")}, "1 turns from the first human on"),
    ({"conversations": "x"}, "conversations are str"),
    ({"conversations": [["human", "x"], ["gpt", "y"]]}, "a turn of another form"),
    ({"image": {"path": "a"}, "conversations": turns("x", "y")}, "image is dict"),
    ({"image": [3], "conversations": turns("x", "y")}, "image is list; expected a path"),
  ],
)
def test_says_what_does_not_fit(record, message):
  with pytest.raises(BadRecord) as error:
    llava.to_messages(record)
  assert message in str(error.value)
