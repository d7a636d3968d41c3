"""Records to examples, and what each kind of bad record says about itself."""

import dataclasses
import math
import traceback

import nibabel
import numpy as np
from PIL import Image
import pytest

from hulu_jax import media
from hulu_jax.data.schema import Example
from hulu_jax.media.errors import BadRecord


def frames(count, height, width, channels=1, seed=0):
  shape = (count, height, width, channels)
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def record(*content, answer="No."):
  return {
    "id": "case-1",
    "messages": [
      {"role": "user", "content": [*content, {"type": "text", "text": "Is it clear?"}]},
      {"role": "assistant", "content": answer},
    ],
  }


def test_a_record_becomes_an_example(builder, tokenizer):
  still = np.repeat(frames(1, 56, 56), 3, axis=0)
  built = builder(
    record(
      {"type": "image", "frames": frames(1, 42, 28, 3), "label": "before"},
      {"type": "video", "frames": still, "timestamps": [0.0, 0.5, 1.0], "modality": "US"},
    )
  )
  assert isinstance(built, Example)
  picture, clip = built.visuals
  assert (picture.grid, picture.merge, picture.patches.shape) == ((3, 2), 1, (1, 6, 588))
  assert (clip.grid, clip.merge, clip.patches.shape) == ((4, 4), 2, (3, 16, 196))
  # A still clip keeps its first frame and one token of each later one.
  assert clip.keep.sum(axis=1).tolist() == [4, 1, 1]
  assert len(built.visual_positions) == 6 + 6
  assert (built.tokens[built.visual_positions] == tokenizer.special["image"]).all()
  assert tokenizer.decode(built.tokens[built.weights > 0]) == "No."
  # Decoding leaves <image> out and may put a space where it stood.
  text = tokenizer.decode(built.tokens).replace(" ", "")
  assert text.startswith("user\n\nTime0.0s:,Time0.5s:,Time1.0s:\nIsitclear?")
  assert (built.id, built.source) == ("case-1", 0)


def test_building_is_a_pure_function(builder):
  one, two = (builder(record({"type": "image", "frames": frames(1, 42, 28)})) for _ in range(2))
  np.testing.assert_array_equal(one.tokens, two.tokens)
  np.testing.assert_array_equal(one.visuals[0].patches, two.visuals[0].patches)
  assert dataclasses.replace(builder, source=3)(record()).source == 3


def test_a_picture_is_read_from_below_the_root(builder):
  Image.fromarray(frames(1, 42, 56)[0, ..., 0]).save(builder.root / "picture.png")
  built = builder(record({"type": "image", "path": "picture.png", "modality": "XR", "time": 2}))
  assert built.visuals[0].grid == (3, 4)
  text = builder.tokenizer.decode(built.tokens).replace(" ", "")
  assert text.startswith("user\nTime2s:\nIsitclear?")


def volume_of_four(path):
  values = np.arange(64, dtype=np.int16).reshape(4, 4, 4, 1)
  nibabel.Nifti1Image(values, np.eye(4)).to_filename(path)


def test_a_path_may_carry_every_option(builder):
  """All fields of `media.Options` by name, lists for tuples; `frames` is then a number."""
  volume_of_four(builder.root / "v.nii")
  options = {"modality": "CT", "window": [40, 400], "time_index": 0, "frames": 2}
  medium = builder.read({"type": "volume", "path": "v.nii", "label": "before", **options})
  assert len(medium.frames) == 2 and medium.window == (40, 400)
  names = {f.name for f in dataclasses.fields(media.Options)}
  nothing = {name: None for name in names - {"repeat_slices"}} | {"repeat_slices": False}
  assert len(builder.read({"type": "volume", "path": "v.nii", **nothing}).frames) == 4


def test_a_phase_is_an_option_of_a_path_and_a_label_of_frames(builder):
  asked = []

  def reader(path, options, **more):
    asked.append((path, options, more))
    return media.Media("volume", frames(1, 14, 14))

  own = dataclasses.replace(builder, reader=reader, key=b"k" * 16)
  own.read({"type": "volume", "path": "ct", "phase": "venous", "series": 2})
  ((path, options, more),) = asked
  assert path == builder.root / "ct" and options == media.Options(phase="venous", series=2)
  assert more == {"preset": "radiology", "root": builder.root, "key": b"k" * 16}
  assert own.read({"type": "volume", "frames": frames(1, 14, 14), "phase": "venous"})
  assert len(asked) == 1


def test_generation_ends_with_the_header_of_the_answer(builder):
  built = builder.build(record()["messages"][:1], "case", generate=True)
  assert builder.tokenizer.decode(built.tokens) == "user\nIs it clear?\nassistant\n"
  assert built.weights.sum() == 0


OTHER_SHAPES = [
  np.zeros((1, 14, 14, 1)),
  np.zeros((14, 14, 3), np.uint8),
  np.zeros((1, 14, 14, 4), np.uint8),
  np.zeros((0, 14, 14, 1), np.uint8),
]
BAD = {
  "a path outside the root": ({"type": "image", "path": "../picture.png"}, "path: a path that"),
  "an absolute path": ({"type": "image", "path": "/etc/hostname"}, "path: a path that leaves"),
  "a link out of the root": ({"type": "image", "path": "link.png"}, "path: a path that leaves"),
  "a path that is no text": ({"type": "image", "path": 3}, "a path of type int; expected text"),
  "no such file": ({"type": "image", "path": "gone.png"}, "missing: no such file"),
  "neither path nor frames": ({"type": "image"}, "image content without path or frames"),
  "a misspelt key": (
    {"type": "image", "frames": frames(1, 14, 14), "modalty": "CT"},
    "beside image: unknown key 'modalty'; did you mean 'modality'?",
  ),
  "an option that frames cannot have": (
    {"type": "image", "frames": frames(1, 14, 14), "window": "lung"},
    "beside image: unknown key 'window'; there are: frames, label, modality, phase",
  ),
  "an option of another type": (
    {"type": "image", "path": "small.png", "time_index": "0"},
    "options: time_index is text; expected a whole number",
  ),
  "frames twice": (
    {"type": "image", "path": "small.png", "frames": [[0]]},
    "options: frames is a list of 1; expected a whole number",
  ),
  "an unknown type": ({"type": "sound", "path": "a.wav"}, "unknown content type 'sound'"),
  "two frames of an image": ({"type": "image", "frames": frames(2, 14, 14)}, "of 2 frames"),
  "another kind of file": ({"type": "volume", "path": "small.png"}, "says volume, the file holds"),
  "a text file": ({"type": "image", "path": "notes.txt"}, "format: a file of an unknown kind"),
  "an empty file": ({"type": "image", "path": "empty.png"}, "empty: a file of 0 bytes"),
} | {
  f"frames of another form {n}": (
    {"type": "image", "frames": f},
    "expected uint8 [T, H, W, 1 or 3]",
  )
  for n, f in enumerate(OTHER_SHAPES)
}


@pytest.mark.parametrize("name", BAD)
def test_bad_media_are_told_from_the_caller(builder, tmp_path, name):
  (builder.root / "notes.txt").write_text("no picture")
  (builder.root / "empty.png").write_bytes(b"")
  Image.new("L", (28, 28)).save(builder.root / "small.png")
  Image.new("L", (28, 28)).save(tmp_path / "beside.png")
  if not (builder.root / "link.png").is_symlink():
    (builder.root / "link.png").symlink_to(tmp_path / "beside.png")
  content, error = BAD[name]
  bad = builder(record(content))
  assert isinstance(bad, BadRecord)
  assert error in str(bad)
  told = "".join(traceback.format_exception(bad))
  assert str(builder.root) not in told, "neither a reason nor a cause holds a path"


MALFORMED = {
  "no messages": {"id": "a"},
  "no id": {"messages": []},
  "messages are none": {"id": "a", "messages": None},
  "messages are text": {"id": "a", "messages": "Is it clear?"},
  "a message is text": {"id": "a", "messages": ["Is it clear?"]},
  "an unknown role": {"id": "a", "messages": [{"role": "gpt", "content": "Q"}]},
  "no content": {"id": "a", "messages": [{"role": "user"}]},
  "an item is text": {"id": "a", "messages": [{"role": "user", "content": ["Q"]}]},
  "text without text": {"id": "a", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
  "text of a number": {
    "id": "a",
    "messages": [{"role": "assistant", "content": [{"type": "text", "text": 3}]}],
  },
  "half a surrogate pair": {"id": "\ud800", "messages": []},
  "text of half a surrogate pair": {"id": "a", "messages": [{"role": "user", "content": "\ud800"}]},
  "conversations without a speaker": {"id": "a", "conversations": [{"value": "Q"}]},
  "conversations of text": {"id": "a", "conversations": ["Q"]},
} | {
  f"times of {times}": {
    "id": "a",
    "messages": [
      {
        "role": "user",
        "content": [{"type": "video", "frames": frames(2, 14, 14), "timestamps": times}],
      }
    ],
  }
  for times in (["0", "1"], [0.0], [0.0, 1.0, 2.0], 3, "01", [None, None], [0.0, math.nan])
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_records_are_bad_records(builder, name):
  assert isinstance(builder(MALFORMED[name]), BadRecord)
