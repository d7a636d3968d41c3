"""Saving and restoring a run: parameters, optimizer and data iterator together, by Orbax.

A step holds {"step", "params", "opt"} and the iterator's state, one file per process.  Parameters
are stored whole, whatever part of them trains, so that a reader (`weights.checkpoint`) needs the
architecture and nothing else.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any

from etils import epath
import grain
import jax
import orbax.checkpoint as ocp

from hulu_jax.core import tree
from hulu_jax.data import states
from hulu_jax.training.state import TrainState
from hulu_jax.weights import checkpoint as stored


class Checkpoints:
  """The checkpoints of one run.  Saves are asynchronous; leaving the `with` block awaits them."""

  def __init__(self, workdir: Path, *, keep: int):
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      # Deletion renames first: a kill in the middle never leaves half a step in the list.
      todelete_subdir="deleting",
      cleanup_tmp_directories=True,
    )
    self._manager = ocp.CheckpointManager(stored.folder(workdir), options=options)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception: Any) -> None:
    self._manager.wait_until_finished()
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
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(_stored(state)), data=_SaveData(data.get_state())
    )
    self._manager.save(step, args=items)

  def restore(
    self, step: int, like: TrainState, data: grain.DatasetIterator, shard: tuple[int, int]
  ) -> TrainState:
    """The state of `step`, placed as `like` (shapes with shardings); sets the iterator too.

    shard: (number, of how many) that `data` reads, whatever it was when the step was saved.

    Raises:
      ValueError: a checkpoint of another architecture, or data that are not those of the run.
    """
    expected = _stored(like)
    stored.check_shapes(stored.folder(self._manager.directory.parent), step, expected["params"])
    # The data first: they are quickly refused.
    places = self._manager.restore(step, args=ocp.args.Composite(data=_RestoreData()))["data"]
    data.set_state(states.pick(places, shard))
    items = ocp.args.Composite(state=ocp.args.StandardRestore(expected))
    got = self._manager.restore(step, args=items)["state"]
    trains = jax.tree.map(lambda x: x is not None, like.trainable, is_leaf=lambda x: x is None)
    return TrainState(
      step=got["step"],
      trainable=jax.tree.map(lambda t, x: x if t else None, trains, got["params"]),
      frozen=jax.tree.map(lambda t, x: None if t else x, trains, got["params"]),
      opt=got["opt"],
    )


def _stored(state: TrainState) -> dict[str, Any]:
  params = tree.merge(state.trainable, state.frozen)
  return {"step": state.step, "params": params, "opt": state.opt}


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
