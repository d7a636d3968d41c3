"""Twenty steps over text, pictures, volumes and clips: the losses of one device on every mesh."""

import json

import pytest

from hulu_jax.core import sharding
from hulu_jax.training import loop
from tests.training.test_loop import config

STEPS = 20
MESHES = {
  "8x1x1": {"data": 8},
  "2x2x2": {"data": 2, "fsdp": 2, "tensor": 2},
  "1x4x2": {"fsdp": 4, "tensor": 2},
  "2x1x2x2": {"data": 2, "context": 2, "tensor": 2},
  "1x2x2x2": {"fsdp": 2, "context": 2, "tensor": 2},
}
# Which the default run takes; the rest is slow.
QUICK = ("1x2x2x2", 4)


def losses(workdir, mesh, accumulate):
  """Step -> loss of each dataset, and of all."""
  # A slot for each of two devices of context; 32 rows are four for each of eight devices.
  shapes = {"all": {"tokens": 120, "supervised": 36, "visual": 48, "groups": ((2, 96, 1, 2),)}}
  c = config(mesh=mesh, rows=32, accumulate=accumulate, steps=STEPS)
  with c.unlocked():
    c.shapes, c.checkpoint.every = shapes, STEPS
  loop.train(c, workdir, lambda _: None)
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return {
    line["step"]: {k: v for k, v in line.items() if k == "loss" or k.startswith("loss/")}
    for line in lines
  }


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
  """The run on one of the devices."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", lambda _: sharding.one_device_mesh())
    return losses(tmp_path_factory.mktemp("one"), {"data": 1}, 1)


@pytest.mark.parametrize(
  ("mesh", "accumulate"),
  [
    pytest.param(mesh, n, marks=[] if (mesh, n) == QUICK else [pytest.mark.slow])
    for mesh in MESHES
    for n in (1, 4)
  ],
)
def test_losses_are_those_of_one_device(mesh, accumulate, on_one, tmp_path, record_property):
  got = losses(tmp_path, MESHES[mesh], accumulate)
  assert sorted(got) == sorted(on_one) == list(range(1, STEPS + 1))
  assert {"loss/text", "loss/2D", "loss/3D", "loss/video"} <= on_one[STEPS].keys()
  furthest = max(abs(got[s]["loss"] / on_one[s]["loss"] - 1) for s in got)
  record_property("furthest", furthest)
  for step, found in got.items():
    # float32: only the order of sums over devices differs.
    assert found["loss"] == pytest.approx(on_one[step]["loss"], rel=1e-5), step
    # A kind may have few tokens in a step, and less of its sum averages out.
    assert found == pytest.approx(on_one[step], rel=5e-5), step


@pytest.mark.slow  # twenty seconds
def test_one_device_in_microbatches(on_one, tmp_path, monkeypatch):
  monkeypatch.setattr(sharding, "make_mesh", lambda _: sharding.one_device_mesh())
  got = losses(tmp_path, {"data": 1}, 4)
  assert all(got[s]["loss"] == pytest.approx(on_one[s]["loss"], rel=1e-5) for s in got)
