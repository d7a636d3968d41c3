"""Who is in which split: whole patients, alike on every machine, and none in two."""

from collections.abc import Iterable, Mapping, Sequence
import hashlib

# From the loosest to the strictest: a patient of several published splits stays in the last.
SPLITS = ("train", "validation", "test")
FRACTIONS: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
SEED = 0


def assign(key: str, fractions: Mapping[str, float] = FRACTIONS, seed: int = SEED) -> str:
  """The split of a patient, or of a record whose patient is not known.

  A pure function of its arguments: the first 8 bytes of a SHA-256 as a fraction of their range,
  held against the cumulative fractions.  New patients do not move old ones.

  Raises:
    ValueError: fractions that are negative or do not add up to 1.
  """
  if min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-9:
    raise ValueError(f"fractions {dict(fractions)}; expected none below 0, and 1 in all")
  digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
  place, above = int.from_bytes(digest[:8]) / 2**64, 0.0
  for split, fraction in fractions.items():
    above += fraction
    if place < above:
      return split
  return list(fractions)[-1]  # a sum that rounds to just below 1


def choose(
  keys: Sequence[str], published: Sequence[str] | None, split: str
) -> tuple[list[int], int]:
  """Which rows belong to a split, and how many were left out lest a patient be in two.

  keys: per row, the patient, or the row's id where the patient is not known.
  published: per row, the split the authors gave it; None goes by `assign`.
  split: one of SPLITS, or "all" for every row.

  The authors' split is kept, with one exception: rows of a patient who is also in a stricter split
  (test before validation before train) are left out of the looser one.

  Raises:
    ValueError: an unknown split, or one without rows.
  """
  if split not in (*SPLITS, "all"):
    raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}, all")
  if split == "all":
    return list(range(len(keys))), 0
  given = [assign(key) for key in keys] if published is None else published
  owner = _owners(zip(keys, given, strict=True))
  wanted = [i for i, own in enumerate(given) if own == split]
  rows = [i for i in wanted if owner[keys[i]] == split]
  if wanted and not rows:
    raise ValueError(f"every patient of split {split!r} is also in a stricter split")
  if not rows:
    raise ValueError(
      f"no row of split {split!r} among {len(keys)}; there are {', '.join(sorted(set(given)))}, all"
    )
  return rows, len(wanted) - len(rows)


def _owners(placed: Iterable[tuple[str, str]]) -> dict[str, str]:
  owner: dict[str, str] = {}
  for key, split in placed:
    if split not in SPLITS:
      raise ValueError(f"published split {split!r}; expected one of {', '.join(SPLITS)}")
    owner[key] = max(owner.get(key, split), split, key=SPLITS.index)
  return owner
