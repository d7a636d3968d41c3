"""The training loop.  Read `train` and `_steps` to know what a run does, in order."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
from ml_collections import ConfigDict

from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.data import mixture
from hulu_jax.data import stored_lengths
from hulu_jax.data.pipeline import Packed
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.training import build as build_lib
from hulu_jax.training import epochs
from hulu_jax.training import inputs
from hulu_jax.training import processes
from hulu_jax.training import profile
from hulu_jax.training import stages as stages_lib
from hulu_jax.training import start
from hulu_jax.training import tokenizers
from hulu_jax.training import trackers
from hulu_jax.training.build import Program
from hulu_jax.training.checkpoint import Checkpoints
from hulu_jax.training.checkpoint import Settings
from hulu_jax.training.reports import Ended
from hulu_jax.training.reports import Report
from hulu_jax.training.reports import Reports
from hulu_jax.training.stages import Stage
from hulu_jax.training.state import TrainState
from hulu_jax.training.writers import Writers
from hulu_jax.weights import checkpoint as stored

Watch = Callable[[int, Packed], None]
# What an evaluation of a state found, by name.
Evaluate = Callable[[TrainState], Mapping[str, float]]


class Setting(NamedTuple):
  """What an evaluation is made for: a stage, and what it runs on."""

  stage: Stage
  program: Program
  words: Tokenizer
  mesh: jax.sharding.Mesh


class _Run(NamedTuple):
  """What all stages of a run share.  writers: of the first process, None on the others."""

  workdir: Path
  mesh: jax.sharding.Mesh
  words: Tokenizer
  checkpoints: Checkpoints
  profile: profile.Window
  writers: Writers | None
  watch: Watch
  evaluation: Callable[[Setting], Evaluate] | None


def train(
  cfg: ConfigDict,
  workdir: Path,
  report: Callable[[Report], None],
  watch: Watch = lambda step, packed: None,
  evaluation: Callable[[Setting], Evaluate] | None = None,
) -> TrainState:
  """Runs `cfg`, stage by stage, to its last step; goes on where a checkpoint in `workdir` is.

  Several processes call it alike, with one `workdir` that all of them see.

  report: told every `cfg.report_every` steps, one step late; first process only.
  watch: gets (step, this process's rows) before every step.
  evaluation: makes, for a stage, what is asked of its state every `cfg.evaluation.every` steps and
  at its end; every process calls it alike.

  Raises:
    ValueError: an experiment, a mesh, data or a checkpoint that do not fit each other; data that
      end too early; a tracker that is not installed.
  """
  cfg = epochs.counted(cfg, workdir)
  stages = stages_lib.plan(cfg)
  trackers.check(cfg.trackers)
  programs = build_lib.of_stages(stages, jax.default_backend())
  adapters = programs[0].adapters
  if adapters is not None and len(stages) > 1:
    raise ValueError(
      f"config.peft with {len(stages)} stages: what adapters keep frozen is stored once, so a run "
      "with adapters has one stage; begin it from the run of the stages before (init_from)"
    )
  mesh = sharding.make_mesh(cfg.mesh)
  for program in programs:
    program.check(mesh)
  datasets = [mixture.sources(stage.cfg.data.mixture) for stage in stages]
  everything = [dataset for own in datasets for dataset in own]
  words = tokenizers.prepare(cfg, programs[0].config.decoder.vocab, everything, workdir)
  workdir.mkdir(parents=True, exist_ok=True)

  with (
    jax.set_mesh(mesh),
    _writing(workdir, cfg, report) as writers,
    profile.Window(cfg.profile, workdir) as window,
    Checkpoints(workdir, Settings(**cfg.checkpoint.to_dict()), adapters) as checkpoints,
  ):
    run = _Run(workdir, mesh, words, checkpoints, window, writers, watch, evaluation)
    latest, state = checkpoints.latest or 0, None
    for stage, program, own in zip(stages, programs, datasets, strict=True):
      if latest >= stage.last and stage is not stages[-1]:
        continue
      with _reading(run, stage, program, own) as data:
        state = _first_state(run, stage, program, data, state)
        state = _steps(run, stage, program, data, state)
  assert state is not None
  return state


def _steps(
  run: _Run, stage: Stage, program: Program, data: grain.DatasetIterator, state: TrainState
) -> TrainState:
  """One stage, from where `state` is to its last step."""
  rows, checkpoints = sharding.batch_sharding(run.mesh), run.checkpoints
  step_fns = [jax.jit(step, donate_argnames="state") for step in program.steps]
  write = None if run.writers is None else run.writers.write
  reports = Reports(stage, program, state, run.mesh, write)
  evaluate = _evaluation(run, stage, program) if int(state.step) < stage.last else None
  if run.writers is not None:
    # Now that there is a state, nothing is refused any more.
    _describe(program, run.words, run.workdir)
    run.writers.begin(stage, program, run.mesh, data.get_state()["fingerprint"])

  pending = None
  # Order matters: batch, step, report (of the step before), evaluate, save.
  for step in range(int(state.step) + 1, stage.last + 1):
    packed = next(data, None)
    if packed is None:
      break
    run.watch(step, packed)
    checkpoints.check()
    run.profile.before(step)
    state, metrics = step_fns[packed.shape](state, build_lib.to_global(packed.batch, rows))
    counts = processes.total(packed.counts, run.mesh)
    if pending:
      reports.finish(pending)  # one step late, so that the device never waits for the host
    pending = Ended(step, packed.shape, metrics, counts)
    run.profile.after(step, metrics)
    if evaluate and (step % stage.cfg.evaluation.every == 0 or step == stage.last):
      reports.finish(pending, functools.partial(evaluate, state))
      pending = None
    if step % stage.cfg.checkpoint.every == 0 or step == stage.last:
      checkpoints.save(step, state, data)
  if pending:
    reports.finish(pending)
  if int(state.step) < stage.last:
    raise _ended(state, stage, checkpoints, data)
  return state


def _ended(
  state: TrainState, stage: Stage, checkpoints: Checkpoints, data: grain.DatasetIterator
) -> ValueError:
  """Saves what was learned; the schedule was made for more steps, so this is an error."""
  done = int(state.step)
  checkpoints.wait()
  if done and checkpoints.latest != done:
    checkpoints.save(done, state, data)
  own = done - stage.first
  return ValueError(
    f"the data ended after {own} steps of stage {stage.name!r}, whose steps = {stage.cfg.steps}: "
    f"set steps to {own}, or leave `epochs` out of one entry of data.mixture"
  )


@contextlib.contextmanager
def _writing(
  workdir: Path, cfg: ConfigDict, report: Callable[[Report], None]
) -> Iterator[Writers | None]:
  if not processes.is_first():
    yield None
    return
  with Writers(workdir, cfg, report) as writers:
    yield writers


def _evaluation(run: _Run, stage: Stage, program: Program) -> Evaluate | None:
  """What the experiment asks for, if it does."""
  if stage.cfg.evaluation is None:
    return None
  if run.evaluation is None:
    raise ValueError(
      "config.evaluation asks for one, but `train` was given none to make; see hulu train"
    )
  return run.evaluation(Setting(stage, program, run.words, run.mesh))


@contextlib.contextmanager
def _reading(
  run: _Run, stage: Stage, program: Program, datasets: Sequence[Any]
) -> Iterator[grain.DatasetIterator]:
  """The stage's batches, on which all processes agree."""
  shard = sharding.data_shards(run.mesh)
  with (
    inputs.decoding(stage.cfg.data) as read,  # closed after those who read
    contextlib.closing(
      inputs.iterator(stage.cfg, program, datasets, run.words, run.workdir, shard, read)
    ) as data,
  ):
    processes.agree(
      {
        "the experiment": stage.cfg.to_json_best_effort(sort_keys=True),
        "the tokenizer": stored_lengths.digest(run.words),
        "the data": json.dumps(data.get_state()["fingerprint"], sort_keys=True),
      }
    )
    yield data


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
  run: _Run,
  stage: Stage,
  program: Program,
  data: grain.DatasetIterator,
  before: TrainState | None,
) -> TrainState:
  """The stage's newest checkpoint, else the parameters with which the stage before ended, else the
  run's first.

  before: the state of the stage before, None where this process did not run it.
  """
  cfg, latest = stage.cfg, run.checkpoints.latest
  if before is None and latest is not None and latest > stage.first:
    like = sharding.concrete(jax.eval_shape(program.init, jax.random.key(cfg.seed)), run.mesh)
    return run.checkpoints.restore(latest, like, data, sharding.data_shards(run.mesh))
  if before is not None:
    params = tree.merge(before.trainable, before.frozen)
  elif latest is not None:
    params = stored.load_plain(run.workdir, program.base, run.mesh)
  else:
    return start.state(cfg, program, run.mesh)
  return jax.jit(lambda given: program.state(given, stage.first), donate_argnums=0)(params)
