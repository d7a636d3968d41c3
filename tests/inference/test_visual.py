"""The tokens of one medium, decided on the device, are those that a prompt with it would hold."""

import dataclasses

import jax
import numpy as np
import pytest

import hulu_jax
from hulu_jax.data.compression import Compression
from hulu_jax.models import hulu

RNG = np.random.default_rng(0)
STILL = RNG.integers(0, 256, (1, 56, 84, 1), dtype=np.uint8)
# Of four frames the second repeats the first, the third changes in one corner.
CLIP = np.repeat(STILL, 4, axis=0)
CLIP[2, :28, :28] = RNG.integers(0, 256, (28, 28, 1))
CLIP[3] = RNG.integers(0, 256, (56, 84, 1))
MODES = {
  "off": Compression(mode="off"),
  "hulumed": Compression(mode="hulumed"),
  "videollama3": Compression(mode="videollama3"),
  "fixed": Compression(mode="fixed", grey=6.0, hu=60.0, against="last_kept"),
  "before": Compression(mode="fixed", grey=6.0, hu=60.0, prune="before"),
}


@pytest.fixture(scope="module")
def model():
  return hulu_jax.load("tiny")


def as_in_a_prompt(model, medium):
  """(projected tokens, keep) by the way of packed patches and the host's mask."""
  (prompt,) = model._examples([[{"role": "user", "content": [medium]}]], generate=True)
  batch, merges = model._batch([prompt])
  with jax.set_mesh(model.mesh):
    seen = hulu.visual_tokens(model.params, batch, merges, model.config, model.compute)
  (visual,) = prompt.visuals
  return np.asarray(seen)[0, : visual.keep.sum()], visual.keep


@pytest.mark.parametrize("mode", MODES)
def test_the_device_decides_and_encodes_as_a_prompt_has_it(model, mode):
  policy = dataclasses.replace(model.policy, compression=MODES[mode], min_tokens=1)
  own = dataclasses.replace(model, policy=policy)
  clip = {"type": "video", "frames": CLIP}
  found = own.visual_tokens(clip)
  expected, keep = as_in_a_prompt(own, clip)
  assert found.keep.shape == (4, 2, 3)
  np.testing.assert_array_equal(found.keep.reshape(4, -1), keep)
  np.testing.assert_allclose(found.tokens, expected, atol=2e-5)
  t, rows, columns = np.nonzero(found.keep)
  np.testing.assert_array_equal(found.frame, t)
  np.testing.assert_array_equal(found.place, np.stack([rows, columns], axis=-1))
  # The first two frames are alike, so nothing changed between them.
  assert not found.score[:2].any() and found.score[3].all()


def test_a_picture_is_kept_whole(model):
  policy = dataclasses.replace(model.policy, compression=MODES["before"], min_tokens=1)
  own = dataclasses.replace(model, policy=policy)
  picture = {"type": "image", "frames": STILL}
  expected, keep = as_in_a_prompt(own, picture)
  found = own.visual_tokens(picture)
  assert found.keep.all() and keep.all()
  np.testing.assert_allclose(found.tokens, expected, atol=2e-5)


def test_several_devices_are_refused(model):
  spread = hulu_jax.load("tiny", mesh={"data": 8})
  with pytest.raises(ValueError, match="takes a model on one device; this lies on 8"):
    spread.visual_tokens({"type": "image", "frames": STILL})
