"""Volumes and clips as they are shown, kept on disk, so that later epochs need not decode them.

An entry is one medium at one size: a checksum, a JSON header and the raw frames.  Names are keyed
hashes; the key lies beside the entries, so whoever may read those may join them.  Frames are
patients' data: everything is made for its owner only.
"""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import fcntl
import hashlib
import hmac
import importlib.metadata
import json
import os
from pathlib import Path
import secrets

from hulu_jax.data import shards
from hulu_jax.data.vision import Fitted
from hulu_jax.media import privacy
from hulu_jax.media.limits import DEFAULT
from hulu_jax.media.types import Options

# Raised whenever a reader gives other frames than before for the same file.
_READERS = 2
_LIBRARIES = ("av", "nibabel", "numpy", "pillow", "pydicom")
_CHECKSUM = 32  # bytes
# Files that a reader opens beside the one it is given.
_PAIRED = {".head", ".brik", ".par", ".rec", ".hdr", ".img"}
_FILL = 0.9  # of the bound, that an eviction leaves: it looks at every entry


class Cache:
  """A folder of at most `most_bytes`, for any number of threads and processes of one machine.

  What was used least recently goes first.  An entry that is damaged is dropped.

  Raises:
    ValueError: a bound below 1, or a key that others may read.
    OSError: the folder cannot be made.
  """

  def __init__(self, folder: Path, most_bytes: int):
    if most_bytes < 1:
      raise ValueError(f"data.cache_bytes = {most_bytes}; expected 1 or more")
    self._entries, self._most = folder / "entries", most_bytes
    self._lock, self._total = folder / "lock", folder / "bytes"
    self._entries.mkdir(mode=0o700, parents=True, exist_ok=True)
    self._key = _shared_key(folder / "key")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES]
    self._read_by = [_READERS, *versions, dataclasses.asdict(DEFAULT)]

  def key(self, path: Path, options: Options, preset: str, root: Path) -> str | None:
    """Stands for a file or folder as it is now, and how it is read; None if it cannot be told."""
    try:
      files = _identity(path)
      where = [os.path.realpath(path), os.path.realpath(root)]
    except OSError:  # reading it says what is wrong
      return None
    said = [self._read_by, where, files, dataclasses.asdict(options), preset]
    return hmac.new(self._key, json.dumps(said).encode(), hashlib.sha256).hexdigest()

  def find(self, key: str) -> Fitted | None:
    """A medium at any size that it was kept at, the last used; None if it is not here."""
    try:
      paths = list(self._folder(key).iterdir())
    except FileNotFoundError:
      return None
    for _, _, path in sorted(_described(paths), reverse=True):
      found = self._read(path)
      if found is not None:
        return found
    return None

  def load(self, key: str, size: tuple[int, int]) -> Fitted | None:
    """A medium at (height, width), None if it is not here or damaged."""
    return self._read(self._path(key, size))

  def store(self, key: str, size: tuple[int, int], medium: Fitted) -> None:
    """Keeps a medium at (height, width), unless it is larger than the whole cache."""
    data = _encode(medium)
    if len(data) > self._most:
      return
    path = self._path(key, size)
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    with self._locked():
      self._make_room(len(data))
      path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
      handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
      os.truncate(handle, len(data))  # counted from now on
    try:
      with os.fdopen(handle, "wb") as file:
        file.write(data)
      with contextlib.suppress(FileNotFoundError):  # it took so long that it was let go
        new.replace(path)
    finally:
      new.unlink(missing_ok=True)

  def _make_room(self, size: int) -> None:
    """Lets entries go until `size` bytes more are within the bound; the lock is held.

    The total may count what was replaced or dropped meanwhile, so it is never too small.
    """
    total = self._counted()
    if total is None or total + size > self._most:
      found = sorted(_described(self._entries.glob("*/*/*")))
      total = sum(bytes_ for _, bytes_, _ in found)
      target = self._most if total + size <= self._most else int(self._most * _FILL)
      for _, bytes_, path in found:
        if total + size <= target or not total:
          break
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other sizes of the medium are still there
          path.parent.rmdir()
        total -= bytes_
    self._total.write_text(str(total + size))

  def _counted(self) -> int | None:
    try:
      return int(self._total.read_text())
    except (FileNotFoundError, ValueError):
      return None

  @contextlib.contextmanager
  def _locked(self) -> Iterator[None]:
    """One thread of one process at a time; a killed one lets go."""
    with open(self._lock, "w") as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      yield

  def _folder(self, key: str) -> Path:
    return self._entries / key[:2] / key[2:]

  def _path(self, key: str, size: tuple[int, int]) -> Path:
    return self._folder(key) / f"{size[0]}x{size[1]}"

  def _read(self, path: Path) -> Fitted | None:
    if path.suffix == ".part":
      return None
    try:
      data = path.read_bytes()
      os.utime(path)
      return _decode(data)
    except FileNotFoundError:  # another process may let it go at any time
      return None
    except ValueError:
      path.unlink(missing_ok=True)
      return None


def _encode(medium: Fitted) -> bytes:
  """Without the hash of its path, which has another key in another run."""
  record = {k: v for k, v in medium.provenance.items() if k != "file"}
  item = {"medium": dataclasses.replace(medium, provenance=record)}
  data = shards.encode({"messages": [{"role": "user", "content": [item]}]})
  return hashlib.sha256(data).digest() + data


def _decode(data: bytes) -> Fitted:
  """What `_encode` was given; raises ValueError if it is not whole."""
  if hashlib.sha256(memoryview(data)[_CHECKSUM:]).digest() != data[:_CHECKSUM]:
    raise ValueError("a damaged entry")
  medium: Fitted = shards.decode(data[_CHECKSUM:])["messages"][0]["content"][0]["medium"]
  return medium


def _described(paths: Iterable[Path]) -> Iterator[tuple[int, int, Path]]:
  """When each file was last used, its bytes, its path."""
  for path in paths:
    with contextlib.suppress(FileNotFoundError):
      stat = path.stat()
      yield stat.st_mtime_ns, stat.st_size, path


def _identity(path: Path) -> list[list[str | int]]:
  """Name, bytes and time of change of a file and those beside it that belong to it, or of all files
  in a folder and below, links followed.  Raises OSError."""
  if path.is_dir():
    files = [Path(top) / name for top, _, names in os.walk(path) for name in names]
  elif path.suffix.lower() in _PAIRED:
    files = [p for p in path.parent.iterdir() if p.name.startswith(f"{path.stem}.")]
  else:
    files = [path]
  found: list[list[str | int]] = []
  for file in sorted(files):
    stat = file.stat()
    found.append([os.path.realpath(file), stat.st_size, stat.st_mtime_ns])
  return found


def _shared_key(path: Path) -> bytes:
  """The key of all processes that use the folder; the first makes it, whole."""
  if not path.exists():
    new = path.with_name(f"key.{secrets.token_hex(8)}")
    privacy.read_key(new)
    with contextlib.suppress(FileExistsError):
      os.link(new, path)
    new.unlink()
  return privacy.read_key(path)
