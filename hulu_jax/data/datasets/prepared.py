"""Records that `hulu prepare` decoded, resized and measured beforehand, read from its shards."""

from pathlib import Path
from typing import Any

import numpy as np

from hulu_jax.data import manifest as manifest_lib
from hulu_jax.data import shards


class Source:
  """Random access to all shards of a folder, as one dataset in the order of the original.

  path: what `hulu prepare` wrote with --output.  lengths: a folder of `hulu prepare --lengths-only
  --input=prepared:path=...`, for a tokenizer or a compression the shards were not measured with.

  Raises:
    FileNotFoundError: no shard there.
    ValueError: a shard is missing, of another set, without frames, or has another size than its
      manifest says.
  """

  def __init__(self, *, path: str, lengths: str | None = None):
    folder = Path(path)
    manifests = manifest_lib.read_all(folder)
    if not manifests[0].made["frames"]:
      raise ValueError(
        f"{path} holds lengths only: give it as `lengths` of the dataset they are of"
      )
    for manifest in manifests:
      manifest_lib.check_sizes(manifest, folder)
    self._shards = shards.Reader(
      [m.path(folder, manifest_lib.FRAMES) for m in manifests], [m.records for m in manifests]
    )
    if not len(self._shards):
      raise ValueError(f"{path}: no records; all of them were bad, see *{manifest_lib.BAD}")
    # The manifests hold the checksums of all else.
    self.files = tuple(m.path(folder, manifest_lib.MANIFEST) for m in manifests)
    if lengths is None:
      self.lengths = manifest_lib.stored(folder)
    else:
      self.lengths = manifest_lib.stored_for(Path(lengths), self.files, len(self))
      self.files += tuple(manifest_lib.paths(Path(lengths)))

  def __len__(self) -> int:
    return len(self._shards)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """{"id", "number", "messages", ...}: number in the original dataset; media are `Fitted`."""
    return shards.decode(self._shards[int(index)])

  @property
  def numbers(self) -> np.ndarray:
    """int64: the number of each record in the original dataset; bad ones are left out."""
    return self.lengths.arrays.number
