"""What `hulu train` refuses before its first step: one line that names the key and what to do."""

import dataclasses
import re

import jax
import orbax.checkpoint as ocp
import pytest

from hulu_jax.cli import main
from hulu_jax.core import params as P
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.weights import checkpoint

# On the tests' eight devices.
MESH = ["--config.mesh.data=8", "--config.rows=8"]
LORA = {"method": "lora", "rank": 2, "alpha": 4.0, "rslora": False, "targets": "decoder/qq"}

# (flags, what the line says)
CASES = {
  "a stage that trains nothing": (
    ["--config.trainable="],
    "trainable = '' trains nothing: give a pattern of paths, '.*' for all of them",
  ),
  "a pattern that matches nothing": (
    ["--config.trainable=encoder/.*"],
    "trainable: pattern 'encoder/.*' matches no parameter; paths start with ['decoder', 'proj",
  ),
  "what is no pattern": (["--config.trainable=(vision"], "trainable: missing ), unterminated"),
  "training at no rate": (
    ["--config.optimizer.learning_rates.vision=0.0"],
    "optimizer.learning_rates.vision = 0, while trainable or peft let it train: give it a rate",
  ),
  "more devices than there are": (
    ["--config.mesh.data=16"],
    "needs 16 devices, found 8 (cpu); the product of the axes of config.mesh is the number",
  ),
  "a mesh that does not divide the heads": (
    ["--config.mesh.data=1", "--config.mesh.tensor=8"],
    "kv_heads = 2 does not divide over mesh axes tensor (8 ways); choose an axis that does",
  ),
  "a mesh that does not divide the rows": (
    ["--config.rows=12"],
    "rows = 12; this mesh needs a multiple of 8, times accumulate = 1: 8 or a multiple of it",
  ),
  "microbatches that do not divide the rows": (
    ["--config.accumulate=3"],
    "rows = 8; this mesh needs a multiple of 8, times accumulate = 3: 24 or a multiple of it",
  ),
  "no microbatch": (["--config.accumulate=0"], "accumulate = 0; expected 1 or more"),
  "no rows": (["--config.rows=0"], "rows = 0; expected 1 or more"),
  "no report": (["--config.report_every=0"], "report_every = 0; expected 1 or more"),
  "no checkpoint": (["--config.checkpoint.every=0"], "checkpoint.every = 0; expected 1 or more"),
  "no steps": (["--config.steps=0"], "steps = 0; expected 1 or more"),
  "a warm-up of more than the run": (
    ["--config.optimizer.warmup=40.0"],
    "optimizer.warmup = 40.0; expected a fraction of the steps, 0 to below 1",
  ),
  "a schedule shorter than its warm-up": (
    ["--config.steps=2", "--config.optimizer.warmup=0.8"],
    "optimizer.warmup = 0.8 of steps = 2 is 2 steps of warm-up and leaves none to train: lower "
    "optimizer.warmup or raise steps",
  ),
  "a rate for no module": (
    ["--config.optimizer.learning_rates.visoin=1.0"],
    'Did you mean "vision" instead of "visoin"',
  ),
  "a negative rate": (
    ["--config.optimizer.learning_rates.vision=-0.1"],
    "optimizer.learning_rates.vision = -0.1; expected 0 or a finite rate above",
  ),
  "a rate that is not a number": (
    ["--config.optimizer.learning_rates.decoder=nan"],
    "optimizer.learning_rates.decoder = nan; expected 0 or a finite rate above",
  ),
  "no clipping, said wrongly": (
    ["--config.optimizer.clip=0.0"],
    "optimizer.clip = 0.0; expected a norm above 0; inf clips nothing",
  ),
  "a negative z-loss": (["--config.z_loss=-1.0"], "z_loss = -1.0; expected 0"),
  "an average of everything": (["--config.ema=1.0"], "ema = 1.0; expected a decay between 0 and 1"),
  "an unknown weighting": (
    ["--config.loss_weighting=task"],
    "loss_weighting = 'task'; there are: token, sample, dataset",
  ),
  "an unknown dtype of activations": (
    ["--config.compute.dtype=bf16"],
    "compute.dtype = 'bf16'; there are: float32, bfloat16",
  ),
  "an unknown dtype of moments": (
    ["--config.dtypes.moments=float16"],
    "dtypes.moments = 'float16'; there are: float32, bfloat16",
  ),
  "an unknown remat": (
    ["--config.compute.vision_remat=some"],
    "compute.vision_remat: unknown remat 'some'; there are: none, save_dots, save_qkv_out",
  ),
  "chunks that do not divide": (
    ["--config.compute.loss_chunk=7"],
    "compute.loss_chunk = 7 does not divide the 24 supervised positions of a shape",
  ),
  "a shape of nothing": (
    ["--config.shapes.volume.supervised=0"],
    "shapes.volume.supervised = 0; expected 1 or more",
  ),
  "records that no shape holds": (
    ["--config.shapes.volume.tokens=5"],
    "the shape holds 5",
  ),
  "a place to begin from that is none": (
    ["--config.init_from=/nowhere"],
    "init_from: no /nowhere; expected a run, a checkpoint, or parts of one",
  ),
}


@pytest.fixture
def refused(small_data, capsys, monkeypatch, root, tmp_path):
  """(flags, kind or change of the small run) -> the one line that `hulu train` says."""
  monkeypatch.chdir(root)
  workdir = tmp_path / "run"

  def run(*flags, kind="plain", change=None):
    config = f"tests/training/small_run.py:{kind}@{small_data}"
    if change is not None:
      config = str(experiment(tmp_path, small_data, change))
    command = ["train", f"--config={config}", f"--workdir={workdir}", *MESH, *flags]
    assert main.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hulu train: ")
    metrics = workdir / "metrics.jsonl"
    assert not metrics.is_file() or not metrics.read_text(), "a step was reported"
    return line

  return run


@pytest.mark.parametrize("case", CASES)
def test_one_line_names_the_key(case, refused):
  flags, message = CASES[case]
  assert message in refused(*flags)


def test_a_missing_rate_is_named(refused):
  line = refused(change="del c.optimizer.learning_rates.projector")
  assert "optimizer.learning_rates has no projector; expected a rate for vision, proj" in line


def test_a_rate_for_a_module_that_does_not_exist(refused):
  line = refused(change="c.optimizer.learning_rates.encoder = 1e-3")
  assert "optimizer.learning_rates has encoder; expected a rate for vision, projector, dec" in line


def test_an_adapter_of_nothing(refused):
  line = refused(change=f"c.trainable, c.peft = '', ConfigDict({LORA})")
  assert "peft.targets: pattern 'decoder/qq' matches no parameter" in line


def test_the_stage_is_named_where_there_are_several(refused):
  said = "c.stages = ({'name': 'a', 'steps': 3}, {'name': 'b', 'trainable': 'head'})"
  line = refused(change=said)
  assert "stage 'b': trainable: pattern 'head' matches no parameter" in line


def test_planned_records_that_no_shape_holds(refused):
  """The plan of all rows reads lengths alone, and must not read them for ever."""
  flags = [f"--config.shapes.{name}.tokens=5" for name in ("picture", "volume")]
  line = refused(*flags, kind="planned")
  assert "60 records in a row fit no step shape" in line and "the shape holds 5" in line
  assert "make one of `shapes` larger, or let records be cut (data.cut)" in line


def test_a_checkpoint_of_another_architecture(refused, tmp_path, builder):
  """To begin from, as to go on from (`test_loop.py`)."""
  other = dataclasses.replace(
    presets.TINY, decoder=dataclasses.replace(presets.TINY.decoder, mlp=192)
  )
  checkpoint.write_description(tmp_path, other, builder.policy)
  with ocp.StandardCheckpointer() as writer:
    params = P.initialize(jax.random.key(0), hulu.specs(other))
    writer.save(checkpoint.folder(tmp_path) / "1" / "state", {"params": params})
  line = refused(f"--config.init_from={tmp_path}")
  assert re.search(r"another architecture: decoder/layers/down is \(3, 192, .* in the model", line)
  assert "set `model` as it was made" in line


def experiment(folder, data, change):
  """A file that is the small run but for one line."""
  path = folder / "mine.py"
  path.write_text(
    "from ml_collections import ConfigDict\nfrom tests.training import small_run\n\n"
    "def get_config():\n"
    f"  c = small_run.get_config('plain@{data}')\n"
    f"  with c.unlocked():\n    {change}\n  return c\n"
  )
  return path
