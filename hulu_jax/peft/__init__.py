"""Parameter-efficient fine-tuning: a method is one file of this folder, named by `config.peft`.

A method replaces weights of the tree by its own kind of weight (`core.linear.Weight`): a node whose
base leaf stays frozen beside new leaves that train.  Model code never learns of it.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any, Protocol

import jax

from hulu_jax.core import params as P
from hulu_jax.core import plugins
from hulu_jax.core import tree


class Method(Protocol):
  """What a method's file offers; beside it stands its weight type with its einsum rule."""

  Settings: Any  # a frozen dataclass of what `config.peft` says beside the method's name

  def wrap(self, base: Any, settings: Any) -> Any:
    """The tree with the method's weights in their places, None where their new leaves go.

    base: parameters, or anything of their structure.
    """

  def new(self, base: P.Specs, settings: Any) -> P.Specs:
    """Specs of the new leaves, structured as `wrap` gives it, None where `base` has the leaf.

    Raises:
      ValueError: targets that the method cannot serve, all of them listed.
    """


@dataclasses.dataclass(frozen=True)
class Adapters:
  """A method and its settings: what a run, a reader or a writer needs to know of them."""

  method: str
  settings: Any

  def specs(self, base: P.Specs) -> P.Specs:
    """Specs of the model with its adapters."""
    return tree.merge(self._method.new(base, self.settings), self.wrap(base))

  def wrap(self, base: Any) -> Any:
    """`base`, of the model's structure, as the part of `specs` that is not new."""
    return self._method.wrap(base, self.settings)

  def add(self, key: jax.Array, params: P.Params, base: P.Specs) -> P.Params:
    """Parameters with fresh adapters, which change nothing yet.

    params: of the model without adapters, described by `base`.  The new leaves are born where they
    will live: call it under `jax.jit` and `jax.set_mesh`.
    """
    return tree.merge(P.initialize(key, self._method.new(base, self.settings)), self.wrap(params))

  def pattern(self, base: P.Specs) -> str:
    """Matches the path of every new leaf and no other, for `tree.partition`."""
    return "|".join(map(re.escape, tree.names(self._method.new(base, self.settings))))

  def to_json(self) -> dict[str, Any]:
    """What `named` reads."""
    return {"method": self.method, **dataclasses.asdict(self.settings)}

  @property
  def _method(self) -> Method:
    return _load(self.method)


def named(values: Mapping[str, Any]) -> Adapters:
  """Adapters from {"method": name, and the method's settings}.

  Raises:
    ValueError: no such method, or settings that it does not have, lacks or cannot mean.
  """
  given = dict(values)
  if "method" not in given:
    raise ValueError(
      f"peft = {given} names no method; there are: {', '.join(plugins.names(__name__))}"
    )
  method = given.pop("method")
  settings = _load(method).Settings
  known = sorted(field.name for field in dataclasses.fields(settings))
  if sorted(given) != known:
    raise ValueError(f"peft.method = {method!r} has the settings {known}, found {sorted(given)}")
  return Adapters(method, settings(**given))


def _load(method: str) -> Any:
  return plugins.load(__name__, method)
