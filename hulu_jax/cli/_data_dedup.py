"""`hulu data dedup`: records that repeat an earlier one, in a report or left out of a copy."""

import argparse
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

from hulu_jax.cli import _data_sets
from hulu_jax.cli._data_sets import Set
from hulu_jax.data import duplicates
from hulu_jax.data import marks
from hulu_jax.data.duplicates import Pair

EXAMPLE = """example:
  hulu data dedup --input=train.jsonl --input=more.jsonl --output=report.json --write=unique.jsonl

SET is a .jsonl or .parquet file, or NAME:FIELD=VALUE,FIELD=VALUE of a dataset."""


def run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
  """Reads, searches, reports."""
  _data_sets.add_options(parser)
  parser.add_argument(
    "--by",
    choices=duplicates.BY,
    default="both",
    help="what must agree: both, for records with media (default); picture or text alone",
  )
  parser.add_argument(
    "--overlap", type=float, default=0.8, help="of n-grams that make two texts one (default 0.8)"
  )
  parser.add_argument(
    "--common",
    type=int,
    default=100,
    help="records that may share an n-gram before it is a template (default 100)",
  )
  args = parser.parse_args(argv)
  rule = duplicates.Rule(by=args.by, bits=args.hamming, overlap=args.overlap, common=args.common)
  sets = _data_sets.opened(args.input, args.data_root, split=None)
  found = (one.marks(args.text_ngram, args.threads) for one in sets)
  store = marks.stored(itertools.chain.from_iterable(found))
  pairs = duplicates.find(store, rule)
  summary = _summary(sets, pairs, store.bytes / max(len(store), 1))
  starts = _data_sets.places(sets)
  if args.write:
    gone: list[set[int]] = [set() for _ in sets]
    for pair in pairs:
      own = _data_sets.place(starts, pair.dropped)
      gone[own.set].add(own.record)
    summary["written"] = _data_sets.write_kept(args.write, sets, gone, args.data_root)
  if args.output:
    options = {**dataclasses.asdict(rule), "text_ngram": args.text_ngram}
    named = _named(sets, pairs, starts, _data_sets.Namer(args.show_text))
    _data_sets.write_report(args.output, {"rule": options, **summary, "pairs": named})
  _data_sets.show(summary)
  return 0


def _summary(sets: Sequence[Set], pairs: Sequence[Pair], size: float) -> dict[str, Any]:
  counts = {
    "duplicates": len(pairs),
    "equal": sum(p.text in (1.0, None) and (p.exact or p.bits is None) for p in pairs),
    "near text": sum(p.text is not None and p.text < 1 for p in pairs),
    "near media": sum(p.bits is not None and not p.exact for p in pairs),
  }
  return {**_data_sets.described(sets), "bytes_per_record": round(size, 1), "counts": counts}


def _named(
  sets: Sequence[Set], pairs: Sequence[Pair], starts: Sequence[int], namer: _data_sets.Namer
) -> list[dict[str, Any]]:
  rows = []
  for pair in pairs:
    kept, dropped = (_data_sets.place(starts, n) for n in (pair.kept, pair.dropped))
    rows.append(
      {
        "kept": namer(sets[kept.set], kept.record),
        "dropped": namer(sets[dropped.set], dropped.record),
        **_data_sets.evidence(pair.text, pair.bits, pair.exact),
      }
    )
  return rows
