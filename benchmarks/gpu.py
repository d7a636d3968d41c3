"""One run on a machine with an NVIDIA GPU: checks every kernel, times rows G1, G2 and the guards.

  PYTHONPATH=. python benchmarks/gpu.py [--repeats=20] [--seed=0]
  JAX_PLATFORMS=cpu PYTHONPATH=. python benchmarks/gpu.py --smoke

First every implementation that runs here is compared with float32, value and gradient; then
`gpu_rows.py` times the encoder over 180 slices, attention packed, the loss head and the visual
tokenizer, each beside its floor and, where torch is installed, its rival in torch on the same
numbers.  Prints a Markdown table with the device and versions; exits with 1 where a result is wrong
and with 2 where there is no GPU.  --smoke runs the whole at tiny shapes on any device: it shows
that the program works, its times mean nothing.
"""

import argparse
from collections.abc import Iterator
import importlib.metadata
import importlib.util
import platform
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import gpu_rows
from benchmarks import kernel_cases
from benchmarks.gpu_rows import Row


def difference(got: object, want: object) -> float:
  """Largest difference of two trees, each leaf by its own largest value; integers must be equal."""
  worst = 0.0
  for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    g, w = np.asarray(g), np.asarray(w)
    if not np.issubdtype(w.dtype, np.floating):
      worst = max(worst, 0.0 if np.array_equal(g, w) else np.inf)
      continue
    g, w = g.astype(np.float64), w.astype(np.float64)
    if not np.isfinite(g).all():
      return np.inf
    worst = max(worst, float(np.abs(g - w).max(initial=0.0) / (np.abs(w).max(initial=0.0) or 1.0)))
  return worst


def checks(where: str, seed: int) -> Iterator[tuple[str, float, float]]:
  """(name, difference to float32, what is allowed) of every kernel that runs here."""
  for case in kernel_cases.small(where):
    arguments = kernel_cases.values(case, seed)
    got = jax.jit(case.function)(*arguments)
    with jax.default_matmul_precision("highest"):
      want = jax.jit(case.oracle)(*[_in_float32(a) for a in arguments])
    yield case.name, difference(jax.device_get(got), jax.device_get(want)), case.tolerance


def _in_float32(x: jax.Array) -> jax.Array:
  return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def table(rows: list[Row]) -> Iterator[str]:
  """The timed rows as Markdown."""
  yield "| row | ms | floor ms | ms / floor | TFLOP/s | aim | rival | rival ms | error |"
  yield "|---|---|---|---|---|---|---|---|---|"
  for r in rows:
    speed = f"{r.flops / r.milliseconds / 1e9:.0f}" if r.flops else "-"
    rival = f"{r.rival_milliseconds:.3f}" if r.rival_milliseconds is not None else "-"
    yield (
      f"| {r.name} | {r.milliseconds:.3f} | {r.floor:.3f} | {r.milliseconds / r.floor:.2f} | "
      f"{speed} | {r.aim} | {r.rival} | {rival} | {r.error:.1e} |"
    )


def versions() -> str:
  """What the numbers depend on beside the device."""
  names = ("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "torch", "transformers")
  there = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
  found = [f"{name} {importlib.metadata.version(name)}" for name in names if name in there]
  return ", ".join([f"Python {platform.python_version()}", *found])


def main() -> int:
  """Checks, times, prints; the exit code says whether every result is right."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--smoke", action="store_true", help="tiny shapes, on any device")
  parser.add_argument("--repeats", type=int, default=20)
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  where = jax.default_backend()
  if where != "gpu" and not args.smoke:
    print(f"no GPU: JAX found {where}; --smoke runs tiny shapes here", file=sys.stderr)
    return 2
  began = time.perf_counter()
  device = jax.devices()[0].device_kind
  print(f"{device} ({where}), {versions()}, {time.strftime('%Y-%m-%d')}\n", flush=True)
  wrong = []
  for name, found, allowed in checks(where, args.seed):
    right = found <= allowed
    wrong += [] if right else [name]
    print(f"{'ok' if right else 'WRONG':5} {name}: {found:.1e}, allowed {allowed:.0e}", flush=True)
  sizes = gpu_rows.SMOKE if args.smoke else gpu_rows.REAL
  rows = []
  for make in gpu_rows.ROWS:
    for row in make(sizes, where, args.repeats, args.seed):
      wrong += [] if row.error <= row.allowed else [row.name]
      rows.append(row)
      print(f"{row.name}: {row.milliseconds:.3f} ms, error {row.error:.1e}", flush=True)
  print("\n" + "\n".join(table(rows)))
  print(f"\n{time.perf_counter() - began:.0f} s; wrong: {', '.join(wrong) or 'nothing'}")
  if importlib.util.find_spec("torch") is None:
    print("torch is not installed: no rivals")
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
