"""Stages whose length is said in epochs: their steps, counted from the plan of their data.

An epoch is one pass over a stage's mixture: every record of every dataset once, or as often as its
entry's own `epochs` says, in the order that the weights give; a dataset that is used up leaves and
the others go on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hulu_jax.data import count
from hulu_jax.data import mixture as mixture_lib
from hulu_jax.data import settings
from hulu_jax.data import stored_lengths
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.models import presets
from hulu_jax.training import stages
from hulu_jax.training import tokenizers


def counted(cfg: ConfigDict, workdir: Path) -> ConfigDict:
  """The experiment with `steps` where it says `epochs`, and with mixtures that end there.

  cfg itself where no stage is so many epochs long.  workdir: of the run, for its tokenizer.

  Raises:
    ValueError: as `stages.views`; a dataset whose lengths are not known, so that nobody can say how
      many of its records a step holds.
  """
  views = stages.views(cfg)
  if all(view.epochs is None for view in views.values()):
    return cfg
  everything = [d for view in views.values() for d in mixture_lib.sources(view.data.mixture)]
  words = tokenizers.prepare(cfg, presets.get(cfg.model).decoder.vocab, everything, workdir)
  own = {name: _changes(view, name, words) for name, view in views.items()}
  found = cfg.copy_and_resolve_references()
  with found.unlocked():
    if cfg.stages:
      found.stages = tuple(_stage(entry, own[entry["name"]]) for entry in cfg.stages)
    else:
      found.epochs = None
      _set(found, own["all"])
  return found


def _stage(entry: Mapping[str, Any], changes: Mapping[str, Any]) -> ConfigDict:
  """An entry of `stages` in steps."""
  found = ConfigDict({key: value for key, value in entry.items() if key != "epochs"})
  with found.unlocked():
    _set(found, changes)
  return found


def _set(config: ConfigDict, changes: Mapping[str, Any]) -> None:
  """Writes length and mixture into an experiment or into one of its stages."""
  if not changes:
    return
  config.steps = changes["steps"]
  if "data" not in config:
    config.data = ConfigDict()
  with config.data.unlocked():
    config.data.mixture = changes["mixture"]


def _changes(view: ConfigDict, name: str, words: Tokenizer) -> Mapping[str, Any]:
  """Steps and mixture of a stage that is so many epochs long; nothing for another."""
  if view.epochs is None:
    return {}
  mixture = settings.mixture(view.data.mixture)
  for entry in mixture:
    entry["epochs"] = view.epochs * (1 if entry.get("epochs") is None else entry["epochs"])
  datasets = mixture_lib.sources(mixture)
  lost = [e["label"] for e, d in zip(mixture, datasets, strict=True) if d.lengths is None]
  if lost:
    raise ValueError(
      f"stage {name!r}: epochs = {view.epochs} is a number of steps only where lengths are known, "
      f"and {', '.join(lost)} of data.mixture has none: write them (`hulu prepare "
      "--lengths-only`), or set steps instead"
    )
  lengths = stored_lengths.of_all(
    datasets, settings.policy(view.policy), words, settings.budget(view)
  )
  assert lengths is not None
  steps = count.steps(
    mixture_lib.order(datasets, mixture, view.seed),
    lengths,
    settings.step_shapes(view.shapes, view.rows),
    view.data.lookahead,
    view.data.patience,
  )
  if not steps:
    raise ValueError(
      f"stage {name!r}: no record of data.mixture fits a step shape: make one of `shapes` larger, "
      "or let records be cut (data.cut)"
    )
  return {"steps": steps, "mixture": tuple(ConfigDict(entry) for entry in mixture)}
