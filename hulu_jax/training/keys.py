"""The keys that every experiment states, since nothing below it has a default."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import difflib
import math
from typing import Any

from ml_collections import ConfigDict

from hulu_jax.data.vision import Policy
from hulu_jax.models.scan import Compute
from hulu_jax.training import checkpoint
from hulu_jax.training import optimizer
from hulu_jax.training.keeping import Dtypes

_TOP = (
  *("accumulate", "checkpoint", "compute", "data", "dtypes", "ema", "epochs", "init_from"),
  *("loss_weighting", "mesh", "model", "optimizer", "peft", "policy", "report_every", "rows"),
  *("seed", "shapes", "stages", "steps", "tokenizer", "trainable", "z_loss"),
  # What a run tells of itself: see docs/metrics.md.
  *("evaluation", "peak_flops", "profile", "trackers"),
)
# Groups that are read key by key; they may hold more, as the whole experiment may.
_READ: Mapping[str, Sequence[str]] = {
  "data": (
    *("cache", "cache_bytes", "cut", "lookahead", "max_bad", "mixture", "patience", "prefetch"),
    *("root", "threads", "timeout"),
  ),
}
# Groups that may be None; else they have these keys and no others.
_OPTIONAL: Mapping[str, Sequence[str]] = {
  "evaluation": ("every", "limit", "mixture", "new_tokens"),
  "profile": ("first", "steps"),
}
# Groups that are one object each: what has no field there is a mistake.
_OBJECTS: Mapping[str, Any] = {
  "checkpoint": checkpoint.Settings,
  "compute": Compute,
  "dtypes": Dtypes,
  "optimizer": optimizer.Settings,
  "policy": Policy,
}


# Whole numbers that count something.
_COUNTS = (
  *("accumulate", "rows", "report_every", "checkpoint.every", "checkpoint.keep"),
  *("data.lookahead", "data.threads", "data.prefetch"),
)


def check(cfg: ConfigDict) -> None:
  """Raises where keys are missing, unknown where no others are understood, or nothing is counted.

  Raises:
    ValueError: all of them, with what may have been meant.
  """
  wrong = list(_problems(cfg))
  if wrong:
    raise ValueError(f"the experiment {'; '.join(wrong)}")
  for key in _COUNTS:
    group, _, name = key.rpartition(".")
    found = (cfg[group] if group else cfg)[name]
    if found < 1:
      raise ValueError(f"{key} = {found}; expected 1 or more")
  if not 0.0 <= cfg.z_loss < math.inf:
    raise ValueError(f"z_loss = {cfg.z_loss}; expected 0, which adds none, or a factor above")


def _problems(cfg: ConfigDict) -> Iterator[str]:
  yield from _missing("", _TOP, cfg)
  for group, needed in _READ.items():
    if group in cfg:
      yield from _missing(f"{group}.", needed, cfg[group])
  for group, needed in _OPTIONAL.items():
    if cfg.get(group) is not None:
      yield from _missing(f"{group}.", needed, cfg[group])
      yield from _unknown(group, needed, cfg[group])
      yield from _uncountable(group, cfg[group])
  for group, kind in _OBJECTS.items():
    if group not in cfg:
      continue
    fields = dataclasses.fields(kind)
    needed = [f.name for f in fields if f.default is dataclasses.MISSING]
    yield from _missing(f"{group}.", needed, cfg[group])
    yield from _unknown(group, [field.name for field in fields], cfg[group])


def _uncountable(group: str, found: ConfigDict) -> Iterator[str]:
  for key, value in found.items():
    countable = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if key != "mixture" and not countable:
      yield f"says {group}.{key} = {value!r} (expected a whole number from 1)"


def _unknown(group: str, known: Sequence[str], found: ConfigDict) -> Iterator[str]:
  for key in sorted(set(found) - set(known)):
    near = difflib.get_close_matches(key, known, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    yield f"has no use for {group}.{key} ({meant})"


def _missing(prefix: str, needed: Sequence[str], found: ConfigDict) -> Iterator[str]:
  lost = [f"{prefix}{key}" for key in sorted(needed) if key not in found]
  if lost:
    yield f"does not state {', '.join(lost)}"
