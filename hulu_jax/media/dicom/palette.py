"""PALETTE COLOR: stored numbers to colours, by the file's lookup tables (PS3.3 C.7.6.3.1.5)."""

import numpy as np
from pydicom.dataset import Dataset

from hulu_jax.media.errors import BadRecord

_COLOURS = ("Red", "Green", "Blue")
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def apply(stored: np.ndarray, dataset: Dataset, order: str) -> np.ndarray:
  """stored: integers of any shape -> uint8 [..., 3]; order: byte order of the file, "<" or ">".

  Numbers outside of the table take its first or last colour.  Raises BadRecord without tables.
  """
  tables = [_table(dataset, colour, order) for colour in _COLOURS]
  first = int(dataset.RedPaletteColorLookupTableDescriptor[1]) & 0xFFFF
  if stored.dtype.kind == "i" and first > 0x7FFF:  # the descriptor is as signed as the numbers
    first -= 0x10000
  lut = np.stack(tables, axis=-1)
  if lut.max() > 255:
    lut = lut >> 8
  index = np.clip(stored.astype(np.int64) - first, 0, len(lut) - 1)
  return lut.astype(np.uint8)[index]


def _table(dataset: Dataset, colour: str, order: str) -> np.ndarray:
  """uint16 [entries] of one colour.

  A table of 16 bits whose numbers are all below 256 is meant as 8 bits, as many writers have it.
  """
  descriptor = dataset.get(f"{colour}PaletteColorLookupTableDescriptor")
  if descriptor is None or len(descriptor) != 3:
    raise BadRecord("format", "PALETTE COLOR without its lookup tables")
  entries, bits = (int(descriptor[0]) & 0xFFFF) or 2**16, int(descriptor[2])
  if bits not in (8, 16):
    raise BadRecord("format", f"a colour table of {bits} bits; expected 8 or 16")
  data = dataset.get(f"{colour}PaletteColorLookupTableData")
  if data is None:
    return _segmented(dataset, colour, entries, bits, order)
  if len(data) >= 2 * entries:
    return np.frombuffer(data, f"{order}u2", count=entries).astype(np.uint16)
  if bits != 8 or len(data) < entries:
    raise BadRecord("format", f"a colour table of {len(data)} bytes for {entries} entries")
  packed = np.frombuffer(data, np.uint8)
  # Two entries to a word: big endian files hold them the other way round.
  if order == ">" and len(packed) % 2 == 0:
    packed = packed.reshape(-1, 2)[:, ::-1].ravel()
  return packed[:entries].astype(np.uint16)


def _segmented(dataset: Dataset, colour: str, entries: int, bits: int, order: str) -> np.ndarray:
  data = dataset.get(f"Segmented{colour}PaletteColorLookupTableData")
  if data is None:
    raise BadRecord("format", "PALETTE COLOR without its lookup tables")
  words = np.frombuffer(data, np.uint8 if bits == 8 else f"{order}u2")
  out: list[int] = []
  _expand(words, 0, None, entries, out)
  if len(out) != entries:
    raise BadRecord("format", f"a segmented colour table of {len(out)} entries, not {entries}")
  return np.array(out, np.uint16)


def _expand(words: np.ndarray, at: int, segments: int | None, most: int, out: list[int]) -> None:
  """Appends up to `segments` segments from word `at` on to `out` (PS3.3 C.7.9.2)."""
  done = 0
  while at + 2 < len(words) and done != segments and len(out) < most:
    kind, length, at = int(words[at]), int(words[at + 1]), at + 2
    if kind == _DISCRETE:
      out.extend(words[at : at + length].tolist())
      at += length
    elif kind == _LINEAR and out:
      out.extend(
        np.around(np.linspace(out[-1], int(words[at]), length + 1)[1:]).astype(int).tolist()
      )
      at += 1
    elif kind == _INDIRECT and segments is None and words.dtype.itemsize == 2:
      # Offsets are in bytes; the tables here are in words of 16 bits.
      offset = int(words[at]) | int(words[at + 1]) << 16
      _expand(words, offset // 2, length, most, out)
      at += 2
    else:
      raise BadRecord("format", "a segmented colour table that cannot be followed")
    done += 1
