"""Counts records that cannot be used, lists them, and stops a run that loses too many."""

from collections import Counter
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any

from hulu_jax.data.schema import Ref
from hulu_jax.media.errors import BadRecord

# A run is judged by its first thousand records at least: one bad of the first three is no verdict.
_AT_LEAST = 1000


class BadRecords:
  """labels: of the datasets, for counters; most: fraction of the records read that may be bad;
  listing: JSON lines of what was skipped and why, None for no list.
  """

  def __init__(self, labels: Sequence[str], most: float, listing: Path | None):
    if not 0 <= most <= 1:
      raise ValueError(f"data.max_bad = {most}; expected a fraction from 0 to 1")
    self._labels, self._most, self._listing = tuple(labels), most, listing
    self._counts: Counter[str] = Counter()

  def skip(self, ref: Ref, bad: BadRecord, read: int) -> None:
    """Counts one; read: records read so far.  Raises BadRecord when too many were bad."""
    label = self._labels[ref.source]
    self._counts[f"{label}/{bad.kind}"] += 1
    if self._listing is not None:
      line = {"dataset": label, "record": ref.record, "kind": bad.kind, "reason": bad.reason}
      with self._listing.open("a") as file:
        file.write(json.dumps(line) + "\n")
    total = self._counts.total()
    if total > self._most * max(read, _AT_LEAST):
      counts = ", ".join(f"{n} x {what}" for what, n in sorted(self._counts.items()))
      raise BadRecord(
        bad.kind,
        f"{bad.reason} ({label}, record {ref.record}); bad records so far: {counts}, more than "
        f"data.max_bad = {self._most:g} of {max(read, _AT_LEAST)}",
        bad.file,
      )

  @property
  def counts(self) -> Mapping[str, int]:
    """By "label of the dataset/kind", those so far."""
    return dict(self._counts)

  def get_state(self) -> dict[str, Any]:
    """The counts so far."""
    return dict(self._counts)

  def set_state(self, state: Mapping[str, int]) -> None:
    """Goes on from these counts."""
    self._counts = Counter(state)
