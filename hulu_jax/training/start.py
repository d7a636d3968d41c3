"""Where a run's first parameters come from: what `cfg.init_from` names, else a fresh draw."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from hulu_jax.training.build import Program
from hulu_jax.training.state import TrainState
from hulu_jax.weights import checkpoint
from hulu_jax.weights import load


def places(cfg: ConfigDict) -> tuple[Path, ...]:
  """The folders and files of `cfg.init_from`, which are written with commas between them."""
  return tuple(Path(place) for place in (cfg.init_from or "").split(",") if place)


def state(cfg: ConfigDict, program: Program, mesh: jax.sharding.Mesh) -> TrainState:
  """The state of step 0: of a run of ours, of a checkpoint or of its parts, or drawn from the seed.

  Call it under `jax.set_mesh(mesh)`.

  Raises:
    FileNotFoundError: a place that is not there.
    ValueError: a checkpoint of another architecture, parts that several places hold, a decoder that
      none holds.
  """
  found = places(cfg)
  for place in found:
    if not place.exists():
      raise FileNotFoundError(
        f"init_from: no {place}; expected a run, a checkpoint, or parts of one with commas between"
      )
  if not found:
    return jax.jit(program.init)(jax.random.key(cfg.seed))
  runs = [place for place in found if checkpoint.is_run(place)]
  if runs and len(found) > 1:
    raise ValueError(f"init_from: {runs[0]} is a run and holds a whole model, so it stands alone")
  if runs:
    params = checkpoint.load_plain(found[0], program.base, mesh)
  else:
    params = load.load_parts(found, program.config, mesh, jax.random.key(cfg.seed))
  return jax.jit(lambda given: program.state(given, 0), donate_argnums=0)(params)
