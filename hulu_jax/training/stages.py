"""The stages of a run: what an experiment says for all of them, and per stage what differs.

An experiment without stages is one stage.  Steps are counted through the whole run, so the number
of a checkpoint says which stage it belongs to.
"""

from collections.abc import Sequence
import difflib
from typing import NamedTuple

from ml_collections import ConfigDict

from hulu_jax.training import keys

# What one run has once.
_SHARED = (
  "checkpoint",
  "compute",
  "evaluation",
  "init_from",
  "mesh",
  "model",
  "peak_flops",
  "peft",
  "profile",
  "report_every",
  "seed",
  "stages",
  "tokenizer",
  "trackers",
)
# A stage that names one of these means all of it, not additions to it.
_WHOLE = ("compression", "mixture", "shapes")


class Stage(NamedTuple):
  """One stage of a run.

  cfg: the experiment as this stage sees it; its `steps` are the stage's own.  first: steps of the
  run before it; last: the run's step with which it ends.
  """

  name: str
  cfg: ConfigDict
  first: int
  last: int


def plan(cfg: ConfigDict) -> tuple[Stage, ...]:
  """All stages of an experiment, in order.

  Raises:
    ValueError: keys that the experiment lacks, a stage without a name or with another's, a key that
      no stage may set or that the experiment does not have.
  """
  keys.check(cfg)
  if not cfg.stages:
    return (Stage("all", cfg, 0, cfg.steps),)
  entries = [e if isinstance(e, ConfigDict) else ConfigDict(e) for e in cfg.stages]
  names = [_name(entry, number) for number, entry in enumerate(entries)]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise ValueError(f"stages: {twice} more than once; --stage goes by the name")
  found: list[Stage] = []
  for name, entry in zip(names, entries, strict=True):
    first = found[-1].last if found else 0
    own = _view(cfg, entry, name)
    found.append(Stage(name, own, first, first + own.steps))
  return tuple(found)


def select(cfg: ConfigDict, name: str | None) -> ConfigDict:
  """The experiment as stage `name` sees it; None where there is but one.

  Raises:
    ValueError: no stage of that name, or several and no name.
  """
  found = {stage.name: stage.cfg for stage in plan(cfg)}
  if name is None and len(found) == 1:
    return next(iter(found.values()))
  if name not in found:
    said = "which stage is meant is not said" if name is None else f"no stage {name!r}"
    raise ValueError(f"{said}; there are: {', '.join(found)}")
  return found[name]


def _name(entry: ConfigDict, number: int) -> str:
  if "name" not in entry or not entry.name:
    raise ValueError(f"stages[{number}] has no name; it has: {', '.join(entry)}")
  return entry.name


def _view(cfg: ConfigDict, entry: ConfigDict, name: str) -> ConfigDict:
  shared = sorted(set(entry) & set(_SHARED))
  if shared:
    raise ValueError(f"stage {name!r} sets {', '.join(shared)}, which a run has once")
  own = cfg.copy_and_resolve_references()
  with own.unlocked():
    own.stages = ()
    _overlay(own, entry, f"stage {name!r}: ", ("name",))
  return own


def _overlay(under: ConfigDict, over: ConfigDict, where: str, leave: Sequence[str] = ()) -> None:
  """Writes the keys of `over` into `under`, which must have them."""
  for key in over:
    if key in leave:
      continue
    if key not in under:
      near = difflib.get_close_matches(key, under, n=1)
      meant = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(under)}"
      raise ValueError(f"{where}no key {key!r}{meant}")
    if isinstance(over[key], ConfigDict) and key not in _WHOLE:
      _overlay(under[key], over[key], f"{where}{key}: ")
    else:
      under[key] = over[key]
