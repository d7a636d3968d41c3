"""What a file that cannot be read becomes: a typed error that says why, never an empty image."""

from typing import Literal, get_args

# The closed list of kinds, for counting; mypy refuses any other.
Kind = Literal[
  "missing",  # no such file or folder, or it may not be opened
  "empty",  # a file of 0 bytes
  "path",  # it leads out of its root, or is neither a file nor a folder
  "format",  # damaged, truncated, or of a kind that is not read
  "limit",  # larger than `Limits` allow
  "geometry",  # slices or frames that do not form what they should
  "options",  # what the caller asked for does not apply to this file
  "timeout",  # a decoder that did not end in time (see `worker.Reader`)
  "crash",  # a decoder that took its process down with it
  "too_long",  # readable, but no row of a batch can hold it
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class BadRecord(ValueError):
  """A file or record that cannot be used.

  Attributes:
    kind: one of `KINDS`.
    reason: what was found and what was expected, without anything the file says about a patient.
    file: keyed hash of the path (`privacy.file_hash`), None for a record that names no file.
  """

  def __init__(self, kind: Kind, reason: str, file: str | None = None):
    super().__init__(f"{kind}: {reason}" + (f" (file {file})" if file else ""))
    self.kind = kind
    self.reason = reason
    self.file = file

  def at(self, file: str) -> "BadRecord":
    """The same, naming its file by hash: a fresh error, without the traceback and the causes of
    this one, in which a path may stand."""
    return BadRecord(self.kind, self.reason, self.file or file)
