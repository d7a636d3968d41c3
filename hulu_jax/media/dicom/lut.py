"""Look-up tables that a DICOM header carries: from stored to measured values, and for display."""

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.windows import Table


def read(item: Dataset, *, signed: bool, big_endian: bool) -> Table:
  """The table of an item of ModalityLUTSequence or VOILUTSequence (PS3.3 C.11.1.1 and C.11.2.1.1).

  signed: whether the values that go in can be negative; the header may give the first of them in
  16 bits of either kind.  big_endian: of the file, for tables stored as bytes (OW).  Raises
  BadRecord for a table that is shorter than it says.
  """
  descriptor = _numbers(item.get("LUTDescriptor"))
  if len(descriptor) != 3:
    raise BadRecord("format", f"a look-up table described by {len(descriptor)} numbers; expected 3")
  count, first, bits = descriptor[0] % 65536 or 65536, descriptor[1], descriptor[2]
  if not 8 <= bits <= 16:
    raise BadRecord("format", f"a look-up table of {bits} bits; expected 8 to 16")
  entries = _entries(item.get("LUTData"), count, big_endian)
  if len(entries) < count:
    raise BadRecord("format", f"a look-up table of {len(entries)} entries; expected {count}")
  first %= 65536
  if signed and first >= 32768:
    first -= 65536
  entries = entries[:count]
  # Some files understate the bits; the table then still has to end at white.
  top = 2 ** max(bits, int(entries.max()).bit_length()) - 1
  return Table(first, entries, top)


def _entries(data: object, count: int, big_endian: bool) -> np.ndarray:
  """uint16 entries; bytes hold one entry each where there are only as many as entries."""
  if not isinstance(data, bytes):
    return (np.array(_numbers(data), np.int64) % 65536).astype(np.uint16)
  if len(data) in (count, count + count % 2):
    return np.frombuffer(data, np.uint8).astype(np.uint16)
  words = np.frombuffer(data[: len(data) // 2 * 2], ">u2" if big_endian else "<u2")
  return words.astype(np.uint16)


def _numbers(value: object) -> list[int]:
  if value is None:
    return []
  return [int(v) for v in np.atleast_1d(np.asarray(value)).tolist()]
