"""`hulu data shapes`: step shapes that suit a mixture, as lines to paste into an experiment."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
import numpy as np

from hulu_jax.cli import _data_stats
from hulu_jax.cli import _experiment
from hulu_jax.data import lengths as lengths_lib
from hulu_jax.data import manifest as manifest_lib
from hulu_jax.data import mixture as mixture_lib
from hulu_jax.data import settings
from hulu_jax.data import shapes as shapes_lib
from hulu_jax.data import stored_lengths
from hulu_jax.data.lengths import Length
from hulu_jax.data.lengths import Lengths
from hulu_jax.data.schema import Ref
from hulu_jax.data.schema import StepShape
from hulu_jax.data.shapes import Use
from hulu_jax.training import stages

EXAMPLE = """example:
  hulu data shapes --config=experiments/finetune_vqa.py:tiny --records=500 --tokens=1024
  hulu data shapes --lengths=/data/prepared --model=hulu-7b --tokens=16384 --rows=64 \
    --lookahead=256 --patience=40000

From an experiment come its model, rows, tokens (of its longest shape), lookahead and patience, as
far as they are not given; --records of its mixture are read to measure them."""
_NAMES = {1: ("all",), 2: ("light", "heavy"), 3: ("light", "middle", "heavy")}


class _Search(NamedTuple):
  """What shapes are sought for; patch_cost: as in `shapes.measure`."""

  tokens: int
  rows: int
  patch_cost: float
  lookahead: int
  patience: int


def run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
  """Measures lengths or loads them, searches, prints."""
  parser.add_argument("--config", metavar="EXPERIMENT.py", help="whose mixture is measured")
  parser.add_argument(
    "--lengths", type=Path, help="folder that hulu prepare wrote, or .npz of lengths"
  )
  parser.add_argument(
    "--compression", help="mode whose lengths of the folder count (default: as prepared)"
  )
  parser.add_argument("--records", type=int, default=2000, help="to measure (default 2000)")
  parser.add_argument("--sample", type=int, default=15_000, help="records a trial plans (15000)")
  parser.add_argument("--model", help="a preset: what a patch costs beside a token")
  for name in ("tokens", "rows", "lookahead", "patience"):
    parser.add_argument(f"--{name}", type=int)
  parser.add_argument("--stage", metavar="NAME", help="of an experiment with several")
  if {"-h", "--help"} & set(argv):
    parser.print_help()
    return 0
  cfg, rest = _experiment.split(argv, parser.prog)
  args = parser.parse_args(rest)
  if cfg is not None:
    cfg = stages.select(cfg, args.stage)
  search = _search(args, cfg)
  if args.lengths is not None:
    found = _stored(args.lengths, args.compression)
  elif cfg is not None:
    found = _measured(cfg, args.records)
  else:
    raise ValueError("needs --config or --lengths")
  options = {"lookahead": search.lookahead, "patience": search.patience}
  sample = min(args.sample, 4 * len(found))
  shapes = shapes_lib.suggest(
    found, search.tokens, search.rows, search.patch_cost, sample=sample, **options
  )
  use = shapes_lib.measure(found, shapes, search.patch_cost, records=sample, **options)
  print(snippet(shapes, use, len(found)))
  return 0


def _search(args: argparse.Namespace, cfg: ConfigDict | None) -> _Search:
  known: dict[str, Any] = {}
  if cfg is not None:
    known = {
      "tokens": max(shape.tokens for shape in cfg.shapes.values()),
      "rows": cfg.rows,
      "lookahead": cfg.data.lookahead,
      "patience": cfg.data.patience,
      "model": cfg.model,
    }
  names = ("tokens", "rows", "lookahead", "patience", "model")
  chosen: dict[str, Any] = {name: known.get(name) for name in names}
  chosen |= {name: vars(args)[name] for name in names if vars(args)[name] is not None}
  if missing := [f"--{name}" for name, value in chosen.items() if value is None]:
    raise ValueError(f"without --config needs {', '.join(missing)}")
  flops = _data_stats.cost(chosen["model"])
  return _Search(
    tokens=chosen["tokens"],
    rows=chosen["rows"],
    patch_cost=flops.patch / flops.token,
    lookahead=chosen["lookahead"],
    patience=chosen["patience"],
  )


def _stored(path: Path, mode: str | None) -> Lengths:
  """Lengths from disk, without those of records that could not be read, which take no room."""
  if not path.is_dir():
    return lengths_lib.load(path)
  stored = manifest_lib.stored(path)
  chosen = mode or stored.made["policy"]["compression"]["mode"]
  if chosen not in stored.arrays.kept:
    known = ", ".join(stored.arrays.kept)
    raise ValueError(f"{path} holds no lengths for compression {chosen!r}; there are: {known}")
  every = stored.arrays.lengths(chosen)
  return lengths_lib.collect(every[n] for n in np.flatnonzero(every.tokens).tolist())


def _measured(cfg: ConfigDict, count: int) -> Lengths:
  """The lengths of the mixture's first records, in its own order; bad ones are left out.

  Prepared lengths are looked up, others measured by building the record.
  """
  datasets = mixture_lib.sources(cfg.data.mixture)
  words = _data_stats.tokenizer(cfg, datasets)
  builders = _data_stats.builders(cfg, words)
  one = builders[0]
  known = stored_lengths.of_all(datasets, one.policy, words, one.budget)
  entries = settings.mixture(cfg.data.mixture)
  order = mixture_lib.order(datasets, entries, cfg.seed)

  def length(ref: Ref) -> Length | None:
    if known is not None:
      found = known[ref.source][ref.record]
      return found if found.tokens else None
    builder = builders[ref.source]
    builder((ref.record, datasets[ref.source][ref.record]))
    return builder.seen[ref.record].length if ref.record in builder.seen else None

  every = (length(order[position]) for position in range(min(count, len(order))))
  found = lengths_lib.collect(one for one in every if one is not None)
  if not len(found):
    raise ValueError(f"none of {count} records could be read; look at hulu data stats")
  return found


def snippet(shapes: Sequence[StepShape], use: Use, records: int) -> str:
  """Python for an experiment: `c.rows` and `c.shapes`, and what was measured as comments."""
  lines = [
    f"# Found on {records} records: of what a step costs, {use.flops:.3f} is used by FLOPs,",
    f"# {use.tokens:.3f} of the tokens, {use.patches:.3f} of the patches; steps per shape "
    f"{list(use.steps)}; {use.refused} records fit no shape.",
    f"c.rows = {shapes[0].rows}",
    "c.shapes = {",
  ]
  for name, shape in zip(_NAMES[len(shapes)], shapes, strict=True):
    lines += [
      f'  "{name}": {{',
      f'    "tokens": {shape.tokens},',
      f'    "supervised": {shape.supervised},',
      f'    "visual": {shape.visual},',
      "    # (slots, patches a slot, channels, merge)",
      f'    "groups": {tuple(tuple(g) for g in shape.groups)},',
      "  },",
    ]
  return "\n".join([*lines, "}"])
