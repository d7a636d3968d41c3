"""A machine's name says its chip and how many there are; what cannot be one is refused."""

import pytest

from hulu_jax.core import topology


@pytest.mark.parametrize(
  ("name", "size", "layout"),
  (
    ("v5e:16x16", 256, "v5e:16x16"),
    ("v5p:4x4x8", 128, "v5p:4x4x8"),
    ("h100:1", 1, "1x1x1"),
    ("h100:8", 8, "1x1x8"),
    ("a100:64", 64, "1x8x8"),
  ),
)
def test_names(name, size, layout):
  found = topology.parse(name)
  assert (found.size, found.layout) == (size, layout)
  assert found.kind == name.partition(":")[0]


@pytest.mark.parametrize(
  ("name", "message"),
  (
    ("v5p:4x4", "'v5p:4x4'; v5p has 3 numbers, like v5p:4x4x4"),
    ("h100:2x4", "'h100:2x4'; h100 has 1 numbers, like h100:4"),
    ("h100:12", "12 GPUs are not whole hosts of 8"),
    ("v4:2x2x2", "no chip 'v4'; there are: v5e"),
    ("v5e", "'v5e'; expected a chip and numbers, like v5p:4x4x8 or h100:8"),
    ("v5e:0x4", "expected a chip and numbers"),
  ),
)
def test_what_is_no_machine(name, message):
  with pytest.raises(ValueError, match=message):
    topology.parse(name)
