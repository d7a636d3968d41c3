"""What `benchmarks/aot.py` compiles, every kernel and every step claimed, and how it judges."""

import math
from pathlib import Path
import subprocess

import pytest

from benchmarks import aot
from benchmarks import kernel_cases
from experiments import finetune_vqa
from hulu_jax.core import sharding
from hulu_jax.kernels import choice
from hulu_jax.models import presets
from hulu_jax.training import aot as training_aot
from hulu_jax.training import build


def test_every_kernel_folder_is_compiled_and_checked(root):
  folders = {p.parent.name for p in (root / "hulu_jax" / "kernels").glob("*/api.py")}
  assert set(kernel_cases.OPERATIONS) == folders


@pytest.mark.parametrize("platform", ("tpu", "gpu"))
def test_every_kernel_of_a_platform_is_compiled_for_it_and_checked_on_it(platform):
  named = [case.name for case in kernel_cases.cases(platform)]
  checked = [case.name for case in kernel_cases.small(platform)]
  assert len(set(named)) == len(named) and len(set(checked)) == len(checked)
  for operation, there_are in choice.RUNS_ON.items():
    for name in (n for n, where in there_are.items() if platform in where and n != "reference"):
      for cases in (checked,) if name == "xla" else (named, checked):
        own = [case for case in cases if case.startswith(f"{operation} {name} ")]
        assert any("both ways" in case for case in own), (operation, name)


def test_attention_is_compiled_at_the_widths_of_the_presets():
  compiled = {(s.heads, s.kv_heads, s.width) for s in kernel_cases.REAL.attention}
  large = [presets.get(name) for name in ("hulu-7b", "hulu-32b")]
  decoders = {(c.decoder.heads, c.decoder.kv_heads, c.decoder.head_dim) for c in large}
  vision = presets.SIGLIP
  assert compiled >= decoders | {(vision.heads, vision.heads, vision.head_dim)}


def test_kernels_are_compiled_for_all_targets_and_steps_for_both_pods():
  jobs = aot.plan(None, None, "")
  assert [job.target for job in jobs if job.step is None] == ["v5e", "v5p", "v6e", "sm_90a"]
  steps = {}
  for job in (job for job in jobs if job.step):
    steps.setdefault((job.step.argument, job.step.topology), []).append(job.step.shape)
  assert set(steps) == {("7b,full", "v5e:16x16"), ("32b,full", "v5p:4x4x8")}
  for (argument, _), shapes in steps.items():
    assert sorted(shapes) == sorted(finetune_vqa.get_config(argument).shapes)


@pytest.mark.parametrize("step", aot.STEPS, ids=lambda step: step.name)
def test_a_step_fills_its_pod_and_its_mesh_divides_the_model(step):
  chips = math.prod(int(n) for n in step.topology.split(":")[1].split("x"))
  mesh = sharding.abstract_mesh(step.mesh)
  assert mesh.size == chips and step.topology.startswith(step.target)
  cfg = finetune_vqa.get_config(step.argument)
  cfg.mesh, cfg.rows = step.mesh, step.rows
  platform = training_aot.OURS[aot.TARGETS[step.target].chip.platform]
  build.build(cfg, platform=platform).check(mesh)


def test_options_choose_parts():
  assert {job.target for job in aot.plan(None, "v5e", "")} == {"v5e"}
  assert all(job.step for job in aot.plan("steps", None, ""))
  (job,) = aot.plan("steps", "v5p", "hulu-32b pictures")
  assert job.cases == ("hulu-32b pictures",)
  (job,) = aot.plan("kernels", "v6e", "decoder_attention splash [1, 16384, 28")
  assert len(job.cases) == 2


def test_the_compilers_are_those_of_the_installed_jax():
  (libtpu,) = aot.requirements("tpu")
  assert libtpu.startswith("libtpu==")
  assert [pin.split("==")[0] for pin in aot.requirements("cuda")] == [
    "jax-cuda13-plugin",
    "jax-cuda13-pjrt",
  ]


def test_what_is_too_much_or_does_not_compile_is_wrong():
  step = aot.STEPS[0]._replace(recorded=10.0)
  job = aot.Job("v5e", step, (step.name,))
  assert aot.verdict(job, {"total": 10.4e9}) is None
  assert "recorded were 10.0" in aot.verdict(job, {"total": 10.6e9})
  assert "81%" in aot.verdict(job._replace(step=step._replace(recorded=None)), {"total": 12.96e9})
  assert aot.verdict(job, {"error": "RESOURCE_EXHAUSTED"}) == "RESOURCE_EXHAUSTED"


def test_the_list_names_every_case_and_an_unknown_part_is_an_error(capsys):
  assert aot.main(["--list", "--only=steps"]) == 0
  assert capsys.readouterr().out.splitlines()[0] == f"v5e: {aot.STEPS[0].name}"
  assert aot.main(["--case=no such thing"]) == 2
  assert "no such thing" in capsys.readouterr().out


@pytest.mark.slow
def test_one_kernel_compiles_for_v5e(root, capsys):
  cache: Path = root / "build" / "aot"
  try:
    aot.environment("tpu", cache)
  except subprocess.CalledProcessError as error:
    pytest.skip(f"libtpu cannot be installed here: {error}")
  part = "encoder_attention splash [1, 1, 1536"
  assert aot.main(["--target=v5e", "--only=kernels", f"--case={part}", f"--cache={cache}"]) == 0
  assert "2 of 2 as they should be" in capsys.readouterr().out
