"""What a prepared shard says of itself: how many records, of what, from what, and its checksums.

A shard is a few files with one stem.  The manifest, its .json, is put in place last: a shard
without one does not exist.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import os
from pathlib import Path
import re
import secrets
from typing import Any

from hulu_jax.data import stored_lengths

FRAMES, LENGTHS, BAD, MANIFEST = ".array_record", ".lengths.npz", ".bad.jsonl", ".json"
# Of the numbers of missing shards that an error lists.
_LISTED = 20
_NAME = re.compile(r"shard-(\d{5,})-of-(\d{5,})\.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
  """first, last: the shard holds records first..last-1 of its dataset, in order, less the bad.

  bad: number by kind.  made: what the shard depends on: `input`, `policy`, `tokenizer`, `budget`
  (what records were cut to), `frames` (whether they are stored).  files: {"bytes", "sha256"} by the
  ending of the name.
  """

  shard: int
  shards: int
  first: int
  last: int
  records: int
  bad: Mapping[str, int]
  made: Mapping[str, Any]
  files: Mapping[str, Mapping[str, Any]]

  def path(self, folder: Path, ending: str) -> Path:
    """One of the shard's files."""
    return folder / (stem(self.shard, self.shards) + ending)


def stem(shard: int, shards: int) -> str:
  """shard-00003-of-00100."""
  return f"shard-{shard:05d}-of-{shards:05d}"


def read(path: Path) -> Manifest:
  """One manifest.  Raises ValueError if the file is none."""
  try:
    return Manifest(**json.loads(path.read_bytes()))
  except (TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise ValueError(f"{path}: not a manifest of a prepared shard ({error})") from error


def paths(folder: Path) -> list[Path]:
  """The manifests that a folder holds, sorted."""
  return sorted(p for p in folder.glob("shard-*.json") if _NAME.fullmatch(p.name))


def read_all(folder: Path) -> list[Manifest]:
  """The manifests of a whole set, in order.

  Raises:
    FileNotFoundError: no shard at all.
    ValueError: shards are missing, or were made from different things; names them.
  """
  found = [read(path) for path in paths(folder)]
  if not found:
    raise FileNotFoundError(f"{folder}: no prepared shards; expected what `hulu prepare` writes")
  for other in found:
    check_alike(found[0], other, folder)
  there = {m.shard for m in found}
  if missing := [n for n in range(found[0].shards) if n not in there]:
    named = ", ".join(map(str, missing[:_LISTED])) + (", ..." if len(missing) > _LISTED else "")
    raise ValueError(
      f"{folder}: {len(missing)} of {found[0].shards} shards are missing: {named}; make them with "
      f"`hulu prepare --shard={missing[0]}/{found[0].shards} ...`"
    )
  return sorted(found, key=lambda m: m.shard)


def check_alike(one: Manifest, other: Manifest, folder: Path) -> None:
  """Raises ValueError unless two shards belong to one set."""
  said = stored_lengths.differences(
    {**one.made, "shards": one.shards}, {**other.made, "shards": other.shards}
  )
  if said:
    raise ValueError(
      f"{folder} holds shards of different sets: between {stem(one.shard, one.shards)} and "
      f"{stem(other.shard, other.shards)} {'; '.join(said)}: make them again with --force, or into "
      "another folder"
    )


def check_sizes(manifest: Manifest, folder: Path) -> None:
  """Raises ValueError if a file of the shard is missing or has another size."""
  for ending, said in manifest.files.items():
    path = manifest.path(folder, ending)
    size = path.stat().st_size if path.is_file() else None
    if size != said["bytes"]:
      found = "missing" if size is None else f"of {size} bytes"
      raise ValueError(
        f"{path} is {found}; its manifest says {said['bytes']} bytes: make shard {manifest.shard} "
        "again with --force"
      )


def verify(manifest: Manifest, folder: Path) -> None:
  """Reads all files of a shard.  Raises ValueError if one differs from what was written."""
  check_sizes(manifest, folder)
  for ending, said in manifest.files.items():
    path = manifest.path(folder, ending)
    if (found := sha256(path)) != said["sha256"]:
      raise ValueError(
        f"{path} is damaged (sha256 {found[:12]}..., expected {said['sha256'][:12]}...): make "
        f"shard {manifest.shard} again with --force"
      )


def sha256(path: Path) -> str:
  """Of a file's bytes, in hex."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def stored(folder: Path) -> stored_lengths.Stored:
  """The lengths of a whole set.

  Raises:
    FileNotFoundError: no shard there.
    ValueError: as `read_all`, or a file of another size than its manifest says.
  """
  manifests = read_all(folder)
  parts = []
  for manifest in manifests:
    check_sizes(manifest, folder)
    parts.append(stored_lengths.load(manifest.path(folder, LENGTHS)))
  made = {key: manifests[0].made[key] for key in ("policy", "tokenizer", "budget")}
  return stored_lengths.Stored(
    arrays=stored_lengths.concatenate(parts), made=made, where=str(folder)
  )


def stored_for(folder: Path, files: Sequence[Path], records: int) -> stored_lengths.Stored:
  """The lengths in `folder`, measured of a dataset of these files with so many records.

  Raises:
    ValueError: besides what `stored` raises, lengths of another dataset, or of another state of it.
  """
  before = read_all(folder)[0].made["input"]
  now = {"files": {path.name: sha256(path) for path in files}, "records": records}
  said = stored_lengths.differences({key: before[key] for key in now}, now)
  if said:
    raise ValueError(
      f"{folder} holds lengths of other records ({'; '.join(said)}): measure them again with "
      "`hulu prepare --lengths-only`"
    )
  return stored(folder)


class Parts:
  """Files of a shard while they are made: under other names until all of them are whole."""

  def __init__(self, folder: Path, name: str):
    self._folder, self._name = folder, name
    self._token = f"{secrets.token_hex(4)}.part"

  def path(self, ending: str) -> Path:
    """Where to write a file."""
    return self._folder / f"{self._name}{ending}.{self._token}"

  def clear(self) -> None:
    """Removes what a killed run left; one process at a time makes a shard."""
    for path in self._folder.glob(f"{self._name}.*.part"):
      path.unlink()

  def describe(self, endings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and checksum of the written files, by ending."""
    found = [self.path(ending) for ending in endings]
    return {
      ending: {"bytes": path.stat().st_size, "sha256": sha256(path)}
      for ending, path in zip(endings, found, strict=True)
    }

  def publish(self, manifest: Manifest) -> None:
    """Puts the files in place, on the disk, and then the manifest that makes them a shard."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, sort_keys=True) + "\n"
    self.path(MANIFEST).write_text(text)
    manifest.path(self._folder, MANIFEST).unlink(missing_ok=True)  # of what is replaced
    for ending in (*manifest.files, MANIFEST):
      _sync(self.path(ending))
      self.path(ending).replace(manifest.path(self._folder, ending))
      _sync(self._folder)


def _sync(path: Path) -> None:
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
