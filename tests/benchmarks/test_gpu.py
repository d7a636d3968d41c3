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


def test_a_smoke_run_times_every_row_and_a_wrong_result_shows(monkeypatch, capsys):
  """The kernels have tests of their own; here two stand for all, one of them broken."""
  cases = [c for c in gpu.kernel_cases.small("cpu") if "forward" in c.name][:2]
  broken = cases[1]._replace(function=lambda *x: cases[1].function(*x) * 1.5)
  monkeypatch.setattr(gpu.kernel_cases, "small", lambda where: [cases[0], broken])
  monkeypatch.setattr(gpu_rows, "SECONDS", 0.0)
  monkeypatch.setattr(sys, "argv", ["gpu.py", "--smoke", "--repeats=1"])
  assert gpu.main() == 1
  out = capsys.readouterr().out
  assert f"ok    {cases[0].name}" in out and f"WRONG {broken.name}" in out
  assert f"wrong: {broken.name}\n" in out
  for row in ("G1 encode", "G2 3 x 16", "G2 96 in 12 samples", "loss_head"):
    assert f"| {row}" in out
