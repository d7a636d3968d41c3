"""Keyed hashes: the only form in which a path or a UID may leave a reader.

A plain hash of a name or a UID can be guessed; HMAC-SHA256 cannot without the key.  The key is
drawn anew in every process, so hashes of two runs cannot be joined.  Who must join them passes
`key=` to `read`, and guards that key as the data themselves.
"""

from collections.abc import Iterator
import contextlib
import contextvars
import hashlib
import hmac
import os
from pathlib import Path
import secrets
import stat

_LENGTH = 16  # hex digits: 64 bits, enough to tell a billion files apart
_LEAST_KEY = 16  # bytes
_OWN_KEY = secrets.token_bytes(32)
_KEY = contextvars.ContextVar("key of media hashes", default=_OWN_KEY)


def digest(text: str, *, key: bytes | None = None) -> str:
  """16 hex digits that stand for `text` (a path, a UID); key: None is that of the running read."""
  return _digest(text.encode("utf-8", "surrogateescape"), key)


def file_hash(path: str | Path, *, key: bytes | None = None) -> str:
  """`digest` of the absolute path, links as they are, so that a caller can look a hash up."""
  return _digest(os.path.abspath(os.fsencode(path)), key)


def _digest(data: bytes, key: bytes | None) -> str:
  return hmac.new(key or _KEY.get(), data, hashlib.sha256).hexdigest()[:_LENGTH]


def current_key() -> bytes:
  """The key of the running read, or this process's own."""
  return _KEY.get()


@contextlib.contextmanager
def keyed(key: bytes | None) -> Iterator[None]:
  """Within: `digest` uses `key`; None leaves the key as it is.  ValueError for a short key."""
  if key is not None and len(key) < _LEAST_KEY:
    raise ValueError(f"a key of {len(key)} bytes; expected at least {_LEAST_KEY}")
  token = _KEY.set(key or _KEY.get())
  try:
    yield
  finally:
    _KEY.reset(token)


def read_key(path: str | Path) -> bytes:
  """The key kept in a file, which is made (32 random bytes, for its owner only) if absent.

  Raises:
    ValueError: a file that others may read, or of fewer than 16 bytes.
    OSError: it cannot be read or made.
  """
  path = Path(path)
  if not path.exists():
    made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(made, "wb") as file:
      file.write(secrets.token_bytes(32))
  if stat.S_IMODE(path.stat().st_mode) & 0o077:
    raise ValueError("a key file that others may read; expected chmod 600")
  key = path.read_bytes()
  if len(key) < _LEAST_KEY:
    raise ValueError(f"a key file of {len(key)} bytes; expected at least {_LEAST_KEY}")
  return key
