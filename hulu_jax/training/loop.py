"""The training loop.  Read `train` to know what a run does, in order."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
from pathlib import Path
from typing import Any

import grain
import jax
from ml_collections import ConfigDict

from hulu_jax.core import sharding
from hulu_jax.data import mixture
from hulu_jax.data import pipeline
from hulu_jax.data.examples import Builder
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.training import build as build_lib
from hulu_jax.training import metrics as metrics_lib
from hulu_jax.training import tokenizers
from hulu_jax.training.build import Program
from hulu_jax.training.checkpoint import Checkpoints
from hulu_jax.training.state import TrainState
from hulu_jax.weights import checkpoint as stored
from hulu_jax.weights import load as weights_load

BAD_RECORDS = "bad_records.jsonl"

Report = Callable[[int, Mapping[str, float]], None]


def train(cfg: ConfigDict, workdir: Path, report: Report) -> TrainState:
  """Runs `cfg` to its last step, resuming from `workdir` if it holds a checkpoint.

  report: gets (step, scalars) every `cfg.report_every` steps, one step late.
  """
  program = build_lib.build(cfg)
  mesh = sharding.make_mesh(cfg.mesh)
  program.check(mesh)
  datasets = mixture.sources(cfg.data.mixture)
  words = tokenizers.prepare(cfg, program.config.decoder.vocab, datasets, workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  rows = sharding.batch_sharding(mesh)

  with (
    jax.set_mesh(mesh),
    metrics_lib.Writer(workdir) as writer,
    Checkpoints(workdir, keep=cfg.checkpoint.keep) as checkpoints,
    contextlib.closing(
      _iterator(cfg, program, datasets, words, workdir, sharding.data_shards(mesh))
    ) as data,
  ):
    state = _first_state(cfg, program, mesh, checkpoints, data)
    words.save(workdir)
    stored.write_description(workdir, program.config, program.policy)
    step_fns = [jax.jit(step, donate_argnames="state") for step in program.steps]
    finish = _reporter(cfg, writer, report)

    pending = None
    # Order matters: batch, step, report (of the step before), save.
    for step in range(int(state.step) + 1, cfg.steps + 1):
      packed = next(data)
      state, metrics = step_fns[packed.shape](state, build_lib.to_global(packed.batch, rows))
      if pending:
        finish(*pending)  # one step late, so that the device never waits for the host
      pending = (step, metrics, packed.info)
      if step % cfg.checkpoint.every == 0 or step == cfg.steps:
        checkpoints.save(step, state, data)
    if pending:
      finish(*pending)
  return state


def _reporter(
  cfg: ConfigDict, writer: metrics_lib.Writer, report: Report
) -> Callable[[int, Any, Mapping[str, float]], None]:
  """What to do with a step's metrics: wait for them, and now and then write and report them."""
  names = [entry["label"] for entry in cfg.data.mixture]

  def finish(step: int, metrics: Any, info: Mapping[str, float]) -> None:
    jax.block_until_ready(metrics)
    if step % cfg.report_every == 0 or step == cfg.steps:
      scalars = metrics_lib.scalars(metrics, names) | dict(info)
      writer.write(step, scalars)
      report(step, scalars)

  return finish


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
    return checkpoints.restore(checkpoints.latest, like, data)
  if cfg.init_from:
    source = Path(cfg.init_from)
    if stored.is_run(source):
      params = stored.load_params(source, program.specs, mesh)
    else:
      params = weights_load.load_params(source, program.config, mesh)
    return jax.jit(program.state)(params)
  return jax.jit(program.init)(jax.random.key(cfg.seed))


def _iterator(
  cfg: ConfigDict,
  program: Program,
  datasets: Sequence[Any],
  tokenizer: Tokenizer,
  workdir: Path,
  shard: tuple[int, int],
) -> grain.DatasetIterator:
  options = pipeline.Options(
    lookahead=cfg.data.lookahead,
    patience=cfg.data.patience,
    threads=cfg.data.threads,
    prefetch=cfg.data.prefetch,
    max_bad=cfg.data.max_bad,
    seed=cfg.seed,
    listing=workdir / BAD_RECORDS,
  )

  def make_builder(source: int) -> Builder:
    root = Path(cfg.data.root)
    return Builder(tokenizer=tokenizer, policy=program.policy, root=root, source=source)

  data = pipeline.Data(
    mixture=[entry.to_dict() for entry in cfg.data.mixture],
    datasets=datasets,
    builders=[make_builder(number) for number in range(len(datasets))],
    lengths=None,
  )
  return pipeline.train_iterator(data, program.shapes, shard, options)
