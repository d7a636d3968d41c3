"""From an experiment's config to what the data pipeline works by: policy, shapes, mixture."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from hulu_jax.data.compression import Compression
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.data.vision import Policy

MOST_SHAPES = 3


def policy(cfg: ConfigDict) -> Policy:
  """The media policy of an experiment, from its key `policy`."""
  fields = cfg.to_dict()
  return Policy(**{**fields, "compression": Compression(**fields["compression"])})


def mixture(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """The entries of an experiment's `data.mixture`, written as dicts or as ConfigDicts, as dicts."""
  return [e.to_dict() if isinstance(e, ConfigDict) else dict(e) for e in entries]


def step_shapes(cfg: ConfigDict, rows: int) -> tuple[StepShape, ...]:
  """The step shapes of an experiment, the lightest first.

  cfg: name -> {tokens, supervised, visual, groups of (slots, size, channels, merge)}.

  Raises:
    ValueError: no shape or more than three, or a slot that does not divide into merge blocks.
  """
  if not 1 <= len(cfg) <= MOST_SHAPES:
    raise ValueError(f"{len(cfg)} shapes; expected 1 to {MOST_SHAPES}: each is compiled")
  shapes = []
  for name in cfg:
    groups = tuple(Group(*g) for g in cfg[name].groups)
    for key in ("tokens", "supervised"):
      if cfg[name][key] < 1:
        raise ValueError(f"shapes.{name}.{key} = {cfg[name][key]}; expected 1 or more")
    for g in groups:
      if min(g) < 1:
        raise ValueError(f"shapes.{name}: {g}; expected 1 or more of everything")
      if g.size % g.merge**2:
        raise ValueError(f"shapes.{name}: {g} has slots that do not divide into merge blocks")
    sizes = (cfg[name].tokens, cfg[name].supervised, cfg[name].visual)
    shapes.append(StepShape(rows, *sizes, groups))
  return tuple(sorted(shapes, key=weight))


def weight(shape: StepShape) -> tuple[int, int]:
  """By which shapes are ordered: patches a row, then tokens."""
  return sum(g.slots * g.size for g in shape.groups), shape.tokens


def budget(cfg: ConfigDict) -> tuple[StepShape, ...] | None:
  """What records of an experiment are cut to, if its key `data.cut` says so: one row of a shape."""
  return step_shapes(cfg.shapes, 1) if cfg.data.cut else None
