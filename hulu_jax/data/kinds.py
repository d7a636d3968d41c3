"""Which records of a dataset are text, images, volumes or video, known without reading them."""

from collections.abc import Sequence
import difflib
from typing import Any

import numpy as np

from hulu_jax.core import plugins
from hulu_jax.data import stored_lengths
from hulu_jax.data.stored_lengths import Arrays

DATASETS = "hulu_jax.data.datasets"
# A record is of the last of these that it holds, so each is of one kind.
KINDS = ("text", *stored_lengths.KINDS)
_NONE = -1


def check(kinds: Any, said: str) -> None:
  """Raises ValueError unless these are kinds.  said: whose, for the error."""
  if isinstance(kinds, str) or not isinstance(kinds, Sequence) or not kinds:
    raise ValueError(f"{said}: kinds = {kinds!r}; expected some of {', '.join(KINDS)}, in a tuple")
  for kind in kinds:
    if kind not in KINDS:
      close = difflib.get_close_matches(str(kind), KINDS, n=1)
      hint = f"did you mean {close[0]!r}? " if close else ""
      raise ValueError(f"{said}: unknown kind {kind!r}; {hint}there are {', '.join(KINDS)}")


def choose(dataset: Any, name: str, kinds: Sequence[str], said: str) -> np.ndarray | None:
  """Numbers of the records of these kinds, int64 and rising; None for all of the dataset.

  name: of the dataset's plugin, whose card counts where the dataset has no lengths.

  Raises:
    ValueError: kinds that are not known, or of which there is no record.
  """
  if dataset.lengths is not None:
    every = of_records(dataset.lengths.arrays)
    chosen = np.flatnonzero(np.isin(every, [KINDS.index(kind) for kind in kinds]))
    if not len(chosen):
      counts = {kind: int(np.count_nonzero(every == n)) for n, kind in enumerate(KINDS)}
      raise ValueError(_nothing(said, kinds, counts))
    return chosen
  stated = _stated(name)
  if len(stated) != 1:
    raise ValueError(
      f"{said}: kinds = {[*kinds]}, but the kind of a record is not known before it is read: write "
      "the lengths of this dataset with `hulu prepare`, or leave `kinds` out"
    )
  if stated[0] not in kinds:
    raise ValueError(_nothing(said, kinds, {stated[0]: len(dataset)}))
  return None


def of_records(arrays: Arrays) -> np.ndarray:
  """int8 [records]: numbers of KINDS; -1 for a record that could not be read when it was measured.

  Such a record is stored without a single token.
  """
  found = np.where(arrays.text > 0, 0, _NONE).astype(np.int8)
  owners = np.repeat(np.arange(len(arrays)), np.diff(arrays.first))
  np.maximum.at(found, owners, arrays.kind.astype(np.int8) + 1)
  return found


def _stated(name: str) -> Sequence[str]:
  """The kinds of records that a plugin's card states; none without a card."""
  module = vars(plugins.load(DATASETS, name))
  return module["CARD"].kinds if "CARD" in module else ()


def _nothing(said: str, kinds: Sequence[str], counts: dict[str, int]) -> str:
  there = ", ".join(f"{count} of {kind}" for kind, count in counts.items() if count)
  return f"{said}: no records of kinds {[*kinds]}; there are {there or 'none that can be read'}"
