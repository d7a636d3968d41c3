"""Records of other frameworks become the project's own, media in their places, or say why not."""

import json

import numpy as np
import pytest

from hulu_jax.data import records
from hulu_jax.media.errors import BadRecord


def said(role, *content):
  return {"role": role, "content": list(content)}


def text(words):
  return {"type": "text", "text": words}


def image(path):
  return {"type": "image", "path": path}


def test_the_projects_own_form_passes_unchanged():
  own = [
    said("user", {"type": "volume", "path": "ct.nii.gz", "window": "lung"}, text("See <image>?")),
    {"role": "assistant", "content": "No."},
  ]
  assert records.normalise({"id": 17, "messages": own, "group": "p1"}) == ("17", own)
  inline = [said("user", {"type": "image", "frames": np.zeros((1, 2, 2, 1), np.uint8)})]
  assert records.normalise({"id": "a", "messages": inline})[1] is not None


def test_llamafactory_messages_with_tags():
  # The example of LLaMA-Factory's data/README.md, with a second picture and a clip.
  record = {
    "messages": [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": "<image>Who are they? And <image><video>?"},
      {"role": "assistant", "content": "Two <image> of lungs."},
      {"role": "user", "content": "What?"},
      {"role": "assistant", "content": "Yes."},
    ],
    "images": ["a.jpg", "b.jpg"],
    "videos": ["c.mp4"],
  }
  assert records.normalise(record)[1] == [
    said("system", text("Be brief.")),
    said(
      "user",
      image("a.jpg"),
      text("Who are they? And"),
      image("b.jpg"),
      {"type": "video", "path": "c.mp4"},
      text("?"),
    ),
    said("assistant", text("Two <image> of lungs.")),
    said("user", text("What?")),
    said("assistant", text("Yes.")),
  ]


def test_swift_items_take_their_own_path_or_the_next():
  record = {
    "messages": [
      said("user", {"type": "image"}, text("Or "), {"type": "image", "image": "b.png"}, text("?")),
      said("assistant", text("A.")),
    ],
    "images": [{"path": "a.png", "bytes": None}],
    "system": "Be brief.",
  }
  assert records.normalise(record)[1] == [
    said("system", text("Be brief.")),
    said("user", image("a.png"), text("Or"), image("b.png"), text("?")),
    said("assistant", text("A.")),
  ]


def test_without_tags_all_media_come_first():
  record = {
    "messages": [
      {"role": "user", "content": "Compare."},
      {"role": "assistant", "content": "Alike."},
    ],
    "images": ["a.png", "b.png"],
    "volumes": "ct.nii.gz",
  }
  first = records.normalise(record)[1][0]
  assert [item.get("path") for item in first["content"]] == ["a.png", "b.png", "ct.nii.gz", None]


def test_older_swift_query_and_history():
  record = {
    "query": "And now?",
    "response": "Worse.",
    "history": [["<image>How is it?", "Well."]],
    "images": ["a.png"],
  }
  assert records.normalise(record)[1] == [
    said("user", image("a.png"), text("How is it?")),
    said("assistant", text("Well.")),
    said("user", text("And now?")),
    said("assistant", text("Worse.")),
  ]


def test_llava_records_go_through_the_same_door():
  turns = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A cine."}]
  name, messages = records.normalise({"id": 3, "image": "a.png", "conversations": turns})
  assert name == "3" and messages[0]["content"][0] == image("a.png")


def test_a_record_without_id_is_named_by_what_it_holds():
  record = {"messages": [{"role": "user", "content": "größer?"}]}
  name, _ = records.normalise(record)
  again, _ = records.normalise(json.loads(json.dumps(record)))
  other, _ = records.normalise({"messages": [{"role": "user", "content": "kleiner?"}]})
  assert name == again != other and name.startswith("sha-")


ASKED = {"role": "user", "content": "<image>?"}
TOLD = {"role": "assistant", "content": "!"}
BAD = {
  "no form at all": ({"id": 1, "text": "x"}, "expected messages .*, conversations .*, or query"),
  "a stream sample": (
    {"stream": True, "video": ["a.mp4"], "conversation": [], "start_time": 0, "end_time": 9},
    "stream sample .* expected messages of role stream",
  ),
  "no messages": ({"id": 1, "messages": []}, "messages are an empty list"),
  "messages of text": ({"id": 1, "messages": "Hi"}, "messages are of type str"),
  "more tags": ({"messages": [ASKED, ASKED, TOLD], "images": ["a"]}, "more <image> tags than"),
  "more media": ({"messages": [ASKED, TOLD], "images": ["a", "b"]}, "1 of 2 image media have no"),
  "another kind": ({"messages": [ASKED, TOLD], "videos": ["a"]}, "more <image> tags than images"),
  "sounds": ({"messages": [ASKED, TOLD], "audios": ["a.wav"]}, "audios in a record"),
  "tools": ({"messages": [ASKED, TOLD], "images": ["a"], "tools": "[{}]"}, "tools in a record"),
  "a tool's turn": (
    {"messages": [{"role": "tool", "content": "x"}, TOLD], "images": ["a"]},
    "role 'tool'; expected system, user, assistant",
  ),
  "an unlearned answer": ({"messages": [ASKED, {**TOLD, "loss": False}]}, "loss: false"),
  "an address": (
    {"messages": [ASKED, TOLD], "images": ["https://x.org/a.png"]},
    "by address; expected a path",
  ),
  "bytes only": ({"messages": [ASKED, TOLD], "images": [{"bytes": "aa"}]}, "type dict; expected a"),
  "OpenAI's items": (
    {"messages": [said("user", {"type": "image_url", "image_url": {"url": "a"}}), TOLD]},
    "content of type 'image_url'; expected text, image, video, volume",
  ),
  "no content": (
    {"messages": [{"role": "user"}, TOLD], "images": ["a"]},
    "message of another form",
  ),
  "a query alone": ({"query": "x"}, "a query without response"),
  "a crooked history": (
    {"query": "x", "response": "y", "history": ["ab", 3]},
    "history of another",
  ),
  "arrays without id": (
    {"messages": [said("user", {"type": "image", "frames": np.zeros(3)})]},
    "expected an id",
  ),
}


@pytest.mark.parametrize("name", BAD)
def test_says_what_does_not_fit(name):
  record, message = BAD[name]
  with pytest.raises(BadRecord, match=message) as error:
    records.normalise(record)
  assert error.value.kind == "format"
