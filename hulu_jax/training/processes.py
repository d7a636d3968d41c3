"""What the processes of one run do together or leave to the first of them."""

from collections.abc import Mapping
import hashlib

import jax
from jax.experimental import multihost_utils
import numpy as np


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
