"""The two compiled steps that the model tests share, and what goes into them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.data import packing
from hulu_jax.data.schema import Batch
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models.scan import Compute
from hulu_jax.training import optimizer as optimizer_lib
from hulu_jax.training import step as step_lib
from hulu_jax.training.state import TrainState
from tests.models.mixed import CONVERSATIONS
from tests.models.mixed import MERGES
from tests.models.mixed import PLAIN
from tests.models.mixed import REMAT
from tests.models.mixed import SETTINGS
from tests.models.mixed import SHAPE
from tests.models.mixed import Mixed


@pytest.fixture(scope="session", name="mixed")
def mixed_batch(builder) -> Mixed:
  examples = [builder.build(m, name, generate=False) for name, m in CONVERSATIONS.items()]
  packer = packing.Packer(SHAPE)
  assert all(packer.add(e) for e in examples)
  batch = packer.batch()
  spans = []
  for r, row in enumerate(batch.segments):
    for number in range(1, row.max() + 1):
      where = np.flatnonzero(row == number)
      spans.append((r, slice(where[0], where[-1] + 1)))
  places = {e.id: span for e, span in zip(packer.examples, spans, strict=True)}
  # What the tests rely on: rows and even a slot that samples share, and a row of mere padding.
  assert len({r for r, _ in spans}) < len(spans)
  assert batch.patch_segment[1][0, 0].max() == 2
  assert (batch.segments[-1] == 0).all()
  assert all((s > 0).any() for s in batch.patch_segment)
  return Mixed(examples, batch, places)


@pytest.fixture(scope="session")
def params(fresh_tiny) -> Any:
  """A tiny model whose norms and biases are not at their neutral start."""
  rng = np.random.default_rng(0)

  def moved(name: str, leaf: np.ndarray) -> np.ndarray:
    neutral = "bias" in name or "norm" in name
    return leaf + neutral * rng.normal(0, 0.1, leaf.shape).astype(np.float32)

  return tree.map_named(moved, fresh_tiny)


@pytest.fixture(scope="session")
def logits(quick):
  """(params, batch) -> logits, without a mesh."""

  def forward(w: Any, batch: Batch) -> jax.Array:
    return hulu.logits(w, batch, MERGES, presets.TINY, PLAIN)

  return jax.jit(forward, compiler_options=quick)


@dataclasses.dataclass(frozen=True)
class Run:
  """One step: what came out of it, and the compiled program."""

  state: TrainState
  metrics: Any
  hlo: str

  @property
  def grads(self) -> Any:
    """Of the loss, by way of Adam's first moment."""
    return jax.tree.map(lambda m: np.asarray(m) / (1 - SETTINGS.b1), self.state.opt[1].mu)


def run_step(params: Any, batch: Batch, options: dict[str, Any], compute: Compute) -> Run:
  loss = step_lib.make_loss(presets.TINY, MERGES, compute, 1, 0.0)
  optimizer = optimizer_lib.make(SETTINGS, 10)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    trainable=params,
    frozen=jax.tree.map(lambda _: None, params),
    opt=optimizer.init(params),
  )
  step = jax.jit(step_lib.make_train_step(loss, optimizer, 1)).lower(state, batch).compile(options)
  new, metrics = step(state, batch)
  return Run(new, jax.device_get(metrics), step.as_text())


@pytest.fixture(scope="session")
def run_on_one(params, mixed, quick) -> Run:
  """A train step without a mesh."""
  return run_step(jax.device_put(params), mixed.batch, quick, REMAT)


@pytest.fixture(scope="session")
def run_on_2x2x2(params, mixed, mesh_2x2x2) -> Run:
  """The same step over two ways of data, fsdp and tensor, its encoder in passes of one slot."""
  compute = dataclasses.replace(REMAT, vision_pass=36)
  where = sharding.shardings(hulu.specs(presets.TINY), mesh_2x2x2)
  rows = sharding.batch_sharding(mesh_2x2x2)
  with jax.set_mesh(mesh_2x2x2):
    batch = jax.device_put(mixed.batch, rows)
    return run_step(jax.device_put(params, where), batch, {}, compute)
