"""The experiments as shipped: three stages, each from the run before it, and fine-tuning."""

import json
import os
import subprocess
import sys

import pytest

import hulu_jax

CHAIN = ("hulu_stage1_align", "hulu_stage2_pretrain", "hulu_stage3_instruct")
KINDS = ("text", "2D", "3D", "video")


def train(experiment, workdir, root, *flags):
  """As a user does, on one device, which the tests' own process does not have."""
  command = [sys.executable, "-m", "hulu_jax", "train", f"--config=experiments/{experiment}"]
  subprocess.run(
    [*command, f"--workdir={workdir}", *flags],
    cwd=root,
    env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""},
    check=True,
  )
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def falls(lines):
  """The loss of every kind of input is lower at the end than at the start."""
  return {kind: lines[-1][f"loss/{kind}"] < lines[0][f"loss/{kind}"] for kind in KINDS}


@pytest.mark.slow
def test_each_stage_starts_where_the_one_before_ended(root, tmp_path):
  before, last = [], {}
  for experiment in CHAIN:
    lines = train(f"{experiment}.py:smoke", tmp_path / experiment, root, *before)
    # What was learned came along, so later stages begin low and their kinds go up and down.
    assert all(falls(lines).values()) if not last else lines[0]["loss"] < last[0]["loss"]
    assert lines[-1]["loss"] < lines[0]["loss"]
    before, last = [f"--config.init_from={tmp_path / experiment}"], lines
  assert hulu_jax.load(tmp_path / CHAIN[-1]).policy.compression.mode == "hulumed"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "frozen", "full"])
def test_finetuning_by_every_method(method, root, tmp_path):
  assert all(falls(train(f"finetune_vqa.py:smoke,{method}", tmp_path / method, root)).values())
