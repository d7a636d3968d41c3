"""Which parameters of a stage train: a pattern of paths, and what it may not mean."""

import re

import jax

from hulu_jax import peft
from hulu_jax.core import params as P
from hulu_jax.core import tree
from hulu_jax.training.optimizer import Settings


def check_rates(rates: Settings, trains: str, specs: P.Specs) -> None:
  """Raises where something would train at a rate of 0: it costs all and changes nothing.

  trains: as `pattern` gives it; specs: of what runs.

  Raises:
    ValueError: the first such module.
  """
  hit, _ = tree.partition(specs, trains)
  for module, rate in rates.learning_rates.items():
    if rate == 0.0 and jax.tree.leaves(hit[module]):
      raise ValueError(
        f"optimizer.learning_rates.{module} = 0, while trainable or peft let it train: give it a "
        "rate, or leave it out of both"
      )


def pattern(wanted: str, base: P.Specs, adapters: peft.Adapters | None) -> str:
  """The pattern of what trains: `wanted`, and beside it the adapters where there are any.

  Raises:
    ValueError: `wanted` matches nothing, or a weight that an adapter is there to keep frozen.
  """
  if adapters is None:
    _match(base, wanted)
    return wanted
  own = adapters.pattern(base)
  if not wanted:
    return own
  specs = adapters.specs(base)
  _match(specs, wanted)
  adapted = set(tree.names(specs)) - set(tree.names(base))
  frozen = [n for n in sorted(adapted) if re.fullmatch(wanted, n) and not re.fullmatch(own, n)]
  if frozen:
    raise ValueError(
      f"trainable = {wanted!r} matches {', '.join(frozen)}, which adapters keep frozen; beside "
      "config.peft it names only what trains in full, and trainable = '' is the adapters alone"
    )
  return f"{own}|{wanted}"


def _match(specs: P.Specs, wanted: str) -> None:
  """Raises where `wanted` is no pattern, or one that matches nothing."""
  if not wanted:
    raise ValueError(
      "trainable = '' trains nothing: give a pattern of paths, '.*' for all of them; only beside "
      "config.peft may it be empty"
    )
  try:
    tree.partition(specs, wanted)
  except (ValueError, re.error) as error:
    raise ValueError(f"trainable: {error}") from error
