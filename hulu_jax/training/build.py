"""From an experiment's config to the pure parts of a run: shapes, parameters, init and step."""

from collections.abc import Callable, Sequence
import dataclasses
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
from hulu_jax.training import selection
from hulu_jax.training import step as step_lib
from hulu_jax.training import weighting
from hulu_jax.training.keeping import Dtypes
from hulu_jax.training.keeping import Keeping
from hulu_jax.training.stages import Stage
from hulu_jax.training.state import TrainState

Step = Callable[[TrainState, Batch], tuple[TrainState, step_lib.Metrics]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """Everything about a run that needs neither devices nor data.

  shapes: the lightest first, all with the same rows.  base: of the model as published; specs: of
  what runs, which differ where `adapters` are.  state: (parameters of `base`, steps done) ->
  TrainState; losses and steps: one per shape, a step being (state, batch) -> (state, metrics).
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
  losses: tuple[step_lib.LossFn, ...]
  steps: tuple[Step, ...]

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state; call it under `jax.jit` and `jax.set_mesh`."""
    return self.state(P.initialize(key, self.base), 0)

  def check(self, mesh: sharding_lib.Mesh) -> None:
    """Raises where the mesh does not divide the parameters or the batch.

    Raises:
      ValueError: which parameter or key, and into how many parts it would fall.
    """
    try:
      sharding_lib.shardings(self.specs, mesh)
    except ValueError as error:
      raise ValueError(f"mesh = {dict(mesh.shape)}: {error}; choose an axis that does") from error
    fewest = sharding_lib.fewest_rows(mesh)
    rows = self.shapes[0].rows
    if rows % (fewest * self.accumulate):
      raise ValueError(
        f"rows = {rows}; this mesh needs a multiple of {fewest}, times accumulate = "
        f"{self.accumulate}: {fewest * self.accumulate} or a multiple of it"
      )
    ways = sharding_lib.context_ways(mesh)
    for shape in self.shapes if ways > 1 else ():
      _check_dealt(shape, ways)

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
  shapes = step_shapes(cfg.shapes, cfg.rows)
  _check_media(cfg.model, config, media, shapes)
  base = hulu.specs(config)
  adapters = peft.named(cfg.peft.to_dict()) if cfg.peft else None
  specs = base if adapters is None else adapters.specs(base)
  trains = selection.pattern(cfg.trainable, base, adapters)
  compute = _compute(cfg.compute, platform)
  _check_chunks(shapes, compute.loss_chunk)
  rates = optimizer_lib.Settings(**cfg.optimizer.to_dict())
  selection.check_rates(rates, trains, specs)
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

  def loss(shape: StepShape) -> step_lib.LossFn:
    merges = tuple(g.merge for g in shape.groups)
    return step_lib.make_loss(config, merges, compute, len(cfg.data.mixture), cfg.z_loss)

  def step(loss: step_lib.LossFn) -> Step:
    return _weighed(weigh, step_lib.make_train_step(loss, transform, cfg.accumulate, keep))

  losses = tuple(loss(shape) for shape in shapes)
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
    losses=losses,
    steps=tuple(step(own) for own in losses),
  )


def _weighed(weigh: Callable[[Batch], Batch], step: Step) -> Step:
  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, step_lib.Metrics]:
    return step(state, weigh(batch))

  return train_step


def _check_dealt(shape: StepShape, ways: int) -> None:
  """Raises where a row of this shape cannot be dealt over `ways` devices of context."""
  slots = (group.slots for group in shape.groups)
  needs = [("tokens", shape.tokens, 2 * ways), ("supervised", shape.supervised, ways)]
  for name, found, multiple in [*needs, *(("slots", n, ways) for n in slots)]:
    if found % multiple:
      raise ValueError(
        f"a shape of {name} = {found} on mesh axis context = {ways}; expected a multiple of "
        f"{multiple} in every shape of config.shapes, or config.mesh.context = 1"
      )


def of_stages(stages: Sequence[Stage], platform: str) -> list[Program]:
  """The program of every stage, in order.

  Raises:
    ValueError: as `build`; it names the stage where there are several.
  """
  found = []
  for stage in stages:
    try:
      found.append(build(stage.cfg, platform=platform))
    except ValueError as error:
      where = f"stage {stage.name!r}: " if len(stages) > 1 else ""
      raise ValueError(f"{where}{error}") from error
  return found


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


def _check_media(
  model: str, config: HuluConfig, media: Policy, shapes: Sequence[StepShape]
) -> None:
  if media.patch != config.vision.patch:
    raise ValueError(f"policy.patch = {media.patch}, {model} has {config.vision.patch}")
  longest = max(shape.tokens for shape in shapes)
  if longest > config.decoder.max_positions:
    raise ValueError(
      f"a shape of {longest} tokens exceeds the {config.decoder.max_positions} positions of "
      f"{model}: make `shapes` shorter"
    )


def _check_chunks(shapes: Sequence[StepShape], chunk: int | None) -> None:
  for shape in shapes:
    if chunk is not None and shape.supervised > chunk and shape.supervised % chunk:
      raise ValueError(
        f"compute.loss_chunk = {chunk} does not divide the {shape.supervised} supervised positions "
        "of a shape: choose one that does, or None"
      )


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
