"""`benchmarks/gpu.py` from end to end at tiny shapes on whatever is here."""

import sys

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks import gpu_rows


def test_a_difference_is_seen_wherever_it_is():
  want = {"a": np.arange(4.0), "mask": np.array([True, False])}
  assert gpu.difference(want, want) == 0
  assert gpu.difference(want | {"a": np.array([0, 1, 2, 3.3])}, want) == pytest.approx(0.1)
  assert gpu.difference(want | {"mask": np.array([True, True])}, want) == np.inf
  assert gpu.difference(want | {"a": np.array([0, 1, 2, np.nan])}, want) == np.inf


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["gpu.py"])
  assert gpu.main() == 2
  assert "no GPU: JAX found cpu" in capsys.readouterr().err


@pytest.fixture
def smoke(monkeypatch, capsys):
  """(checks, rows) -> exit code and what a smoke run of only those prints."""

  def run(checks, rows):
    monkeypatch.setattr(gpu.kernel_cases, "small", lambda where: checks)
    monkeypatch.setattr(gpu_rows, "ROWS", rows)
    monkeypatch.setattr(gpu_rows, "SECONDS", 0.0)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--smoke", "--repeats=1"])
    return gpu.main(), capsys.readouterr().out

  return run


def test_a_wrong_kernel_shows_and_fails_the_run(smoke):
  cases = [c for c in gpu.kernel_cases.small("cpu") if "xla" in c.name and "forward" in c.name][:2]
  broken = cases[1]._replace(function=lambda *x: cases[1].function(*x) * 1.5)
  code, out = smoke([cases[0], broken], (gpu_rows.loss_head,))
  assert code == 1
  assert f"ok    {cases[0].name}" in out and f"WRONG {broken.name}" in out
  assert f"wrong: {broken.name}\n" in out
  assert "| loss_head, 16 of 96 x 512" in out


@pytest.mark.slow
def test_a_smoke_run_checks_and_times_everything(smoke):
  code, out = smoke(list(gpu.kernel_cases.small("cpu")), gpu_rows.ROWS)
  assert code == 0
  for row in ("G1 encode", "G2 3 x 16", "G2 96 in 2 samples", "loss_head"):
    assert f"| {row}" in out
