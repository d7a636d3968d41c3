"""Lengths of prepared records, per compression mode, and for what they hold: tokenizer, policy."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
from pathlib import Path
import tempfile
from typing import Any, NamedTuple

import numpy as np

from hulu_jax.data import compression as compression_lib
from hulu_jax.data import lengths as lengths_lib
from hulu_jax.data import vision
from hulu_jax.data.compression import Compression
from hulu_jax.data.lengths import Length
from hulu_jax.data.lengths import Lengths
from hulu_jax.data.lengths import Medium
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import StepShape
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.data.vision import Policy
from hulu_jax.media.types import Media

KINDS = ("image", "volume", "video")
# `fixed` has thresholds, so it is stored only where the policy states them.
_ALWAYS = tuple(mode for mode in compression_lib.MODES if mode != "fixed")
_KEPT = "kept_"


class Measured(NamedTuple):
  """One record.  number: in its dataset; text: tokens that are not visual; kept: visual tokens by
  compression mode; kinds: of its media."""

  number: int
  text: int
  supervised: int
  kept: Mapping[str, int]
  media: tuple[Medium, ...]
  kinds: tuple[str, ...]


def compressions(policy: Policy) -> dict[str, Compression]:
  """The modes whose lengths are stored for a policy, by name.

  Pruned before the encoder, a mode also decides how many patches there are: only its own are held.
  """
  if policy.compression.prune == "before":
    return {policy.compression.mode: policy.compression}
  found = {mode: Compression(mode=mode) for mode in _ALWAYS}
  return found | {policy.compression.mode: policy.compression}


def measure(
  number: int,
  length: Length,
  example: Example,
  media: Sequence[Media],
  modes: Mapping[str, Compression],
) -> Measured:
  """Measures a record from its example, in which every visual token is kept, and that's length."""
  kept: dict[str, int] = {}
  encoded = [lengths_lib.encoded(v) for v in example.visuals]
  for name, compression in modes.items():
    pairs = zip(example.visuals, media, strict=True)
    masks = [vision.keep_mask(v.patches, v.merge, m, compression) for v, m in pairs]
    kept[name] = sum(int(np.count_nonzero(mask)) for mask in masks)
    if compression.prune == "before":
      pruned = zip(example.visuals, masks, strict=True)
      encoded = [
        lengths_lib.encoded(dataclasses.replace(v, keep=mask, pruned=True)) for v, mask in pruned
      ]
  return Measured(
    number=number,
    text=length.tokens - length.visual,
    supervised=length.supervised,
    kept=kept,
    media=tuple(m for own in encoded for m in own),
    kinds=tuple(m.kind for m, own in zip(media, encoded, strict=True) for _ in own),
  )


def unreadable(number: int, modes: Mapping[str, Compression]) -> Measured:
  """Stands for a bad record of a dataset that is not stored itself: it takes no room, and the
  pipeline counts it when it meets it."""
  return Measured(number, 0, 0, dict.fromkeys(modes, 0), (), ())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrays:
  """Many records.

  number: int64 [records]; text, supervised: int32 [records].
  first: int64 [records + 1], where the media of each begin; media: int32 [all media, 4], the fields
  of `Medium`; kind: uint8 [all media], numbers of KINDS.
  kept: by compression mode int32 [records].
  """

  number: np.ndarray
  text: np.ndarray
  supervised: np.ndarray
  first: np.ndarray
  media: np.ndarray
  kind: np.ndarray
  kept: Mapping[str, np.ndarray]

  def __len__(self) -> int:
    return len(self.number)

  def lengths(self, mode: str) -> Lengths:
    """What packing needs to know under a compression mode."""
    kept = self.kept[mode]
    return Lengths(self.text + kept, self.supervised, kept, self.first, self.media)


_PLAIN = tuple(f.name for f in dataclasses.fields(Arrays) if f.name != "kept")


def collect(records: Sequence[Measured], modes: Mapping[str, Compression]) -> Arrays:
  """Records as arrays."""
  media = [m for r in records for m in r.media]
  return Arrays(
    number=np.array([r.number for r in records], np.int64),
    text=np.array([r.text for r in records], np.int32),
    supervised=np.array([r.supervised for r in records], np.int32),
    first=np.cumsum([0, *(len(r.media) for r in records)], dtype=np.int64),
    media=np.array(media, np.int32).reshape(-1, 4),
    kind=np.array([KINDS.index(k) for r in records for k in r.kinds], np.uint8),
    kept={mode: np.array([r.kept[mode] for r in records], np.int32) for mode in modes},
  )


def save(path: Path, arrays: Arrays) -> None:
  """Writes one .npz without pickles; the same arrays give the same bytes."""
  named: dict[str, Any] = {name: vars(arrays)[name] for name in _PLAIN}
  named |= {_KEPT + mode: kept for mode, kept in arrays.kept.items()}
  with path.open("wb") as file:
    np.savez(file, **named)


def load(path: Path) -> Arrays:
  """What `save` wrote.  Raises ValueError if it is not that."""
  with np.load(path, allow_pickle=False) as stored:
    modes = [name for name in stored.files if name.startswith(_KEPT)]
    if sorted(stored.files) != sorted([*_PLAIN, *modes]):
      raise ValueError(f"{path.name} holds {sorted(stored.files)}; expected {sorted(_PLAIN)}")
    kept = {name.removeprefix(_KEPT): stored[name] for name in modes}
    return Arrays(**{name: stored[name] for name in _PLAIN}, kept=kept)


def concatenate(parts: Sequence[Arrays]) -> Arrays:
  """Records of all parts, one part after the other."""
  starts = np.cumsum([0, *(len(p.media) for p in parts)])
  first = [p.first[:-1] + start for p, start in zip(parts, starts, strict=False)]
  joined = {
    name: np.concatenate([vars(p)[name] for p in parts]) for name in _PLAIN if name != "first"
  }
  return Arrays(
    **joined,
    first=np.concatenate([*first, starts[-1:]]),
    kept={mode: np.concatenate([p.kept[mode] for p in parts]) for mode in parts[0].kept},
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
  """Lengths of a whole dataset.  made: what they hold for, as `made_with` says it; where: the
  folder, for errors."""

  arrays: Arrays
  made: Mapping[str, Any]
  where: str

  def lengths(
    self, policy: Policy, tokenizer: Tokenizer, budget: Sequence[StepShape] | None = None
  ) -> Lengths:
    """The lengths under a policy.

    budget: what records are cut to (see `Builder`).  What is cut depends on the compression, so
    that with a budget there is no choice of modes.

    Raises:
      ValueError: they were measured with another tokenizer, policy or budget; names what differs.
    """
    now = made_with(policy, tokenizer, budget)
    mode = policy.compression.mode
    before = dict(self.made)
    if mode in self.arrays.kept and mode != "fixed" and budget is None:
      before["policy"] = {**before["policy"], "compression": now["policy"]["compression"]}
    if said := differences(before, now):
      raise ValueError(
        f"{self.where} was prepared for another experiment ({'; '.join(said)}): prepare it again "
        "with this one's --config, or set the experiment as it was"
      )
    return self.arrays.lengths(mode)


def of_all(
  datasets: Sequence[Any],
  policy: Policy,
  tokenizer: Tokenizer,
  budget: Sequence[StepShape] | None = None,
) -> list[Lengths] | None:
  """The lengths of every dataset's records, None if one of them does not know its own.

  datasets: with an attribute `lengths`, `Stored` or None.  budget: as for `Stored.lengths`.

  Raises:
    ValueError: as `Stored.lengths`.
  """
  known = [d.lengths.lengths(policy, tokenizer, budget) for d in datasets if d.lengths is not None]
  return known if len(known) == len(datasets) else None


def made_with(
  policy: Policy, tokenizer: Tokenizer, budget: Sequence[StepShape] | None
) -> dict[str, Any]:
  """What lengths and frames depend on beside the record, as plain values."""
  fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(policy)))
  return {"policy": fields, "tokenizer": digest(tokenizer), "budget": _room(budget)}


def _room(budget: Sequence[StepShape] | None) -> dict[str, Any] | None:
  """What a row of each shape holds, by its number; how many rows there are does not matter."""
  if budget is None:
    return None
  names = ("tokens", "supervised", "visual", "groups")
  plain = {str(n): {k: s._asdict()[k] for k in names} for n, s in enumerate(budget)}
  return dict(json.loads(json.dumps(plain)))


def digest(tokenizer: Tokenizer) -> str:
  """Stands for a tokenizer: a hash of the files that it saves."""
  found = hashlib.sha256()
  with tempfile.TemporaryDirectory() as folder:
    tokenizer.save(Path(folder))
    for path in sorted(Path(folder).iterdir()):
      found.update(path.name.encode() + b"\0" + path.read_bytes())
  return found.hexdigest()[:32]


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
  """Fields of two nested mappings that differ, each as "policy.patch was 14, is 16"."""
  said = []
  for key in sorted(before.keys() | now.keys()):
    old, new = before.get(key), now.get(key)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
      said += differences(old, new, f"{prefix}{key}.")
    elif old != new:
      said.append(f"{prefix}{key} was {old!r}, is {new!r}")
  return said
