"""LoRA (Hu et al. 2021): y = x W + scale (x A) B, where only A and B train.

W + scale A B is never formed while training: its backward would hold the full gradient of W, the
very cost that LoRA avoids.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.core import linear
from hulu_jax.core import params as P
from hulu_jax.core import tree
from hulu_jax.core.params import ParamSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """rank: inner width of the two factors; alpha: strength; rslora: which `scale`.

  targets: pattern of the whole paths of the weights to adapt, e.g. `decoder/layers/(q|v)`.
  """

  rank: int
  alpha: float
  rslora: bool
  targets: str

  def __post_init__(self) -> None:
    if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
      raise ValueError(f"peft.rank = {self.rank!r}; expected a whole number from 1")
    if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or self.alpha <= 0:
      raise ValueError(f"peft.alpha = {self.alpha!r}; expected a number above 0")
    if not isinstance(self.rslora, bool):
      raise ValueError(f"peft.rslora = {self.rslora!r}; expected True or False")

  @property
  def scale(self) -> float:
    """alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023)."""
    return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank(linear.Weight):
  """w [*lead, *inputs, *outputs], a [*lead, *inputs, rank], b [*lead, rank, *outputs].

  lead: the layer axis of a stack, or nothing.  A leaf is None in a tree that holds the other part.
  """

  w: Any
  a: Any
  b: Any
  scale: float = dataclasses.field(metadata={"static": True})

  def merged(self) -> jax.Array:
    """w + scale a b, computed in float32, in the dtype of w."""
    lead = self.a.ndim + self.b.ndim - 2 - self.w.ndim
    letters = "".join(chr(ord("A") + i) for i in range(self.w.ndim))
    inputs, outputs = letters[: self.a.ndim - 1], letters[self.a.ndim - 1 :]
    equation = f"{inputs}r,{inputs[:lead]}r{outputs}->{letters}"
    a, b = self.a.astype(jnp.float32), self.b.astype(jnp.float32)
    update = self.scale * jnp.einsum(equation, a, b, precision=jax.lax.Precision.HIGHEST)
    return (self.w.astype(jnp.float32) + update).astype(self.w.dtype)


@linear.register
def _(w: LowRank, equation: str, x: jax.Array, out: jax.P | None) -> jax.Array:
  del out  # `linear.einsum` reads it off the equation again
  operands, result = equation.split("->")
  x_axes, w_axes = operands.split(",")
  inputs = "".join(c for c in w_axes if c in x_axes)
  outputs = "".join(c for c in w_axes if c not in x_axes)
  rows = "".join(c for c in x_axes if c not in inputs)
  low = linear.einsum(f"{x_axes},{inputs}r->{rows}r", x, w.a) * w.scale
  update = linear.einsum(f"{rows}r,r{outputs}->{result}", low, w.b)
  return linear.einsum(equation, x, w.w) + update


def wrap(base: Any, settings: Settings) -> Any:
  """`base` with a `LowRank` without factors on every target."""

  def one(name: str, leaf: Any) -> Any:
    hit = re.fullmatch(settings.targets, name)
    return LowRank(w=leaf, a=None, b=None, scale=settings.scale) if hit else leaf

  return tree.map_named(one, base)


def new(base: P.Specs, settings: Settings) -> P.Specs:
  """The factors of every target, None elsewhere.

  `a` starts as Hugging Face PEFT's `lora_A` (`LoraLayer.reset_lora_parameters`): Kaiming-uniform
  with a = sqrt(5), which is uniform within 1 / sqrt(inputs).  `b` starts at zero.

  Raises:
    ValueError: targets that match nothing, or something that is no linear layer; all are listed.
  """
  try:
    hit, _ = tree.partition(base, settings.targets)
  except (ValueError, re.error) as error:
    raise ValueError(f"peft.targets: {error}") from error
  wrong = [
    f"{tree.path_name(path)} {spec.axes}"
    for path, spec in jax.tree.leaves_with_path(hit)
    if _inputs(spec) is None
  ]
  if wrong:
    raise ValueError(f"peft.targets match what is no linear layer: {', '.join(wrong)}")
  return jax.tree.map(
    lambda spec: None if spec is None else _factors(spec, settings),
    hit,
    is_leaf=lambda leaf: leaf is None,
  )


def _inputs(spec: ParamSpec) -> slice | None:
  """The input axes of a linear layer, None for anything else.

  Linear layers are stored inputs first, and one of their two sides is the residual stream alone.
  Tables of the vocabulary are looked up or stored the other way round, pixels are a convolution's.
  """
  start = int(spec.axes[:1] == ("layer",))
  axes = spec.axes[start:]
  if len(axes) < 2 or axes.count("embed") != 1 or {"vocab", "pixels", None} & set(axes):
    return None
  if axes[0] == "embed":
    return slice(start, start + 1)
  return slice(start, len(spec.axes) - 1) if axes[-1] == "embed" else None


def _factors(spec: ParamSpec, settings: Settings) -> LowRank:
  inputs = _inputs(spec)
  assert inputs is not None
  start, stop = inputs.start, inputs.stop
  bound = math.prod(spec.shape[inputs]) ** -0.5
  a = ParamSpec((*spec.shape[:stop], settings.rank), (*spec.axes[:stop], "rank"), P.uniform(bound))
  b = ParamSpec(
    (*spec.shape[:start], settings.rank, *spec.shape[stop:]),
    (*spec.axes[:start], "rank", *spec.axes[stop:]),
    P.constant(0.0),
  )
  return LowRank(w=None, a=a, b=b, scale=settings.scale)
