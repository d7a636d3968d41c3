"""What a stage reads: its datasets, what decodes them, and the iterator of packed batches."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from pathlib import Path
from typing import Any

import grain
from ml_collections import ConfigDict

from hulu_jax import media
from hulu_jax.data import pipeline
from hulu_jax.data import settings
from hulu_jax.data import stored_lengths
from hulu_jax.data.cache import Cache
from hulu_jax.data.examples import Builder
from hulu_jax.data.readers import Readers
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.media.types import Media
from hulu_jax.training import processes
from hulu_jax.training.build import Program

BAD_RECORDS = "bad_records.jsonl"


@contextlib.contextmanager
def decoding(cfg: ConfigDict) -> Iterator[Callable[..., Media]]:
  """What reads media: in the threads themselves, or with a time-out in a process for each."""
  if cfg.timeout is None:
    yield media.read
    return
  with Readers(cfg.threads, cfg.timeout) as readers:
    yield readers.read


def iterator(
  cfg: ConfigDict,
  program: Program,
  datasets: Sequence[Any],
  tokenizer: Tokenizer,
  workdir: Path,
  shard: tuple[int, int],
  read: Callable[..., Media],
) -> grain.DatasetIterator:
  """Batches of this process's rows.

  cfg: of a stage; datasets: of its mixture; shard: (number, of how many); read: as `media.read`.
  """
  options = pipeline.Options(
    lookahead=cfg.data.lookahead,
    patience=cfg.data.patience,
    threads=cfg.data.threads,
    prefetch=cfg.data.prefetch,
    max_bad=cfg.data.max_bad,
    seed=cfg.seed,
    listing=workdir / processes.own_file(BAD_RECORDS),
  )

  data = pipeline.Data(
    mixture=settings.mixture(cfg.data.mixture),
    datasets=datasets,
    builders=builders(cfg, program, len(datasets), tokenizer, read),
    lengths=stored_lengths.of_all(datasets, program.policy, tokenizer, settings.budget(cfg)),
  )
  return pipeline.train_iterator(data, program.shapes, shard, options)


def builders(
  cfg: ConfigDict,
  program: Program,
  datasets: int,
  tokenizer: Tokenizer,
  read: Callable[..., Media],
) -> list[Builder]:
  """What makes examples of the records of so many datasets, by their number.

  cfg: of a stage; read: as `decoding` gives it.
  """
  cache = Cache(Path(cfg.data.cache), cfg.data.cache_bytes) if cfg.data.cache else None
  return [
    Builder(
      tokenizer=tokenizer,
      policy=program.policy,
      root=Path(cfg.data.root),
      source=source,
      reader=read,
      budget=settings.budget(cfg),
      cache=cache,
    )
    for source in range(datasets)
  ]
