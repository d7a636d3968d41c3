"""The training loop.  Read `train` to know what a run does, in order."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import json
from pathlib import Path
from typing import Any

import grain
import jax
from ml_collections import ConfigDict

from hulu_jax import media
from hulu_jax.core import sharding
from hulu_jax.data import mixture
from hulu_jax.data import pipeline
from hulu_jax.data import settings
from hulu_jax.data import stored_lengths
from hulu_jax.data.cache import Cache
from hulu_jax.data.examples import Builder
from hulu_jax.data.pipeline import Packed
from hulu_jax.data.readers import Readers
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.media.types import Media
from hulu_jax.training import build as build_lib
from hulu_jax.training import metrics as metrics_lib
from hulu_jax.training import processes
from hulu_jax.training import tokenizers
from hulu_jax.training.build import Program
from hulu_jax.training.checkpoint import Checkpoints
from hulu_jax.training.state import TrainState
from hulu_jax.weights import checkpoint as stored
from hulu_jax.weights import load as weights_load

BAD_RECORDS = "bad_records.jsonl"

Report = Callable[[int, Mapping[str, float]], None]
Watch = Callable[[int, Packed], None]


def train(
  cfg: ConfigDict, workdir: Path, report: Report, watch: Watch = lambda step, packed: None
) -> TrainState:
  """Runs `cfg` to its last step, resuming from `workdir` if it holds a checkpoint.

  Several processes call it alike, with one `workdir` that all of them see.

  report: gets (step, scalars) every `cfg.report_every` steps, one step late; first process only.
  watch: gets (step, this process's rows) before every step.
  """
  program = build_lib.build(cfg, platform=jax.default_backend())
  mesh = sharding.make_mesh(cfg.mesh)
  program.check(mesh)
  datasets = mixture.sources(cfg.data.mixture)
  words = tokenizers.prepare(cfg, program.config.decoder.vocab, datasets, workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  rows, shard = sharding.batch_sharding(mesh), sharding.data_shards(mesh)

  with (
    jax.set_mesh(mesh),
    _reporting(cfg, workdir, report) as finish,
    Checkpoints(workdir, keep=cfg.checkpoint.keep, adapters=program.adapters) as checkpoints,
    _decoding(cfg.data) as read,  # closed after those who read
    contextlib.closing(_iterator(cfg, program, datasets, words, workdir, shard, read)) as data,
  ):
    _agree(cfg, words, data)
    state = _first_state(cfg, program, mesh, checkpoints, data)
    if processes.is_first():
      _describe(program, words, workdir)
    step_fns = [jax.jit(step, donate_argnames="state") for step in program.steps]

    pending = None
    # Order matters: batch, step, report (of the step before), save.
    for step in range(int(state.step) + 1, cfg.steps + 1):
      packed = next(data, None)
      if packed is None:
        break
      watch(step, packed)
      state, metrics = step_fns[packed.shape](state, build_lib.to_global(packed.batch, rows))
      if pending:
        finish(*pending)  # one step late, so that the device never waits for the host
      pending = (step, metrics, packed.info)
      if step % cfg.checkpoint.every == 0 or step == cfg.steps:
        checkpoints.save(step, state, data)
    if pending:
      finish(*pending)
    if int(state.step) < cfg.steps:
      raise _ended(state, cfg, checkpoints, data)
  return state


def _ended(
  state: TrainState, cfg: ConfigDict, checkpoints: Checkpoints, data: grain.DatasetIterator
) -> ValueError:
  """Saves what was learned; the schedule was made for more steps, so this is an error."""
  done = int(state.step)
  checkpoints.wait()
  if done and checkpoints.latest != done:
    checkpoints.save(done, state, data)
  return ValueError(
    f"the data ended after {done} steps, config.steps = {cfg.steps}: set steps to {done}, or leave "
    "`epochs` out of one entry of data.mixture"
  )


@contextlib.contextmanager
def _reporting(
  cfg: ConfigDict, workdir: Path, report: Report
) -> Iterator[Callable[[int, Any, Mapping[str, float]], None]]:
  """What to do with a step's metrics: wait for them, and now and then write and report them."""
  names = [entry["label"] for entry in cfg.data.mixture]

  def wait(step: int, metrics: Any, info: Mapping[str, float]) -> None:
    jax.block_until_ready(metrics)

  if not processes.is_first():
    yield wait
    return

  with metrics_lib.Writer(workdir) as writer:

    def finish(step: int, metrics: Any, info: Mapping[str, float]) -> None:
      wait(step, metrics, info)
      if step % cfg.report_every == 0 or step == cfg.steps:
        scalars = metrics_lib.scalars(metrics, names) | dict(info)
        writer.write(step, scalars)
        report(step, scalars)

    yield finish


def _agree(cfg: ConfigDict, words: Tokenizer, data: grain.DatasetIterator) -> None:
  """Refuses a run whose processes would plan different steps."""
  processes.agree(
    {
      "the experiment": cfg.to_json_best_effort(sort_keys=True),
      "the tokenizer": stored_lengths.digest(words),
      "the data": json.dumps(data.get_state()["fingerprint"], sort_keys=True),
    }
  )


def _describe(program: Program, words: Tokenizer, workdir: Path) -> None:
  """Tokenizer and architecture, moved in place whole: a kill must not leave half a file."""
  new = workdir / "new"
  new.mkdir(exist_ok=True)
  words.save(new)
  stored.write_description(new, program.config, program.policy, program.adapters)
  for path in new.iterdir():
    path.replace(workdir / path.name)
  new.rmdir()


def _first_state(
  cfg: ConfigDict,
  program: Program,
  mesh: jax.sharding.Mesh,
  checkpoints: Checkpoints,
  data: grain.DatasetIterator,
) -> TrainState:
  """The newest checkpoint, else the weights of `cfg.init_from`, else a fresh draw."""
  if checkpoints.latest is not None:
    like = sharding.concrete(jax.eval_shape(program.init, jax.random.key(cfg.seed)), mesh)
    return checkpoints.restore(checkpoints.latest, like, data, sharding.data_shards(mesh))
  if cfg.init_from:
    source = Path(cfg.init_from)
    if stored.is_run(source):
      params = stored.load_plain(source, program.base, mesh)
    else:
      params = weights_load.load_params(source, program.config, mesh)
    return jax.jit(program.state)(params)
  return jax.jit(program.init)(jax.random.key(cfg.seed))


@contextlib.contextmanager
def _decoding(cfg: ConfigDict) -> Iterator[Callable[..., Media]]:
  """What reads media: in the threads themselves, or with a time-out in a process for each."""
  if cfg.timeout is None:
    yield media.read
    return
  with Readers(cfg.threads, cfg.timeout) as readers:
    yield readers.read


def _iterator(
  cfg: ConfigDict,
  program: Program,
  datasets: Sequence[Any],
  tokenizer: Tokenizer,
  workdir: Path,
  shard: tuple[int, int],
  read: Callable[..., Media],
) -> grain.DatasetIterator:
  options = pipeline.Options(
    lookahead=cfg.data.lookahead,
    patience=cfg.data.patience,
    threads=cfg.data.threads,
    prefetch=cfg.data.prefetch,
    max_bad=cfg.data.max_bad,
    seed=cfg.seed,
    listing=workdir / processes.own_file(BAD_RECORDS),
  )

  budget = settings.budget(cfg)
  cache = Cache(Path(cfg.data.cache), cfg.data.cache_bytes) if cfg.data.cache else None

  def make_builder(source: int) -> Builder:
    return Builder(
      tokenizer=tokenizer,
      policy=program.policy,
      root=Path(cfg.data.root),
      source=source,
      reader=read,
      budget=budget,
      cache=cache,
    )

  data = pipeline.Data(
    mixture=settings.mixture(cfg.data.mixture),
    datasets=datasets,
    builders=[make_builder(number) for number in range(len(datasets))],
    lengths=stored_lengths.of_all(datasets, program.policy, tokenizer, budget),
  )
  return pipeline.train_iterator(data, program.shapes, shard, options)
