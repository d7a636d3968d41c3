"""Pixels of a DICOM file as stored: only the asked frames are read and decoded, colours as RGB."""

from collections.abc import Iterable, Iterator
import os
from pathlib import Path
import struct
from typing import BinaryIO

import numpy as np
from pydicom import pixels
from pydicom import uid as uids
from pydicom.dataset import Dataset

from hulu_jax.media.dicom import compressed
from hulu_jax.media.dicom import encapsulated
from hulu_jax.media.dicom import film
from hulu_jax.media.dicom import form as form_lib
from hulu_jax.media.dicom import header
from hulu_jax.media.dicom import palette
from hulu_jax.media.dicom.form import Form
from hulu_jax.media.errors import BadRecord

_UNDEFINED = 0xFFFFFFFF
_PIXEL_VRS = {b"OB", b"OW", b"OF", b"OD", b"UN"}


def decode(path: Path, taken: Iterable[int]) -> tuple[np.ndarray, Dataset]:
  """Frames `taken` as stored: [T, H, W] or, in colour, uint8 RGB [T, H, W, 3]; and the header.

  Raises BadRecord unless every asked frame is there, of the size that the header says.
  """
  wanted = [int(k) for k in taken]
  if not wanted:
    raise BadRecord("options", "no frame was asked for")
  out, read = np.empty(0), Dataset()
  for number, (frame, dataset) in enumerate(iterate(path, wanted)):
    if number == 0:
      read = dataset
      out = np.empty((len(wanted), *frame.shape), frame.dtype)
    if frame.shape != out.shape[1:] or frame.dtype != out.dtype:
      raise BadRecord("format", "frames of different depth in one file")
    out[number] = frame
  return out, read


def iterate(path: Path, wanted: list[int]) -> Iterator[tuple[np.ndarray, Dataset]]:
  """Each asked frame, [H, W] or uint8 RGB [H, W, 3], in the order asked, and the file's header.

  One frame is held at a time.  Raises BadRecord as `decode` does.
  """
  with open(path, "rb") as file:
    dataset = header.read_to_pixels(file)
    tag, vr, length = _element(file, dataset)
    form = form_lib.describe(dataset, tag, vr)
    if any(not 0 <= k < form.shape[0] for k in wanted):
      raise BadRecord("options", f"a frame beyond the {form.shape[0]} in the file")
    for frame in _frames(file, form, length, dataset, wanted):
      if form.photometric == "PALETTE COLOR":
        frame = palette.apply(frame, dataset, form.order)
      yield (frame if frame.ndim == 2 else _to_bytes(frame, form)), dataset


def _element(file: BinaryIO, dataset: Dataset) -> tuple[int, str, int]:
  """Tag, VR ("" where implicit) and length of the pixels; leaves `file` at their first byte."""
  order = "<" if dataset.original_encoding[1] else ">"
  start = file.read(8)
  if len(start) < 8:
    raise BadRecord("format", "a DICOM file without PixelData")
  group, element = struct.unpack_from(f"{order}HH", start)
  tag = group << 16 | element
  if tag not in (form_lib.INTEGERS, form_lib.FLOATS, form_lib.DOUBLES):
    raise BadRecord("format", "a DICOM file without PixelData")
  # Some files are implicit against their transfer syntax; read as a length, a VR would be odd.
  explicit = start[4:6] in _PIXEL_VRS
  length = struct.unpack(f"{order}L", file.read(4) if explicit else start[4:])[0]
  return tag, start[4:6].decode() if explicit else "", length


def _frames(
  file: BinaryIO, form: Form, length: int, dataset: Dataset, wanted: list[int]
) -> Iterator[np.ndarray]:
  """Each asked frame with its colours as RGB, of any depth, or still numbers of a palette."""
  native = form.syntax in uids.UID_dictionary and not form.syntax.is_compressed
  if native != (length != _UNDEFINED):
    found = "in fragments" if native else "that are not in fragments"
    raise BadRecord("format", f"pixels {found} in {form.syntax_name}")
  if native:
    yield from _native(file, form, length, wanted)
    return
  if film.is_film(form.syntax):
    yield from film.decode(file, form, wanted)
    return
  compressed.check_syntax(form)
  fragments = encapsulated.scan(file)
  bounds = encapsulated.split(file, fragments, dataset, form.shape[0])
  for k in wanted:
    frame = compressed.decode(encapsulated.frame(file, fragments, bounds[k : k + 2]), form)
    yield _used_bits(frame, form) if form.syntax == uids.RLELossless else frame


def _native(file: BinaryIO, form: Form, length: int, wanted: list[int]) -> Iterator[np.ndarray]:
  """Uncompressed frames, read one by one."""
  frames, rows, columns, samples = form.shape
  if form.photometric == "YBR_FULL_422" and (columns % 2 or form.planar or form.allocated != 8):
    raise BadRecord("format", "YBR_FULL_422 needs an even number of columns and 8 bits")
  if form.photometric not in ("RGB", "YBR_FULL", "YBR_FULL_422") and samples == 3:
    raise BadRecord("format", f"{form.photometric} in {form.syntax_name}")
  per_pixel = 2 if form.photometric == "YBR_FULL_422" else samples
  each = rows * columns * per_pixel * form.allocated  # bits: frames of 1 bit share bytes
  _check_length(each, frames, length, os.fstat(file.fileno()).st_size - file.tell())
  start = file.tell()
  for k in wanted:
    first, last = k * each // 8, -(-(k + 1) * each // 8)
    if form.swapped:
      first, last = first - first % 2, last + last % 2
    file.seek(start + first)
    data = np.frombuffer(file.read(last - first), np.uint8)
    if form.swapped:
      data = np.pad(data, (0, len(data) % 2)).reshape(-1, 2)[:, ::-1].ravel()
      data = data[k * each // 8 - first :][: each // 8]
    if form.allocated == 1:
      data = np.unpackbits(data, bitorder="little")[k * each - 8 * first :][:each]
    frame = _used_bits(_arrange(data.view(form.dtype), form), form)
    if form.photometric.startswith("YBR"):
      frame = pixels.convert_color_space(_to_bytes(frame, form), "YBR_FULL", "RGB")
    yield frame


def _check_length(each: int, frames: int, declared: int, there: int) -> None:
  """each: bits of a frame; declared, there: bytes that the element and the file have for all."""
  needed = -(-each * frames // 8)
  if min(declared, there) < needed:
    found = f"{min(declared, there):,} bytes of pixels where {frames} frames need {needed:,}"
    raise BadRecord("format", f"{found}: the file is cut off or damaged")
  # Less than a frame too much is padding; more means that the header is wrong.
  if declared > needed + 1 and (declared - needed) * 8 >= each:
    raise BadRecord("format", f"{declared:,} bytes of pixels; {frames} frames need {needed:,}")


def _arrange(data: np.ndarray, form: Form) -> np.ndarray:
  """Samples in the order of the file to [H, W] or [H, W, 3]."""
  _, rows, columns, samples = form.shape
  if samples == 1:
    return data.reshape(rows, columns)
  if form.photometric == "YBR_FULL_422":  # Y1 Y2 B R for two pixels: PS3.3 C.7.6.3.1.2
    pairs = data.reshape(rows, columns // 2, 4)
    shared = np.repeat(pairs[:, :, None, 2:], 2, axis=2)
    whole = np.concatenate([pairs[:, :, :2, None], shared], axis=-1)
    return whole.reshape(rows, columns, 3)
  if form.planar:
    return data.reshape(samples, rows, columns).transpose(1, 2, 0)
  return data.reshape(rows, columns, samples)


def _used_bits(frame: np.ndarray, form: Form) -> np.ndarray:
  """In the machine's byte order, without the bits that are not stored: overlays, or rubbish."""
  frame = frame.astype(frame.dtype.newbyteorder("="))
  if form.stored < form.allocated:
    frame <<= form.allocated - 1 - form.high
    frame >>= form.allocated - form.stored  # of signed numbers, repeats the sign
  return frame


def _to_bytes(frame: np.ndarray, form: Form) -> np.ndarray:
  """A colour frame of any depth to uint8."""
  if frame.dtype == np.uint8 and form.stored >= 8:
    return frame
  return (frame.astype(np.float64) * (255 / (2.0**form.stored - 1)) + 0.5).astype(np.uint8)
