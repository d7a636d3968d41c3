"""A run that keeps bfloat16 and an average: it resumes bit by bit, and its average can be read."""

import jax
from ml_collections import ConfigDict
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file

import hulu_jax
from hulu_jax.cli import convert
from hulu_jax.core import linear
from hulu_jax.core import tree
from hulu_jax.models import presets
from hulu_jax.training import loop
from hulu_jax.weights import adapters
from hulu_jax.weights import checkpoint
from tests.training import test_lora
from tests.training.test_loop import config
from tests.training.test_loop import run

STEPS = 4
HALF = {"params": "bfloat16", "frozen": "bfloat16", "moments": "bfloat16"}


def kept(**changes) -> ConfigDict:
  c = config(mesh={"data": 8}, steps=STEPS, ema=0.5, trainable="(projector|decoder)/.*")
  with c.unlocked():
    c.checkpoint.every = 1
    c.dtypes = HALF
    c.loss_weighting = "sample"
    c.update(changes)
  return c


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """(folder, {step: scalars}, state)"""
  workdir = tmp_path_factory.mktemp("kept")
  return workdir, *run(kept(), workdir)


def test_resume_is_bitwise(straight, tmp_path):
  _, seen, state = straight

  def stop(report):
    if report.step == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    loop.train(kept(), tmp_path, stop)
  resumed, again = run(kept(), tmp_path)
  assert resumed and max(resumed) == STEPS
  for step, scalars in resumed.items():
    assert scalars == seen[step]
  jax.tree.map(np.testing.assert_array_equal, again, state)


def test_the_average_is_loaded_where_it_is_asked_for(straight):
  workdir, _, state = straight
  last, average = hulu_jax.load(workdir), hulu_jax.load(workdir, ema=True)
  equal(last.params, tree.merge(state.trainable, state.frozen))
  equal(average.params, tree.merge(state.ema, state.frozen))
  apart = np.abs(average.params["decoder"]["embed"] - last.params["decoder"]["embed"])
  assert apart.max() > 0


def equal(found, expected):
  tree.map_named(
    lambda name, a, b: np.testing.assert_array_equal(a, np.asarray(b, a.dtype), name),
    found,
    expected,
  )


def test_the_average_is_converted_where_it_is_asked_for(straight, tmp_path):
  workdir, _, _ = straight
  for flag, ema in (("--ema", True), (None, False)):
    target = tmp_path / str(ema)
    flags = ["--to=transformers", "--dtype=float32", *([flag] if flag else [])]
    assert convert.main([str(workdir), str(target), *flags]) == 0
    equal(hulu_jax.load(target).params, hulu_jax.load(workdir, ema=ema).params)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"ema": None}, "set ema as it was"),
    ({"trainable": "projector/.*"}, "set trainable as it was"),
    ({"trainable": ".*"}, "set trainable as it was"),
  ],
)
def test_going_on_otherwise_is_refused(straight, changes, message):
  with pytest.raises(ValueError) as error:
    run(kept(steps=STEPS + 1, **changes), straight[0])
  assert message in str(error.value) and "init_from" in str(error.value)


def test_adapters_have_an_average_too(tmp_path):
  cfg = test_lora.config(None, steps=2, trainable="", ema=0.5, dtypes=ConfigDict(HALF))
  _, state = run(cfg, tmp_path)
  got = hulu_jax.load(tmp_path, ema=True).params
  equal(got, tree.merge(state.ema, state.frozen))
  assert jax.tree.structure(linear.plain(got)) == jax.tree.structure(hulu_jax.load("tiny").params)
  assert state.frozen["decoder"]["embed"].dtype == "bfloat16"
  adapters.write_run(tmp_path, tmp_path / "peft", base="b", layout="hulumed", ema=True)
  raw = load_file(tmp_path / "peft" / "adapter_model.safetensors")
  (first,) = (x for name, x in raw.items() if "layers.0.self_attn.q_proj.lora_A" in name)
  np.testing.assert_array_equal(first, state.ema["decoder"]["layers"]["q"].a[0].T)


def test_a_run_without_an_average_says_so(tmp_path, capsys, fresh_tiny, builder):
  checkpoint.write_description(tmp_path, presets.TINY, builder.policy)
  with ocp.StandardCheckpointer() as writer:
    writer.save(checkpoint.folder(tmp_path) / "1" / "state", {"params": fresh_tiny})
  with pytest.raises(ValueError, match="holds no average: the run was trained with ema = None"):
    hulu_jax.load(tmp_path, ema=True)
  with pytest.raises(ValueError, match="tiny is no run folder, so it holds no average"):
    hulu_jax.load("tiny", ema=True)
  target = tmp_path / "converted"
  assert convert.main([str(tmp_path), str(target), "--to=transformers", "--ema"]) == 2
  assert "holds no average" in capsys.readouterr().err
  assert not target.exists()
