"""`hulu data stats`: runs an experiment's data pipeline without its model and counts what comes."""

import argparse
from collections.abc import Sequence
import contextlib
import json
import os
from pathlib import Path
import tempfile
import time
from typing import Any, NamedTuple

from ml_collections import ConfigDict
import numpy as np

from hulu_jax.cli import _data_pictures
from hulu_jax.cli import _data_tables
from hulu_jax.cli import _experiment
from hulu_jax.cli import _progress
from hulu_jax.core import params as P
from hulu_jax.data import mixture as mixture_lib
from hulu_jax.data import packing
from hulu_jax.data import pipeline
from hulu_jax.data import rows as rows_lib
from hulu_jax.data import settings
from hulu_jax.data import stats
from hulu_jax.data import stored_lengths
from hulu_jax.data.schema import StepShape
from hulu_jax.data.stats import Cost
from hulu_jax.data.stats import Seen
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.training import stages
from hulu_jax.training import tokenizers

EXAMPLE = """example:
  hulu data stats --config=experiments/quickstart.py --steps=20 --pictures=stats

Every key of the experiment is a flag, as in hulu train (--config.rows=8)."""
# A batch larger than this is packed with fewer rows; all numbers are given for the whole step.
_MOST_BYTES = 1 << 28
# Mesh axes over which rows of a batch are spread.
_DATA_AXES = ("data", "fsdp")


class _Run(NamedTuple):
  """What some steps of the pipeline were.

  shapes: as packed; steps: (shape, what the batch held, seconds since the step before); sizes: by
  dataset, how many of its records take part; ends: positions of the mixture, None for no end; used:
  by dataset, the records taken; read: records of the mixture that were taken or skipped; skipped:
  metrics of bad records; counting: seconds spent on counting.
  """

  shapes: tuple[StepShape, ...]
  steps: list[tuple[int, np.ndarray, float]]
  sizes: list[int]
  ends: int | None
  used: list[list[Seen]]
  read: int
  skipped: dict[str, float]
  counting: float


def run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
  """Counts and shows."""
  parser.add_argument("--steps", type=int, default=20, help="to pack (default 20)")
  parser.add_argument("--json", action="store_true", help="print one JSON object")
  parser.add_argument("--pictures", metavar="DIR", type=Path, help="write histograms there")
  parser.add_argument("--config", metavar="EXPERIMENT.py", help="which mixture (needed)")
  parser.add_argument("--stage", metavar="NAME", help="of an experiment with several")
  if {"-h", "--help"} & set(argv):
    parser.print_help()
    return 0
  cfg, rest = _experiment.split(argv, parser.prog)
  args = parser.parse_args(rest)
  if cfg is None or args.steps < 1:
    raise ValueError(f"needs --config, and --steps of 1 or more; found {' '.join(argv)}")
  cfg = stages.select(cfg, args.stage)
  datasets = mixture_lib.sources(cfg.data.mixture)
  found = _pack(cfg, datasets, args.steps, quiet=args.json)
  answer = _answer(cfg, found)
  if args.pictures:
    answer["pictures"] = [str(p) for p in _pictures(args.pictures, cfg, found)]
  if args.json:
    print(json.dumps(answer, allow_nan=False))
  else:
    _data_tables.show(answer)
  return 0


def tokenizer(cfg: ConfigDict, datasets: Sequence[Any]) -> Tokenizer:
  """The experiment's tokenizer, as `hulu train` would choose it for a new run."""
  vocab = presets.get(cfg.model).decoder.vocab
  with tempfile.TemporaryDirectory() as nothing:
    return tokenizers.prepare(cfg, vocab, datasets, Path(nothing))


def builders(cfg: ConfigDict, words: Tokenizer) -> list[stats.Measuring]:
  """One per dataset of the mixture; they note what they build."""
  policy, root, budget = settings.policy(cfg.policy), Path(cfg.data.root), settings.budget(cfg)
  return [
    stats.Measuring(tokenizer=words, policy=policy, root=root, source=number, budget=budget)
    for number in range(len(cfg.data.mixture))
  ]


def cost(model: str) -> Cost:
  """FLOPs of a preset: two for each weight of a matrix, forward."""
  config = presets.get(model)
  specs = hulu.specs(config)
  decoder = specs["decoder"]
  head = decoder["embed" if config.decoder.tied else "head"]
  parts = (decoder["layers"], head, specs["vision"], specs["projector"])
  return Cost(*(2.0 * P.count(part) for part in parts))


def _pack(cfg: ConfigDict, datasets: Sequence[Any], steps: int, *, quiet: bool) -> _Run:
  words = tokenizer(cfg, datasets)
  made = builders(cfg, words)
  shapes = _fewer_rows(settings.step_shapes(cfg.shapes, cfg.rows))
  options = pipeline.Options(
    lookahead=cfg.data.lookahead,
    patience=cfg.data.patience,
    threads=cfg.data.threads,
    prefetch=cfg.data.prefetch,
    max_bad=1.0,  # bad records are what is asked for
    seed=cfg.seed,
  )
  data = pipeline.Data(
    mixture=settings.mixture(cfg.data.mixture),
    datasets=[stats.Numbered(dataset) for dataset in datasets],
    builders=made,
    lengths=stored_lengths.of_all(datasets, made[0].policy, words, made[0].budget),
  )
  with contextlib.closing(pipeline.train_iterator(data, shapes, (0, 1), options)) as iterator:
    found, skipped = _take(iterator, shapes, steps, quiet)
    plan = iterator.get_state()["plan"]
  waiting = {position for home in plan["waiting"] for position in home}
  order = mixture_lib.order(datasets, data.mixture, cfg.seed)
  used: list[list[Seen]] = [[] for _ in datasets]
  for position in range(plan["read"]):
    ref = order[position]
    seen = made[ref.source].seen.get(ref.record)
    if position not in waiting and seen is not None and _fits(seen, shapes):
      used[ref.source].append(seen)
  counting = sum(sum(m.extra) for m in made) / cfg.data.threads
  sizes = mixture_lib.records(datasets, mixture_lib.selected(datasets, data.mixture))
  ends = len(order) if mixture_lib.ends(data.mixture) else None
  return _Run(shapes, found, sizes, ends, used, plan["read"] - len(waiting), skipped, counting)


def _take(
  iterator: Any, shapes: Sequence[StepShape], steps: int, quiet: bool
) -> tuple[list[tuple[int, np.ndarray, float]], dict[str, float]]:
  found, before, skipped = [], time.monotonic(), {}
  with _progress.Line("stats", steps) if not quiet else contextlib.nullcontext() as line:
    for step in range(1, steps + 1):
      packed = next(iterator, None)
      if packed is None:
        break
      now = time.monotonic()
      held = stats.used(packed.batch, shapes[packed.shape])
      found.append((packed.shape, held, now - before))
      before = now
      skipped = {k: v for k, v in packed.info.items() if k.startswith("skipped/")}
      if line is not None:
        line.update(step, {"padding/tokens": packed.info["padding/tokens"]})
  if not found:
    raise ValueError("the mixture ended before its first step: no record of it can be used")
  return found, skipped


def _fewer_rows(shapes: Sequence[StepShape]) -> tuple[StepShape, ...]:
  """With as many rows as keep a batch in memory."""

  def size(shape: StepShape) -> int:
    batch = packing.empty_batch(shape._replace(rows=1))
    fields = (part for field in batch for part in (field if isinstance(field, tuple) else (field,)))
    return sum(part.nbytes for part in fields)

  rows = max(1, min(shapes[0].rows, _MOST_BYTES // max(map(size, shapes))))
  return tuple(shape._replace(rows=rows) for shape in shapes)


def _fits(seen: Seen, shapes: Sequence[StepShape]) -> bool:
  return any(rows_lib.refusal(seen.length, shape) is None for shape in shapes)


def _size(cfg: ConfigDict, axis: str) -> int:
  size = cfg.mesh.get(axis, 1)
  if size < 1:
    raise ValueError(f"config.mesh.{axis} = {size}: no devices are counted here; say how many")
  return int(size)


def _answer(cfg: ConfigDict, found: _Run) -> dict[str, Any]:
  """Plain numbers, for a table or as they are."""
  flops = cost(cfg.model)
  rows, steps = found.shapes[0].rows, len(found.steps)
  scale = cfg.rows / rows
  read_a_step = found.read / steps * scale
  weights = [entry["weight"] for entry in cfg.data.mixture]
  ranks = int(np.prod([_size(cfg, axis) for axis in _DATA_AXES]))
  by_shape = []
  for number, shape in enumerate(found.shapes):
    batches = [held for s, held, _ in found.steps if s == number]
    row = stats.shape_row(shape._replace(rows=cfg.rows), [b * scale for b in batches], flops)
    by_shape.append(row | {"flops_per_rank": row["flops"] / ranks})
  by_dataset = []
  for number, entry in enumerate(cfg.data.mixture):
    label = entry["label"]
    share = weights[number] / sum(weights)
    prefix = f"skipped/{label}/"
    bad = {k.removeprefix(prefix): int(v) for k, v in found.skipped.items() if k.startswith(prefix)}
    by_dataset.append(
      {
        "dataset": label,
        "records": found.sizes[number],
        "bad": bad,
        **stats.dataset_row(found.used[number], cfg.policy.compression.mode),
        "steps_per_epoch": found.sizes[number] / (read_a_step * share),
      }
    )
  return {
    "steps": steps,
    "steps_until_the_end": None if found.ends is None else found.ends / read_a_step,
    "rows": cfg.rows,
    "rows_packed": rows,
    "ranks": ranks,
    "model": cfg.model,
    "compression": cfg.policy.compression.mode,
    "datasets": by_dataset,
    "shapes": by_shape,
    **_whole(found, flops),
    "seconds_per_step": sum(s for _, _, s in found.steps) / steps * scale,
    "of_it_counting": found.counting / steps * scale,
    "threads": cfg.data.threads,
    "cores": os.cpu_count(),
  }


def _whole(found: _Run, flops: Cost) -> dict[str, Any]:
  """Over all steps of all shapes: useful over paid, by FLOPs and by each thing paid for."""
  used = np.sum([held for _, held, _ in found.steps], axis=0)
  paid = np.sum([stats.paid(found.shapes[s]) for s, _, _ in found.steps], axis=0)
  fill = dict(zip(flops._fields, (used / np.maximum(paid, 1)).tolist(), strict=True))
  return {
    "fill": fill,
    "useful_over_paid": float(used @ np.array(flops)) / float(paid @ np.array(flops)),
  }


def _pictures(folder: Path, cfg: ConfigDict, found: _Run) -> list[Path]:
  labels = [entry["label"] for entry in cfg.data.mixture]
  tokens = {
    label: [one.length.tokens for one in used]
    for label, used in zip(labels, found.used, strict=True)
  }
  fills = {"tokens": 0, "patches": 2}
  fill = {
    name: [held[i] / max(stats.paid(found.shapes[s])[i], 1) for s, held, _ in found.steps]
    for name, i in fills.items()
  }
  return [
    _data_pictures.histogram(folder / "tokens_per_sample.png", tokens, "tokens of a sample"),
    _data_pictures.histogram(folder / "fill.png", fill, "part of a step that is used"),
  ]
