"""Three step shapes in one run: which shape a record goes through does not show in its loss."""

import json

import jax
import numpy as np
import pytest

from hulu_jax.core import tree
from hulu_jax.data import packing
from hulu_jax.data import settings
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models.scan import FLOAT32
from hulu_jax.training import losses
from hulu_jax.training import step as step_lib
from tests.training import small_run
from tests.training.small_run import Run
from tests.training.small_run import by_step
from tests.training.small_run import records

STEPS = 9
MESH = [f"--config.mesh.{axis}=2" for axis in ("data", "fsdp", "tensor")]
# For one record a row.  Grey pictures lie in slots for colour; a volume begins in the grey slot and
# goes on in those for colour.
BIG = StepShape(
  rows=8,
  tokens=130,
  supervised=30,
  visual=60,
  groups=(Group(4, 12, 3, 1), Group(1, 16, 1, 2), Group(4, 16, 3, 2)),
)


@pytest.fixture(scope="module")
def run_and_log(small_data, tmp_path_factory):
  """(extra flags, devices) -> a finished run and what its process said."""

  def once(*flags, devices):
    workdir = tmp_path_factory.mktemp(f"on{devices}")
    steps = f"--config.steps={STEPS}"
    run = Run("three", small_data, workdir, steps, *flags, devices=devices, log=True)
    ((code, said),) = run.finish()
    assert code == 0, said[-3000:]
    return run, said

  return once


@pytest.fixture(scope="module")
def on_one(run_and_log):
  return run_and_log(devices=1)


def test_each_shape_is_compiled_once(on_one):
  run, said = on_one
  assert {shape for shape, _ in by_step(records(run.workdir)).values()} == {0, 1, 2}
  assert said.count("Compiling jit(train_step)") == 3


def test_losses_over_three_shapes_do_not_depend_on_the_mesh(on_one, run_and_log):
  one, _ = on_one
  eight, said = run_and_log(*MESH, devices=8)
  assert said.count("Compiling jit(train_step)") == 3
  assert by_step(records(eight.workdir)) == by_step(records(one.workdir))
  assert sorted(one.losses()) == list(range(1, STEPS + 1))
  for step, loss in eight.losses().items():
    # float32: only the order of sums over devices differs.
    assert loss == pytest.approx(one.losses()[step], rel=1e-5)


@pytest.fixture(scope="module")
def planned(on_one, small_data):
  """Shape -> (batch as the run made it, its merges, examples by row), of its first step."""
  build = small_run.builder(small_data)
  lines = map(json.loads, (small_data / "train.jsonl").read_text().splitlines())
  examples = {f"mine/{record['id']}": build(record) for record in lines}
  cfg = small_run.get_config(f"three@{small_data}")
  shapes = settings.step_shapes(cfg.shapes, cfg.rows)
  found = {}
  for number, rows in by_step(records(on_one[0].workdir)).values():
    if number not in found:
      packer = packing.Packer(shapes[number])
      held = [[examples[name] for name in row] for row in rows]
      assert all(packer.add_to(r, e) for r, row in enumerate(held) for e in row)
      found[number] = packer.batch(), merges(shapes[number]), held
  return found


def merges(shape):
  return tuple(g.merge for g in shape.groups)


def one_by_one(held):
  """The same records in the big shape, each alone in a row."""
  packer = packing.Packer(BIG)
  examples = [e for row in held for e in row]
  assert all(packer.add_to(r, e) for r, e in enumerate(examples))
  return packer.batch(), merges(BIG), [[e] for e in examples]


def loss_by_record(params, batch, merges, held, quick):
  """Id -> losses of its supervised positions, in order."""

  def forward(w, b):
    scores = hulu.supervised_logits(w, b, merges, presets.TINY, FLOAT32)
    return losses.token_losses(scores, hulu.take_rows(b.targets, b.loss_index), 0.0)

  per_position = np.asarray(jax.jit(forward, compiler_options=quick)(params, batch))
  found = {}
  for r, row in enumerate(held):
    used = batch.loss_weights[r] > 0
    segments = batch.segments[r][batch.loss_index[r][used]]
    for segment, example in enumerate(row, start=1):
      found[example.id] = per_position[r][used][segments == segment]
  return found


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_a_record_has_the_loss_it_has_alone_in_a_big_shape(fresh_tiny, planned, quick, shape):
  held = planned[shape][-1]
  assert max(map(len, held)) > 1
  alone = one_by_one(held)
  for group in ((), (0,), (1, 2))[shape]:
    assert (alone[0].patch_segment[group] > 0).any()
  got = loss_by_record(fresh_tiny, *planned[shape], quick)
  want = loss_by_record(fresh_tiny, *alone, quick)
  assert got.keys() == want.keys() and len(got) == sum(map(len, held))
  for name, values in want.items():
    assert len(values) > 1
    # Losses of about 6 in float32; sums over other lengths, grey weights added up or in turn.
    np.testing.assert_allclose(got[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def test_gradients_are_those_of_the_records_alone(fresh_tiny, planned, quick):
  """Of the heaviest shape: volumes and pictures, packed, against one record a row."""
  batch, sizes, held = planned[2]
  big, big_sizes, _ = one_by_one(held)
  nothing = jax.tree.map(lambda _: None, fresh_tiny)

  def gradient(batch, merges):
    loss = step_lib.make_loss(presets.TINY, merges, FLOAT32, 1, 0.0)
    grad = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=quick)
    (value, _), grads = grad(fresh_tiny, nothing, batch)
    return float(value), grads

  got_loss, got = gradient(batch, sizes)
  want_loss, want = gradient(big, big_sizes)
  assert got_loss == pytest.approx(want_loss, rel=1e-6)
  for (path, g), w in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
    scale = float(np.abs(w).max())
    assert scale > 0
    # Sums over rows in another order.
    np.testing.assert_allclose(g, w, rtol=0, atol=1e-5 * scale, err_msg=tree.path_name(path))
