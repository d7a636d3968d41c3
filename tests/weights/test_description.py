"""What a run folder says about its model is read back as it was written."""

import dataclasses

from hulu_jax.data import vision
from hulu_jax.models import presets
from hulu_jax.weights import checkpoint


def test_a_policy_travels_with_its_checkpoint(tmp_path):
  for kinds in ((), ("image", "volume")):
    policy = dataclasses.replace(vision.HULUMED, swap_sides=kinds)
    checkpoint.write_description(tmp_path, presets.TINY, policy)
    assert checkpoint.read_description(tmp_path) == (presets.TINY, policy)
