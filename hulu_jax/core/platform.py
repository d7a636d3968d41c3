"""CPU start-up: emulated devices need more threads than XLA's CPU pool starts with.

XLA sizes that pool from NPROC.  On a laptop with two cores a collective over eight emulated devices
waits for ever for threads that other collectives hold, so importing the package widens the pool.  A
wide pool makes one device slower on tiny arrays, so a command that knows it has one narrows it
again.
"""

import os

import jax

_THREADS = "32"
_FEWEST = 16  # with 8 threads, 8 devices hung


def narrow() -> None:
  """Undoes the widening unless emulated devices were asked for; call before first use."""
  flags = os.environ.get("XLA_FLAGS", "")
  devices = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]  # made at run time
  emulated = devices > 1 or "host_platform_device_count" in flags
  if not emulated and os.environ.get("NPROC") == _THREADS:
    del os.environ["NPROC"]


def check() -> None:
  """Raises where a mesh of emulated devices would hang.

  Raises:
    RuntimeError: several CPU devices and too few threads.
  """
  if jax.default_backend() != "cpu" or jax.local_device_count() == 1:
    return
  found = os.environ.get("NPROC", "")
  if not found.isdigit() or int(found) < _FEWEST:
    raise RuntimeError(
      f"{jax.local_device_count()} emulated CPU devices with NPROC={found or 'unset'} would hang; "
      f"set NPROC={_THREADS} before Python starts"
    )
