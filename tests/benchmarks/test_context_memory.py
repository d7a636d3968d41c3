"""What a device holds of a long row falls with the devices of `context`."""

import pytest

from benchmarks import context_memory
from hulu_jax.data.schema import Group


@pytest.mark.slow  # twenty seconds
def test_four_devices_need_little_more_than_a_quarter_each():
  shape = context_memory.SHAPE._replace(
    tokens=16384, supervised=4096, visual=1024, groups=(Group(8, 256, 1, 2),)
  )
  one, four = (context_memory.temporaries(shape, ways) for ways in (1, 4))
  # A quarter, and what is whole on each: keys and values of one layer, a layer's weights.
  assert one / 5 < four < one / 3
