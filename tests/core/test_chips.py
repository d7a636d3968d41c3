"""The table of chips agrees with what the project's other figures rest on."""

import pytest

from hulu_jax.core import chips


def test_a_device_is_known_by_its_kind():
  assert chips.of_kind("NVIDIA H100 80GB HBM3") == chips.get("h100")
  assert chips.of_kind("TPU v5 lite") == chips.get("v5e")
  # Another module of the same GPU has another peak, and a CPU has none.
  assert chips.of_kind("NVIDIA H100 PCIe") is None
  assert chips.of_kind("cpu") is None


def test_a_wrong_name_lists_the_chips():
  with pytest.raises(ValueError, match="no chip 'v4'; there are: v5e, v5p, v6e, a100"):
    chips.get("v4")


def test_kinds_name_one_chip_each():
  kinds = [kind for chip in chips.CHIPS.values() for kind in chip.kinds]
  assert len(kinds) == len(set(kinds))
