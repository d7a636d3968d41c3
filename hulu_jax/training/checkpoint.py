"""Saving and restoring a run: parameters, optimizer and data iterator together, by Orbax.

A step holds {"step", "params", "opt"}, "ema" where the run keeps an average, and the iterator's
state, one file per process; its MANIFEST.json has the hash of every file.  Parameters are stored
whole, whatever part of them trains, so that a reader (`weights.checkpoint`) needs the architecture
and nothing else.  With adapters the steps hold what trains, and the rest, which may be a thousand
times as much, is stored once beside them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath
import grain
import jax
import orbax.checkpoint as ocp

from hulu_jax import peft
from hulu_jax.core import tree
from hulu_jax.data import states
from hulu_jax.training import processes
from hulu_jax.training.proof import Prover
from hulu_jax.training.state import TrainState
from hulu_jax.weights import checkpoint as stored
from hulu_jax.weights import manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """every: steps between saves; keep: how many of the newest stay; keep_every: of the older those
  that it divides stay too, None: none; strict: whether a damaged step ends the run instead of
  sending it back to the newest whole one."""

  every: int
  keep: int
  keep_every: int | None
  strict: bool


class Checkpoints:
  """The checkpoints of one run.  Saves are asynchronous; leaving the `with` block awaits them and
  their manifests.

  adapters: of the run; where there are any, what does not train is stored once.

  Raises:
    ValueError: damaged steps, if the settings are strict.
  """

  def __init__(self, workdir: Path, settings: Settings, adapters: peft.Adapters | None):
    self._workdir, self._adapters = workdir, adapters
    steps = stored.folder(workdir)
    error = _set_aside(workdir, strict=settings.strict) if processes.is_first() else None
    processes.together(error)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=settings.keep,
      keep_period=settings.keep_every,
      # Deletion renames first: a kill in the middle never leaves half a step in the list.
      todelete_subdir="deleting",
      cleanup_tmp_directories=True,
    )
    self._manager = ocp.CheckpointManager(steps, options=options)
    self._prover = Prover(steps)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception: Any) -> None:
    try:
      self._manager.wait_until_finished()
    finally:
      self._prover.close()
      self._manager.close()

  @property
  def latest(self) -> int | None:
    """The newest step saved, None if there is none."""
    return self._manager.latest_step()

  def wait(self) -> None:
    """Returns when no save is under way."""
    self._manager.wait_until_finished()

  def save(self, step: int, state: TrainState, data: grain.DatasetIterator) -> None:
    """Starts a save of both; an error of the save before is raised here."""
    self._manager.check_for_errors()
    if self._adapters is not None and self.latest is None:
      self._save_base(state.frozen)
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(self._stored(state)), data=_SaveData(data.get_state())
    )
    self._manager.save(step, args=items)
    self._prover.submit(step)

  def check(self) -> None:
    """Raises the error of a save that failed since the last look, e.g. of a full disk."""
    self._manager.check_for_errors()

  def restore(
    self, step: int, like: TrainState, data: grain.DatasetIterator, shard: tuple[int, int]
  ) -> TrainState:
    """The state of `step`, placed as `like` (shapes with shardings); sets the iterator too.

    shard: (number, of how many) that `data` reads, whatever it was when the step was saved.

    Raises:
      ValueError: a checkpoint of another architecture, with other adapters, or of a run that
        trained other parameters or kept another average; or data that are not those of the run.
    """
    before = stored.read_adapters(self._workdir)
    if before != self._adapters:
      raise ValueError(f"{self._workdir} was trained with peft = {before}, not {self._adapters}")
    expected = self._stored(like)
    steps = stored.folder(self._workdir)
    stored.check_shapes(steps, step, tree.merge(like.trainable, like.frozen))
    _check_kept(stored.held(steps / str(step) / "state"), expected, self._workdir)
    # The data first: they are quickly refused.
    places = self._manager.restore(step, args=ocp.args.Composite(data=_RestoreData()))["data"]
    data.set_state(states.pick(places, shard))
    items = ocp.args.Composite(state=ocp.args.StandardRestore(expected))
    got = self._manager.restore(step, args=items)["state"]
    trainable, frozen = got["params"], got["params"]
    if self._adapters is not None:
      with ocp.StandardCheckpointer() as reader:
        frozen = reader.restore(stored.base_folder(self._workdir), {"params": like.frozen})[
          "params"
        ]
    return TrainState(
      step=got["step"],
      trainable=_only(like.trainable, trainable),
      frozen=_only(like.frozen, frozen),
      opt=got["opt"],
      ema=got.get(stored.AVERAGE),
    )

  def _stored(self, state: TrainState) -> dict[str, Any]:
    whole = self._adapters is None
    params = tree.merge(state.trainable, state.frozen) if whole else state.trainable
    kept = {"step": state.step, "params": params, "opt": state.opt}
    return kept if state.ema is None else kept | {stored.AVERAGE: state.ema}

  def _save_base(self, frozen: Any) -> None:
    """Returns when it is stored: no step may be there without it."""
    with ocp.StandardCheckpointer() as writer:
      # What is there was left by a run that was killed before its first step was saved.
      writer.save(stored.base_folder(self._workdir), {"params": frozen}, force=True)
    if processes.is_first():
      base = stored.base_folder(self._workdir)
      manifest.write(base, manifest.digests(base, manifest.names(base)))


def _set_aside(workdir: Path, *, strict: bool) -> ValueError | None:
  """Moves steps that are damaged out of the way, so that the run goes on from one that is whole.

  Returns why it does not: with `strict`, any damage; always, damage to what adapters stand on.
  """
  steps = stored.folder(workdir)
  try:
    stored.check_base(workdir)
  except ValueError as error:
    return error
  found = manifest.newest(steps)
  said = stored.skipped(found)
  if said and strict:
    return ValueError(
      f"{steps}: {'; '.join(said)}; checkpoint.strict = False goes on from "
      f"{'the start' if found.step is None else f'step {found.step}'}"
    )
  for step, line in zip(found.skipped, said, strict=True):
    aside = workdir / "damaged" / str(step)
    aside.parent.mkdir(exist_ok=True)
    while aside.exists():
      aside = aside.with_name(f"{aside.name}-again")
    (steps / str(step)).rename(aside)
    logging.warning("%s; moved to %s", line, aside)
  if found.step is not None and not found.hashed:
    logging.warning("step %d has no manifest: nothing says whether it is whole", found.step)
  return None


def _check_kept(there: set[str], expected: dict[str, Any], workdir: Path) -> None:
  """Raises where a step's moments or average are not those of this experiment's parameters."""
  here = {tree.path_name(path) for path, _ in jax.tree.leaves_with_path(expected)}
  for part, key in (("opt", "trainable"), (stored.AVERAGE, "ema")):
    prefix = f"{part}/"
    more = sorted(n for n in there - here if n.startswith(prefix))
    less = sorted(n for n in here - there if n.startswith(prefix))
    if more or less:
      said = f"has {more[0]}" if more else f"has no {less[0]}"
      raise ValueError(
        f"the checkpoint in {workdir} {said}, unlike this experiment: set {key} as it was, or "
        "begin another run from its weights (init_from)"
      )


def _only(like: Any, params: Any) -> Any:
  """The leaves of `params` that `like` has, None for the others."""
  return jax.tree.map(
    lambda here, x: None if here is None else x, like, params, is_leaf=lambda x: x is None
  )


class _DataHandler(ocp.CheckpointHandler):
  """Iterator states as JSON: each process writes its own, each reads all of them."""

  def save(self, directory: epath.Path, args: "_SaveData") -> None:
    (directory / f"process-{jax.process_index()}.json").write_text(json.dumps(args.state))

  def restore(self, directory: epath.Path, args: "_RestoreData") -> Sequence[Mapping[str, Any]]:
    found = sorted(directory.glob("process-*.json"))
    return [json.loads(path.read_text()) for path in found]


@ocp.args.register_with_handler(_DataHandler, for_save=True)
@dataclasses.dataclass
class _SaveData(ocp.args.CheckpointArgs):
  state: Mapping[str, Any]


@ocp.args.register_with_handler(_DataHandler, for_restore=True)
@dataclasses.dataclass
class _RestoreData(ocp.args.CheckpointArgs):
  pass
