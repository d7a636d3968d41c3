"""The whole model: conversations of every kind, alone and packed, against torch one by one."""

from collections.abc import Callable
import dataclasses

import numpy as np
import pytest

from hulu_jax.data.schema import StepShape

# float32 on both sides; three decoder layers of at most 1e-5 each, and a head that sums up to 144
# terms of order one.
TOLERANCE = 1e-4

CONVERSATIONS: dict[str, Callable] = {
  "text": lambda p: [p.text(23)],
  "one_image": lambda p: [p.text(3), p.image(3, 4), p.text(5)],
  "image_last": lambda p: [p.text(3), p.image(2, 2)],
  "images": lambda p: [
    *(p.text(4), p.image(2, 3), p.image(4, 6), p.text(2)),
    *(p.image(1, 5), p.text(6)),
  ],
  "video": lambda p: [p.text(5), p.video(3, 4, 6), p.text(7)],
  "video_compressed": lambda p: [p.text(2), p.compressed(p.video(5, 4, 6)), p.text(7)],
  "two_videos": lambda p: [
    *(p.video(2, 2, 6), p.text(3)),
    *(p.compressed(p.video(3, 6, 4)), p.text(4)),
  ],
  "mixed": lambda p: [
    *(p.text(3), p.compressed(p.video(3, 4, 4)), p.text(2), p.image(3, 3)),
    *(p.text(1), p.video(1, 2, 4), p.image(5, 4), p.text(6)),
  ],
  "grey": lambda p: [
    *(p.text(3), p.image(4, 3, 1), p.compressed(p.video(4, 2, 6, 1))),
    *(p.image(2, 2), p.text(5)),
  ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_logits(pair, pictures, conversation, name):
  example = conversation(name, CONVERSATIONS[name](pictures))
  ours = pair.our_logits([example])[name]
  np.testing.assert_allclose(ours, pair.their_logits(example), rtol=0, atol=TOLERANCE)


def test_packed_rows_equal_each_alone(pair, pictures, conversation):
  names = ("mixed", "text", "images", "grey", "video_compressed", "one_image")
  examples = [conversation(name, CONVERSATIONS[name](pictures)) for name in names]
  ours = pair.our_logits(examples)
  assert set(ours) == set(names)
  for example in examples:
    theirs = pair.their_logits(example)
    np.testing.assert_allclose(ours[example.id], theirs, rtol=0, atol=TOLERANCE)


def test_grey_equals_colour_of_equal_channels(pair, pictures, conversation):
  """One channel costs a third and gives the same answer."""
  text = pictures.text(4)
  grey = [pictures.image(3, 5, 1), pictures.compressed(pictures.video(3, 4, 4, 1))]
  colour = [dataclasses.replace(v, patches=np.tile(v.patches, 3)) for v in grey]
  examples = [conversation("grey", [*grey, text]), conversation("colour", [*colour, text])]
  ours = pair.our_logits(examples)
  np.testing.assert_allclose(ours["grey"], ours["colour"], rtol=0, atol=TOLERANCE)
  theirs = pair.their_logits(examples[1])
  np.testing.assert_allclose(ours["grey"], theirs, rtol=0, atol=TOLERANCE)


def test_a_batch_without_patch_groups(pairs, pictures, conversation):
  """Text alone needs no encoder."""
  pair = pairs("qwen2-kv2")
  shape = StepShape(rows=1, tokens=32, supervised=32, visual=0, groups=())
  example = conversation("text", CONVERSATIONS["text"](pictures))
  ours = pair.our_logits([example], shape)["text"]
  np.testing.assert_allclose(ours, pair.their_logits(example), rtol=0, atol=TOLERANCE)
