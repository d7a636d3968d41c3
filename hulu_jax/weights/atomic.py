"""A folder that is there whole or not at all, whatever kills its writer."""

from collections.abc import Iterator
from concurrent import futures
import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import uuid

# What a folder that may be replaced holds: a checkpoint of some layout, and nothing else is lost.
_MARKS = ("config.json", "model.json")


@contextlib.contextmanager
def folder(
  target: pathlib.Path, *, source: pathlib.Path | None = None, force: bool
) -> Iterator[pathlib.Path]:
  """A new folder beside `target` that takes its name once the block ends without an error.

  Everything in it is on the disk before that.  What a killed writer left is removed by the next.

  source: what is read meanwhile; it may not be replaced.

  Raises:
    FileExistsError: `target` is there and `force` is not given, or what is there is no checkpoint.
    OSError: among others a full disk; what was written is removed.
  """
  target = target.absolute()
  check_target(target, source, force=force)
  try:
    with scratch(target) as new:
      yield new
      _sync(new)
      _rename(new, target)
  except OSError as error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
      raise OSError(error.errno, f"the disk of {target.parent} is full: nothing written") from error
    raise


@contextlib.contextmanager
def scratch(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder beside `target` for what is only needed meanwhile; a killed writer's is removed."""
  _remove_leftovers(target.absolute())
  new = _aside(target.absolute())
  new.mkdir()
  lock = os.open(new, os.O_RDONLY)
  fcntl.flock(lock, fcntl.LOCK_EX)
  try:
    yield new
  finally:
    shutil.rmtree(new, ignore_errors=True)
    os.close(lock)


def _aside(target: pathlib.Path) -> pathlib.Path:
  return target.parent / f".{target.name}.partial-{uuid.uuid4().hex[:8]}"


def check_space(parent: pathlib.Path, needed: int) -> None:
  """Raises OSError if `needed` bytes are more than the disk has left."""
  free = shutil.disk_usage(parent).free
  if needed > free:
    message = f"{needed:,} bytes are needed in {parent}, {free:,} are free: nothing written"
    raise OSError(errno.ENOSPC, message)


def check_target(target: pathlib.Path, source: pathlib.Path | None, *, force: bool) -> None:
  """Raises as `folder` does for a target that may not be written, before any work is done."""
  if not target.parent.is_dir():
    raise FileNotFoundError(f"no folder {target.parent} to write {target.name} in")
  if not os.path.lexists(target):
    return
  if not force:
    raise FileExistsError(f"{target} exists; --force replaces it")
  if target.is_symlink() or not target.is_dir():
    raise FileExistsError(f"{target} is no folder; --force replaces folders only")
  if source is not None and source.resolve().is_relative_to(target.resolve()):
    raise FileExistsError(f"{target} holds what is converted; choose another place")
  if any(target.iterdir()) and not any((target / mark).is_file() for mark in _MARKS):
    raise FileExistsError(
      f"{target} holds neither {' nor '.join(_MARKS)}: no checkpoint, so --force leaves it alone"
    )


def _remove_leftovers(target: pathlib.Path) -> None:
  """Of writers that are gone: the system drops a lock with its holder."""
  for old in target.parent.glob(f".{target.name}.partial-*"):
    descriptor = os.open(old, os.O_RDONLY)
    try:
      if _take(descriptor):
        shutil.rmtree(old)
    finally:
      os.close(descriptor)


def _take(lock: int) -> bool:
  """Whether a lock is free, and now ours; not if someone is at work there."""
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def _sync(root: pathlib.Path) -> None:
  """All at once: the disk then commits hundreds of small files in a few strokes."""
  paths = [os.path.join(path, name) for path, _, names in os.walk(root) for name in [*names, ""]]
  with futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(_sync_one, paths))  # asked for, an error is raised


def _sync_one(path: str | pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _rename(new: pathlib.Path, target: pathlib.Path) -> None:
  """An old folder steps aside first: a kill between the two renames leaves none, never half."""
  old = _aside(target)
  if target.exists():
    target.rename(old)
  new.rename(target)
  _sync_one(target.parent)
  shutil.rmtree(old, ignore_errors=True)
