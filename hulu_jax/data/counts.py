"""What a batch holds, as counts that add up over processes, and the metrics that follow from them.

Every batch of a mixture has the same names, in whatever process, so counts add up name by name:

  used/X, room/X            what is filled of what a shape pays: tokens, patches, supervised
  tokens/KIND               tokens of text, and visual tokens after compression
  whole/KIND                visual tokens before compression
  supervised/KIND           positions with a loss, by the modality of their sample
  SAME_by_dataset/LABEL     tokens, visual, whole and supervised, by dataset
  cut, cut/WHAT             records that lost something to fit a step shape
  skipped/LABEL/REASON      bad records since the start of the run
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hulu_jax.data import cutting
from hulu_jax.data import lengths as lengths_lib
from hulu_jax.data.schema import MODALITIES
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import StepShape
from hulu_jax.media.errors import KINDS as REASONS

Counts = Mapping[str, int]

KINDS = MODALITIES[1:]
_ROOMS = ("tokens", "patches", "supervised")
_BY_DATASET = ("tokens", "visual", "whole", "supervised")


def room(examples: Sequence[Example]) -> tuple[int, int, int]:
  """Tokens, patches and supervised positions of examples."""
  lengths = [lengths_lib.of(e) for e in examples]
  return (
    sum(length.tokens for length in lengths),
    sum(m.frames * m.patches for length in lengths for m in length.media),
    sum(length.supervised for length in lengths),
  )


def filled(shape: StepShape, examples: Sequence[Example]) -> dict[str, int]:
  """How much of a batch's room its examples take."""
  patches = sum(g.slots * g.size for g in shape.groups)
  rooms = (shape.tokens, patches, shape.supervised)
  out = {f"used/{name}": n for name, n in zip(_ROOMS, room(examples), strict=True)}
  return out | {f"room/{name}": shape.rows * n for name, n in zip(_ROOMS, rooms, strict=True)}


def held(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, int]:
  """Tokens and records of examples, by kind and by dataset.  labels: of the mixture's datasets."""
  out = {f"tokens/{kind}": 0 for kind in MODALITIES}
  out |= {f"whole/{kind}": 0 for kind in KINDS}
  out |= {f"supervised/{kind}": 0 for kind in MODALITIES}
  out |= {f"{what}_by_dataset/{label}": 0 for what in _BY_DATASET for label in labels}
  for example in examples:
    label, length = labels[example.source], lengths_lib.of(example)
    for visual in example.visuals:
      out[f"whole/{visual.kind}"] += visual.keep.size
      out[f"tokens/{visual.kind}"] += int(np.count_nonzero(visual.keep))
      out[f"whole_by_dataset/{label}"] += visual.keep.size
    out["tokens/text"] += length.tokens - length.visual
    out[f"supervised/{MODALITIES[example.modality]}"] += length.supervised
    out[f"tokens_by_dataset/{label}"] += length.tokens
    out[f"visual_by_dataset/{label}"] += length.visual
    out[f"supervised_by_dataset/{label}"] += length.supervised
  return out | cutting.counts(examples)


def skipped(bad: Mapping[str, int], labels: Sequence[str]) -> dict[str, int]:
  """Bad records by dataset and reason.  bad: "LABEL/REASON" to how many, of those there are."""
  names = [f"{label}/{reason}" for label in labels for reason in REASONS]
  return {f"skipped/{name}": bad.get(name, 0) for name in names}


def metrics(counts: Counts) -> dict[str, float]:
  """The metrics of counts, as docs/metrics.md lists them.

  `kept` of what holds no visual tokens, and reasons for which nothing was skipped, are left out.
  """
  out = {f"padding/{name}": _padding(counts, name) for name in _ROOMS if f"room/{name}" in counts}
  same = ("tokens/", "supervised/", "tokens_by_dataset/", "supervised_by_dataset/", "cut")
  out |= {name: float(n) for name, n in counts.items() if name.startswith(same)}
  whole = sum(counts[f"whole/{kind}"] for kind in KINDS)
  out["kept"] = sum(counts[f"tokens/{kind}"] for kind in KINDS) / max(whole, 1)
  for name, n in counts.items():
    what, _, key = name.partition("/")
    if what == "whole" and n:
      out[f"kept/{key}"] = counts[f"tokens/{key}"] / n
    if what == "whole_by_dataset" and n:
      out[f"kept_by_dataset/{key}"] = counts[f"visual_by_dataset/{key}"] / n
  bad = {name: float(n) for name, n in counts.items() if name.startswith("skipped/") and n}
  return out | {"skipped": sum(bad.values(), 0.0), **bad}


def _padding(counts: Counts, name: str) -> float:
  paid = counts[f"room/{name}"]
  return (paid - counts[f"used/{name}"]) / max(paid, 1)
