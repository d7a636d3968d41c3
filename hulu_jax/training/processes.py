"""What the processes of one run do together or leave to the first of them."""

from collections.abc import Callable, Mapping
import hashlib

import jax
from jax.experimental import multihost_utils
import numpy as np

from hulu_jax.core import sharding


def is_first() -> bool:
  """Whether this process writes what a run writes once."""
  return jax.process_index() == 0


def own_file(name: str) -> str:
  """A file's name for this process: the first keeps it, the others get their number before the
  ending."""
  stem, _, ending = name.rpartition(".")
  return name if is_first() else f"{stem}-{jax.process_index()}.{ending}"


def together(error: Exception | None) -> None:
  """Goes on only where no process has an error; every process must come here.

  Raises:
    Exception: `error`, where this process has it.
    ValueError: another process has one.
  """
  failed = [error is not None]
  if jax.process_count() > 1:
    failed = multihost_utils.process_allgather(np.array(failed))[:, 0].tolist()
  if error is not None:
    raise error
  if any(failed):
    raise ValueError(f"process {failed.index(True)} found an error; its own message says which")


def agree(named: Mapping[str, str]) -> None:
  """Raises on every process unless all have the same texts: plans that differ would hang.

  Raises:
    ValueError: names what differs, and on which processes.
  """
  if jax.process_count() == 1:
    return
  names = sorted(named)
  digests = [hashlib.sha256(named[name].encode()).digest() for name in names]
  own = np.frombuffer(b"".join(digests), np.uint8).reshape(len(names), -1)
  found = multihost_utils.process_allgather(own)  # [processes, names, bytes]
  differs = (found != found[0]).any(axis=2)
  said = [
    f"{name} (processes {np.flatnonzero(differs[:, k]).tolist()})"
    for k, name in enumerate(names)
    if differs[:, k].any()
  ]
  if said:
    raise ValueError(
      f"not the same on every process: {', '.join(said)} differ from process 0; all must "
      "be started with one experiment and read the same files"
    )


def total(counts: Mapping[str, int], mesh: jax.sharding.Mesh) -> Callable[[], Mapping[str, int]]:
  """Adds up what the data shards counted; the sum is ready when the devices come to it.

  counts: of this process's rows, the same names on every process.  Several processes that load the
  same rows count once.  Called by all processes alike; what it returns
  waits, so whoever calls that one step late waits for nothing.
  """
  if jax.process_count() == 1:
    return lambda: counts
  names = sorted(counts)
  ways, shards = sharding.batch_ways(mesh), sharding.data_shards(mesh)[1]
  own = np.zeros((ways // shards, len(names)), np.int32)
  own[0] = [counts[name] for name in names]
  rows = sharding.batch_sharding(mesh)
  added = _added(jax.make_array_from_process_local_data(rows, own))
  return lambda: dict(zip(names, np.asarray(added).tolist(), strict=True))


@jax.jit
def _added(parts: jax.Array) -> jax.Array:
  return parts.sum(axis=0)
