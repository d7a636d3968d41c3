"""Where a reader may go: below its root, and only to files and folders."""

from collections.abc import Iterator
import glob
import os
from pathlib import Path
import stat

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.limits import Limits

_ASK = "pass root= (the folder all links lie in) if that is intended"
# Files that a reader opens beside the one it was given.
_PAIRED = {".head", ".brik", ".par", ".rec", ".hdr", ".img"}


def inside(root: Path, path: Path) -> Path:
  """`path` as it is, if it and all links on its way lead to somewhere in `root`.

  Raises BadRecord("path") otherwise; whether there is such a file is not asked.
  """
  if not _resolved(path).is_relative_to(_resolved(root)):
    raise BadRecord("path", f"a path that leaves its root; {_ASK}")
  return path


def check(path: Path, root: Path | None, limits: Limits) -> os.stat_result:
  """What `path` is, if it may be opened: a file or a folder in `root`, with all a folder holds.

  Without a root a folder is its own: an entry that links out of it is refused.  Pipes, sockets and
  devices are never opened, as they may never answer.  Raises BadRecord.
  """
  if root is not None:
    inside(root, path)
  try:
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
      _check_folder(path, path if root is None else root, limits)
    elif not stat.S_ISREG(found.st_mode):
      raise BadRecord("path", "neither a file nor a folder")
    elif path.suffix.lower() in _PAIRED:
      _check_pair(path, path.parent if root is None else root)
  except FileNotFoundError:
    raise BadRecord("missing", "no such file or folder") from None
  except OSError as error:
    raise BadRecord("missing", f"it cannot be opened ({type(error).__name__})") from None
  return found


def _check_folder(folder: Path, root: Path, limits: Limits) -> None:
  files = absent = 0
  for entry in _entries(folder):
    files += 1
    limits.within("files in a folder", files, limits.max_files)
    if entry.is_symlink():
      inside(root, Path(entry.path))
    there = os.path.exists(entry.path)
    absent += not there
    if there and not (entry.is_file() or entry.is_dir()):
      raise BadRecord("path", "a folder that holds a pipe, socket or device; expected files")
  if absent:
    raise BadRecord("missing", f"{absent} of {files} entries link to a file that is not there")


def _entries(folder: Path) -> Iterator[os.DirEntry]:
  """All in a folder and the folders below it, but for what is hidden: no reader opens that."""
  waiting = [folder]
  while waiting:
    with os.scandir(waiting.pop()) as entries:
      for entry in (e for e in entries if not e.name.startswith(".")):
        waiting += [Path(entry.path)] if entry.is_dir(follow_symlinks=False) else []
        yield entry


def _check_pair(path: Path, root: Path) -> None:
  for other in path.parent.glob(f"{glob.escape(path.stem)}.*"):
    if other.is_symlink() and other != path:
      inside(root, other)
    if other.exists() and not (other.is_file() or other.is_dir()):
      raise BadRecord("path", "a pipe, socket or device beside the header; expected a file")


def _resolved(path: Path) -> Path:
  try:
    return path.resolve()
  except (OSError, RuntimeError):  # links that lead in a circle
    raise BadRecord("path", "links that lead in a circle") from None
