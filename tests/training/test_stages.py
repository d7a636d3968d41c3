"""Stages of a run: what each may say, how one follows another, and a stop in any of them."""

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

from hulu_jax.core import tree
from hulu_jax.training import loop
from hulu_jax.training import stages
from tests.training.test_loop import config

ALIGN = {
  "name": "align",
  "steps": 2,
  "trainable": "(vision|projector)/.*",
  "optimizer": {"learning_rates": {"projector": 1e-2}, "warmup": 0.5},
}
INSTRUCT = {
  "name": "instruct",
  "steps": 3,
  "policy": {"compression": {"mode": "fixed", "grey": 6.0}},
}


def staged(*entries, **changes) -> ConfigDict:
  """The small quick start in stages; a checkpoint after every step."""
  c = config(mesh={"data": 8}, **changes)
  with c.unlocked():
    c.checkpoint.every = 1
    c.stages = entries
  return c


def test_a_stage_is_the_experiment_but_for_what_it_says():
  c = staged(ALIGN, INSTRUCT)
  first, second = stages.plan(c)
  assert (first.name, first.first, first.last) == ("align", 0, 2)
  assert (second.name, second.first, second.last) == ("instruct", 2, 5)
  rates = first.cfg.optimizer.learning_rates
  assert (rates.vision, rates.projector, rates.decoder) == (3e-3, 1e-2, 3e-3)
  assert first.cfg.policy.compression.mode == "off"
  assert second.cfg.policy.compression.to_dict() == {"mode": "fixed", "grey": 6.0}
  assert second.cfg.trainable == c.trainable and second.cfg.optimizer == c.optimizer
  assert c.steps == config().steps, "the experiment itself is as it was"


def test_shapes_mixture_and_compression_are_replaced_not_joined():
  shape = {"tokens": 64, "supervised": 8, "visual": 4, "groups": ()}
  entry = ConfigDict({"name": "jsonl", "label": "mine", "weight": 1.0})
  c = staged({"name": "one", "shapes": {"text": shape}, "data": {"mixture": (entry,)}})
  (one,) = stages.plan(c)
  assert list(one.cfg.shapes) == ["text"]
  assert [e.label for e in one.cfg.data.mixture] == ["mine"]
  assert one.cfg.data.lookahead == c.data.lookahead


def test_without_stages_there_is_one():
  c = config()
  (one,) = stages.plan(c)
  assert (one.first, one.last) == (0, c.steps) and one.cfg is c
  assert stages.select(c, None) is c


@pytest.mark.parametrize(
  ("entries", "message"),
  [
    ([{"steps": 2}], "stages[0] has no name"),
    ([ALIGN, ALIGN], "['align'] more than once"),
    ([{"name": "a", "mesh": {"data": 1}}], "stage 'a' sets mesh, which a run has once"),
    ([{"name": "a", "compute": {"vision_pass": 9}}], "stage 'a' sets compute"),
    ([{"name": "a", "stepz": 2}], "no key 'stepz'; did you mean 'steps'?"),
    ([{"name": "a", "optimizer": {"rate": 1.0}}], "stage 'a': optimizer: no key 'rate'"),
  ],
)
def test_what_a_stage_cannot_mean(entries, message):
  with pytest.raises(ValueError) as error:
    stages.plan(staged(*entries))
  assert message in str(error.value)


def test_a_stage_is_selected_by_name():
  c = staged(ALIGN, INSTRUCT)
  assert stages.select(c, "align").steps == 2
  with pytest.raises(ValueError, match="which stage is meant is not said; there are: align, inst"):
    stages.select(c, None)
  with pytest.raises(ValueError, match="no stage 'ailgn'; there are: align, instruct"):
    stages.select(c, "ailgn")


def run(cfg, workdir, stop=None):
  """Trains, to step `stop` where one is given; returns ({step: scalars}, state on the host)."""
  seen = {}

  def report(told):
    seen[told.step] = (told.stage, dict(told.scalars))
    if told.step == stop:
      raise KeyboardInterrupt

  try:
    state = loop.train(cfg, workdir, report)
  except KeyboardInterrupt:
    return seen, None
  return seen, jax.device_get(state)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  return run(staged(ALIGN, INSTRUCT), tmp_path_factory.mktemp("straight"))


def test_a_stage_follows_the_one_before(straight):
  seen, state = straight
  assert [seen[step][0] for step in sorted(seen)] == ["align"] * 2 + ["instruct"] * 3
  assert "grad_norm/decoder" not in seen[2][1] and "grad_norm/decoder" in seen[3][1]
  assert int(state.step) == 5 and seen[3][1]["kept"] < seen[2][1]["kept"] == 1.0
  # Adam counts the steps of its own stage.
  counts = [leaf for name, leaf in named(state.opt) if name.endswith("count")]
  assert {int(count) for count in counts} == {3}


def named(opt):
  return [(tree.path_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(opt)]


# A report comes one step late: at these the run has gone to the next, or to the next stage.
@pytest.mark.parametrize("stop", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_stop_in_any_stage_changes_nothing(straight, tmp_path, stop):
  seen, state = straight
  before, _ = run(staged(ALIGN, INSTRUCT), tmp_path, stop)
  after, again = run(staged(ALIGN, INSTRUCT), tmp_path)
  for step, told in [*before.items(), *after.items()]:
    assert told == seen[step]
  assert sorted(before.keys() | after.keys()) == sorted(seen)
  jax.tree.map(np.testing.assert_array_equal, again, state)


def test_microbatches_take_the_step_of_the_whole_batch(tmp_path):
  """On 2 x 2 x 2, two rows a device: dealt into two microbatches or not."""
  losses = []
  for accumulate in (1, 2):
    c = config(mesh={"data": 2, "fsdp": 2, "tensor": 2}, steps=3, accumulate=accumulate)
    seen, _ = run(c, tmp_path / str(accumulate))
    losses.append([told["loss"] for _, told in seen.values()])
  # float32: only the order of sums differs.
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)
