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


def views(cfg: ConfigDict) -> dict[str, ConfigDict]:
  """By name, in order, the experiment as each of its stages sees it.

  Raises:
    ValueError: keys that the experiment lacks, a stage without a name or with another's, a key that
      no stage may set or that the experiment does not have, a stage of no or of two lengths.
  """
  keys.check(cfg)
  if not cfg.stages:
    _check_length(cfg, "")
    return {"all": cfg}
  entries = [e if isinstance(e, ConfigDict) else ConfigDict(e) for e in cfg.stages]
  names = [_name(entry, number) for number, entry in enumerate(entries)]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise ValueError(f"stages: {twice} more than once; --stage goes by the name")
  return {name: _view(cfg, entry, name) for name, entry in zip(names, entries, strict=True)}


def plan(cfg: ConfigDict) -> tuple[Stage, ...]:
  """All stages of an experiment, in order.

  Raises:
    ValueError: as `views`; a stage whose epochs were not made steps by `epochs.counted`.
  """
  found: list[Stage] = []
  for name, own in views(cfg).items():
    if own.epochs is not None:
      raise ValueError(
        f"stage {name!r} has epochs = {own.epochs}, and its steps are not counted from the data: "
        "set steps instead"
      )
    first = found[-1].last if found else 0
    found.append(Stage(name, own, first, first + own.steps))
  return tuple(found)


def select(cfg: ConfigDict, name: str | None) -> ConfigDict:
  """The experiment as stage `name` sees it; None where there is but one.

  Raises:
    ValueError: no stage of that name, or several and no name.
  """
  found = views(cfg)
  if name is None and len(found) == 1:
    return next(iter(found.values()))
  if name not in found:
    said = "which stage is meant is not said" if name is None else f"no stage {name!r}"
    raise ValueError(f"{said}; there are: {', '.join(found)}")
  return found[name]


def _check_length(cfg: ConfigDict, where: str) -> None:
  """`epochs` decides where it is not None: no flag can take an experiment's `steps` away."""
  key = "steps" if cfg.epochs is None else "epochs"
  if cfg[key] is None:
    raise ValueError(f"{where}neither steps nor epochs is set; expected a number in one of them")
  if cfg[key] < 1:
    raise ValueError(f"{where}{key} = {cfg[key]}; expected 1 or more")


def _name(entry: ConfigDict, number: int) -> str:
  if "name" not in entry or not entry.name:
    raise ValueError(f"stages[{number}] has no name; it has: {', '.join(entry)}")
  return entry.name


def _view(cfg: ConfigDict, entry: ConfigDict, name: str) -> ConfigDict:
  shared = sorted(set(entry) & set(_SHARED))
  if shared:
    raise ValueError(f"stage {name!r} sets {', '.join(shared)}, which a run has once")
  if "steps" in entry and "epochs" in entry:
    raise ValueError(f"stage {name!r} sets steps and epochs; expected one of them")
  own = cfg.copy_and_resolve_references()
  with own.unlocked():
    own.stages = ()
    _overlay(own, entry, f"stage {name!r}: ", ("name",))
    if "steps" in entry:
      own.epochs = None  # of the experiment: the stage says otherwise
  _check_length(own, f"stage {name!r}: ")
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
