"""`hulu data decontaminate`: training records that hold what a benchmark asks."""

import argparse
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

from hulu_jax.cli import _data_sets
from hulu_jax.cli._data_sets import Set
from hulu_jax.data import leakage
from hulu_jax.data.leakage import Hit
from hulu_jax.data.marks import Store

EXAMPLE = """example:
  hulu data decontaminate --input=train.jsonl --against=test.jsonl,slake:root=/data/slake \\
    --output=report.json --write=clean.jsonl

A dataset of --against is read in its split `test` unless it says another."""


def run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
  """Reads both sides, searches, reports."""
  _data_sets.add_options(parser)
  parser.add_argument("--against", metavar="SET[,SET...]", action="append", required=True)
  parser.add_argument(
    "--overlap",
    type=float,
    default=0.0,
    help="of a benchmark record's n-grams that make a hit (default 0: one is enough)",
  )
  parser.add_argument(
    "--common",
    type=float,
    default=0.05,
    help="fraction of the benchmark that may share an n-gram before it is a template (0.05)",
  )
  args = parser.parse_args(argv)
  rule = leakage.Rule(bits=args.hamming, overlap=args.overlap, common=args.common)
  sets = _data_sets.opened(args.input, args.data_root, split=None)
  tests = _data_sets.opened(args.against, args.data_root, split="test")
  benchmarks = [leakage.Benchmark(t.marks(args.text_ngram, args.threads), rule) for t in tests]
  hits, size = _search(sets, benchmarks, args)
  gone = [{h.record for found in own for h in found} for own in hits]
  summary = _summary(sets, tests, hits, gone) | {"bytes_per_record": round(size, 1)}
  summary["templates"] = {t.name: b.templates for t, b in zip(tests, benchmarks, strict=True)}
  if args.write:
    summary["written"] = _data_sets.write_kept(args.write, sets, gone, args.data_root)
  if args.output:
    options = {**dataclasses.asdict(rule), "text_ngram": args.text_ngram}
    named = _named(sets, tests, hits, _data_sets.Namer(args.show_text))
    _data_sets.write_report(args.output, {"rule": options, **summary, "hits": named})
  _data_sets.show(summary)
  return 0


def _search(
  sets: Sequence[Set], benchmarks: Sequence[leakage.Benchmark], args: argparse.Namespace
) -> tuple[list[list[list[Hit]]], float]:
  """Hits by set and benchmark, and the bytes that a training record took."""
  hits, stored, records = [], 0, 0
  for one in sets:
    store = Store(keep_text=False)
    own: list[list[Hit]] = [[] for _ in benchmarks]
    for record, marks in enumerate(one.marks(args.text_ngram, args.threads)):
      store.add(marks)
      for found, benchmark in zip(own, benchmarks, strict=True):
        hit = benchmark.text(record, marks)
        found.extend([hit] if hit else [])
    for found, benchmark in zip(own, benchmarks, strict=True):
      found.extend(benchmark.media(store))
      found.sort(key=lambda hit: hit.record)
    hits.append(own)
    stored, records = stored + store.bytes, records + len(store)
  return hits, stored / max(records, 1)


def _summary(
  sets: Sequence[Set], tests: Sequence[Set], hits: list[list[list[Hit]]], gone: list[set[int]]
) -> dict[str, Any]:
  every = list(itertools.chain.from_iterable(found for own in hits for found in own))
  counts = {
    "records that leak": sum(map(len, gone)),
    "by text": sum(h.text is not None for h in every),
    "by media": sum(h.bits is not None for h in every),
    "by equal media": sum(h.exact for h in every),
  }
  by_benchmark = {
    t.name: sum(len({h.record for h in own[k]}) for own in hits) for k, t in enumerate(tests)
  }
  against = _data_sets.described(tests)
  return {
    **_data_sets.described(sets),
    "against": against["sets"],
    "counts": counts,
    "by_benchmark": by_benchmark,
  }


def _named(
  sets: Sequence[Set], tests: Sequence[Set], hits: list[list[list[Hit]]], namer: _data_sets.Namer
) -> list[dict[str, Any]]:
  return [
    {
      "record": namer(sets[s], hit.record),
      "benchmark": namer(tests[t], hit.other),
      **_data_sets.evidence(hit.text, hit.bits, hit.exact),
    }
    for s, own in enumerate(hits)
    for t, found in enumerate(own)
    for hit in found
  ]
