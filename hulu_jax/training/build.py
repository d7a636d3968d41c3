"""From an experiment's config to the pure parts of a run: shapes, parameters, init and step."""

from collections.abc import Callable
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from hulu_jax import peft
from hulu_jax.core import params as P
from hulu_jax.core import sharding as sharding_lib
from hulu_jax.core import tree
from hulu_jax.data import packing
from hulu_jax.data import settings
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import StepShape
from hulu_jax.data.vision import Policy
from hulu_jax.kernels import choice
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute
from hulu_jax.training import keeping
from hulu_jax.training import optimizer as optimizer_lib
from hulu_jax.training import step as step_lib
from hulu_jax.training import weighting
from hulu_jax.training.keeping import Dtypes
from hulu_jax.training.keeping import Keeping
from hulu_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """Everything about a run that needs neither devices nor data.

  shapes: the lightest first, all with the same rows.  base: of the model as published; specs: of
  what runs, which differ where `adapters` are.  state: (parameters of `base`, steps done) ->
  TrainState; steps: one per shape, (state, batch) -> (state, metrics).
  """

  config: HuluConfig
  policy: Policy
  shapes: tuple[StepShape, ...]
  base: P.Specs
  adapters: peft.Adapters | None
  specs: P.Specs
  compute: Compute
  accumulate: int
  state: Callable[[P.Params, int], TrainState]
  steps: tuple[Callable[[TrainState, Batch], tuple[TrainState, step_lib.Metrics]], ...]

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state; call it under `jax.jit` and `jax.set_mesh`."""
    return self.state(P.initialize(key, self.base), 0)

  def check(self, mesh: jax.sharding.Mesh) -> None:
    """Raises where the mesh does not divide the parameters or the batch.

    Raises:
      ValueError: which parameter or key, and into how many parts it would fall.
    """
    sharding_lib.shardings(self.specs, mesh)
    fewest = sharding_lib.fewest_rows(mesh)
    rows = self.shapes[0].rows
    if rows % (fewest * self.accumulate):
      raise ValueError(
        f"rows = {rows}; this mesh needs a multiple of {fewest}, times accumulate = "
        f"{self.accumulate}"
      )

  def abstract_batch(self, shape: int, sharding: jax.sharding.Sharding) -> Batch:
    """A batch's shapes, for tracing and compiling step `shape` without data."""
    like = packing.empty_batch(self.shapes[shape]._replace(rows=1))
    rows = self.shapes[shape].rows
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=sharding), like
    )


def build(cfg: ConfigDict, *, platform: str) -> Program:
  """Reads an experiment; platform: where it will run, as JAX calls it ("cpu", "tpu", "gpu").

  Raises:
    ValueError: numbers that cannot be meant; the message names the key.
  """
  config = presets.get(cfg.model)
  media = policy(cfg.policy)
  if media.patch != config.vision.patch:
    raise ValueError(f"policy.patch = {media.patch}, {cfg.model} has {config.vision.patch}")
  shapes = step_shapes(cfg.shapes, cfg.rows)
  longest = max(shape.tokens for shape in shapes)
  if longest > config.decoder.max_positions:
    raise ValueError(
      f"a shape of {longest} tokens exceeds the {config.decoder.max_positions} positions of "
      f"{cfg.model}"
    )
  base = hulu.specs(config)
  adapters = peft.named(cfg.peft.to_dict()) if cfg.peft else None
  specs = base if adapters is None else adapters.specs(base)
  trains = _trains(cfg.trainable, base, adapters)
  compute = _compute(cfg.compute, platform)
  rates = optimizer_lib.Settings(**cfg.optimizer.to_dict())
  transform = optimizer_lib.make(rates, cfg.steps)
  keep = Keeping(dtypes=Dtypes(**cfg.dtypes.to_dict()), ema=cfg.ema, seed=cfg.seed)
  weigh = weighting.make(cfg.loss_weighting, weighting.factors(cfg.data.mixture))

  def state(params: P.Params, step: int) -> TrainState:
    if adapters is not None:
      params = adapters.add(jax.random.key(cfg.seed), params, base)
    trainable, frozen = tree.partition(params, trains)
    return TrainState(
      step=jnp.asarray(step, jnp.int32),
      trainable=keeping.nearest(trainable, keep.dtypes.params),
      frozen=keeping.nearest(frozen, keep.dtypes.frozen),
      opt=keeping.nearest(transform.init(trainable), keep.dtypes.moments),
      ema=None if keep.ema is None else keeping.wide(trainable),
    )

  def step(shape: StepShape) -> Callable[[TrainState, Batch], tuple[TrainState, step_lib.Metrics]]:
    merges = tuple(g.merge for g in shape.groups)
    loss = step_lib.make_loss(config, merges, compute, len(cfg.data.mixture), cfg.z_loss)
    own = step_lib.make_train_step(loss, transform, cfg.accumulate, keep)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, step_lib.Metrics]:
      return own(state, weigh(batch))

    return train_step

  return Program(
    config=config,
    policy=media,
    shapes=shapes,
    base=base,
    adapters=adapters,
    specs=specs,
    compute=compute,
    accumulate=cfg.accumulate,
    state=state,
    steps=tuple(step(shape) for shape in shapes),
  )


def _compute(cfg: ConfigDict, platform: str) -> Compute:
  if cfg.dtype not in keeping.DTYPES:
    raise ValueError(f"compute.dtype = {cfg.dtype!r}; there are: {', '.join(keeping.DTYPES)}")
  return Compute(
    dtype=jnp.dtype(cfg.dtype),
    vision_pass=cfg.vision_pass,
    loss_chunk=cfg.loss_chunk,
    vision_remat=cfg.vision_remat,
    decoder_remat=cfg.decoder_remat,
    kernels=choice.resolve(cfg.kernels.to_dict(), platform),
  )


def _trains(wanted: str, base: P.Specs, adapters: peft.Adapters | None) -> str:
  """The pattern of what trains: `wanted`, and beside it the adapters where there are any.

  Raises:
    ValueError: `wanted` matches nothing, or a weight that an adapter is there to keep frozen.
  """
  if adapters is None:
    tree.partition(base, wanted)
    return wanted
  own = adapters.pattern(base)
  if not wanted:
    return own
  specs = adapters.specs(base)
  tree.partition(specs, wanted)
  adapted = set(tree.names(specs)) - set(tree.names(base))
  frozen = [n for n in sorted(adapted) if re.fullmatch(wanted, n) and not re.fullmatch(own, n)]
  if frozen:
    raise ValueError(
      f"trainable = {wanted!r} matches {', '.join(frozen)}, which adapters keep frozen; beside "
      "config.peft it names only what trains in full, and trainable = '' is the adapters alone"
    )
  return f"{own}|{wanted}"


def policy(cfg: ConfigDict) -> Policy:
  """The media policy of an experiment."""
  return settings.policy(cfg)


def step_shapes(cfg: ConfigDict, rows: int) -> tuple[StepShape, ...]:
  """The step shapes of an experiment, the lightest first; see `data.settings`."""
  return settings.step_shapes(cfg, rows)


def to_global(batch: Batch, sharding: jax.sharding.Sharding) -> Any:
  """This process's rows as arrays over the whole mesh."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
  )
