"""Our parameters as the torch tensors of a layout: the inverse of `load`."""

from collections.abc import Iterator

import jax
import numpy as np

from hulu_jax.core import params as P
from hulu_jax.core import tree
from hulu_jax.models.config import HuluConfig
from hulu_jax.weights import names


def tensors(params: P.Params, config: HuluConfig, layout: str) -> Iterator[tuple[str, np.ndarray]]:
  """(name, array) of every tensor of a checkpoint of `layout`, in the parameters' dtype.

  One layer of one parameter is on the host at a time.
  """
  leaves: dict[str, jax.Array] = {}
  tree.map_named(leaves.__setitem__, params)
  for path, entries in names.entries(config, layout).items():
    stacked = len(leaves[path].shape) > len(entries[0].ours)
    for i, entry in enumerate(entries):
      array = np.asarray(leaves[path][i] if stacked else leaves[path])
      yield entry.name, np.ascontiguousarray(entry.to_torch(array))
