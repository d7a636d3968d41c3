"""Machines by name, `v5p:4x4x8` or `h100:8`: which chip, how many, and what compilers call them."""

import math
import re
from typing import NamedTuple

from hulu_jax.core import chips
from hulu_jax.core.chips import Chip

# GPUs of one host of the published machines.
_A_HOST = 8
# How many numbers a slice of this chip has.
_DIMENSIONS = {"v5e": 2, "v5p": 3, "v6e": 2}


class Topology(NamedTuple):
  """name: as given; kind: the chip's; layout: in the words of `jax.experimental.topologies`; size:
  chips.

  A TPU v5p chip has two cores and is one device: a pod named for 256 cores has 128.
  """

  name: str
  kind: str
  chip: Chip
  layout: str
  size: int


def parse(name: str) -> Topology:
  """KIND:AxB or KIND:AxBxC of TPUs, the shape of a slice; KIND:N of GPUs, whole hosts of eight
  where there is more than one.

  Raises:
    ValueError: an unknown chip, or numbers that cannot be its shape.
  """
  kind, _, shape = name.partition(":")
  if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
    raise ValueError(f"topology {name!r}; expected a chip and numbers, like v5p:4x4x8 or h100:8")
  chip = chips.get(kind)
  numbers = [int(n) for n in shape.split("x")]
  dimensions = _DIMENSIONS[kind] if kind in _DIMENSIONS else 1
  if len(numbers) != dimensions:
    like = f"{kind}:{'x'.join('4' * dimensions)}"
    raise ValueError(f"topology {name!r}; {kind} has {dimensions} numbers, like {like}")
  size = math.prod(numbers)
  if chip.platform == "tpu":
    return Topology(name, kind, chip, name, size)
  if size > _A_HOST and size % _A_HOST:
    raise ValueError(f"topology {name!r}: {size} GPUs are not whole hosts of {_A_HOST}")
  hosts = max(1, size // _A_HOST)
  return Topology(name, kind, chip, f"1x{hosts}x{size // hosts}", size)
