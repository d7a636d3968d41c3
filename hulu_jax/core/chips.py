"""What the vendors state of each chip: the ceilings that plans and utilisation are held against."""

from collections.abc import Mapping
from typing import NamedTuple


class Chip(NamedTuple):
  """One accelerator as JAX sees it: a TPU chip, or one GPU.

  platform: as JAX names it when lowering; kinds: `device_kind` of the devices it is; flops: dense
  bfloat16 operations a second; memory: bytes of HBM; bandwidth: bytes a second from it.
  """

  platform: str
  kinds: tuple[str, ...]
  flops: float
  memory: float
  bandwidth: float


# Sources: cloud.google.com/tpu/docs/{v5e,v5p,v6e} (system architecture tables), and
# NVIDIA's data sheets of the SXM modules (A100 80GB, H100, H200), without sparsity.
CHIPS: Mapping[str, Chip] = {
  "v5e": Chip("tpu", ("TPU v5 lite", "TPU v5e"), 197e12, 16e9, 819e9),
  "v5p": Chip("tpu", ("TPU v5", "TPU v5p"), 459e12, 95e9, 2765e9),
  "v6e": Chip("tpu", ("TPU v6 lite", "TPU v6e"), 918e12, 32e9, 1640e9),
  "a100": Chip("cuda", ("NVIDIA A100-SXM4-80GB",), 312e12, 80e9, 2039e9),
  "h100": Chip("cuda", ("NVIDIA H100 80GB HBM3",), 989e12, 80e9, 3350e9),
  "h200": Chip("cuda", ("NVIDIA H200",), 989e12, 141e9, 4800e9),
}


def get(name: str) -> Chip:
  """The chip called `name`.

  Raises:
    ValueError: no such chip; the message lists those there are.
  """
  if name not in CHIPS:
    raise ValueError(f"no chip {name!r}; there are: {', '.join(CHIPS)}")
  return CHIPS[name]


def of_kind(device_kind: str) -> Chip | None:
  """The chip that a `jax.Device.device_kind` is; None where the table does not have it (a CPU, or
  another module of a GPU, whose peak differs)."""
  return next((chip for chip in CHIPS.values() if device_kind in chip.kinds), None)
