"""Decodes one compressed frame, by the same decoder on every machine."""

import io
from typing import Any

import numpy as np
import openjpeg
import PIL.Image
from pydicom import uid as uids
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.pixels import get_decoder

from hulu_jax.media.dicom import codestream
from hulu_jax.media.dicom.form import Form
from hulu_jax.media.errors import BadRecord

_JPEG = (uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit)
# Of several decoders pydicom would take the first that is installed.
_PLUGINS = {
  uids.RLELossless: "pydicom",
  uids.JPEGBaseline8Bit: "pylibjpeg",
  uids.JPEGExtended12Bit: "pylibjpeg",
  uids.JPEGLossless: "pylibjpeg",
  uids.JPEGLosslessSV1: "pylibjpeg",
  uids.JPEGLSLossless: "pyjpegls",
  uids.JPEGLSNearLossless: "pyjpegls",
}
_ONLY_JPEG_2000 = ("YBR_ICT", "YBR_RCT")
_GPL_CODEC = "a GPL codec does: pip install 'hulu_jax[gpl-codecs]'"


def check_syntax(form: Form) -> None:
  """Raises BadRecord if no frame of this transfer syntax and colour space can be decoded."""
  jpeg_2000 = form.syntax in uids.JPEG2000TransferSyntaxes
  if form.syntax not in _PLUGINS and not jpeg_2000:
    raise BadRecord("format", f"compressed pixels in {form.syntax_name}, which is not read")
  if form.photometric == "YBR_PARTIAL_420" or (
    form.photometric in _ONLY_JPEG_2000 and not jpeg_2000
  ):
    raise BadRecord("format", f"{form.photometric} in {form.syntax_name}; no such form is known")


def decode(data: bytes, form: Form) -> np.ndarray:
  """[H, W] as stored or RGB [H, W, 3] of one frame, `form`'s rows and columns large.

  Raises BadRecord if the frame is not as the header says, is damaged, or needs a decoder that is
  not installed.
  """
  try:
    return _decode(data, form)
  except BadRecord:
    raise
  except Exception as error:  # each decoder raises others
    name = type(error).__name__
    raise BadRecord("format", f"a compressed frame that cannot be decoded ({name})") from None


def _decode(data: bytes, form: Form) -> np.ndarray:
  if form.syntax == uids.RLELossless:
    return _plugin(data, form)
  found = codestream.parse(data)
  size = (found.rows, found.columns, found.components)
  if size != form.shape[1:]:
    one, other = (" x ".join(map(str, s)) for s in (size, form.shape[1:]))
    raise BadRecord("format", f"a compressed frame of {one} samples; the header says {other}")
  if not 0 < found.precision <= form.allocated:
    bits = f"{found.precision} bits; the header allocates {form.allocated}"
    raise BadRecord("format", f"a compressed frame of {bits}")
  if form.syntax in uids.JPEG2000TransferSyntaxes:
    return _jpeg_2000(data, form, found)
  if form.syntax in _JPEG and found.precision == 8:
    return _jpeg(data, form, found)
  if _PLUGINS[form.syntax] not in get_decoder(form.syntax).available_plugins:
    what = f"{found.precision}-bit pixels in {form.syntax_name}"
    raise BadRecord("format", f"{what}, which no installed decoder reads; {_GPL_CODEC}")
  return _plugin(data, form)


def _plugin(data: bytes, form: Form) -> np.ndarray:
  """By pydicom, which restores the sign that the header declares and makes RGB of YBR."""
  _, rows, columns, samples = form.shape
  decoder = get_decoder(form.syntax)
  options: dict[str, Any] = {
    "rows": rows,
    "columns": columns,
    "samples_per_pixel": samples,
    "number_of_frames": 1,
    "photometric_interpretation": form.photometric,
    "planar_configuration": 0,
    "bits_allocated": form.allocated,
    "bits_stored": form.stored,
    "pixel_representation": int(form.dtype.kind == "i"),
  }
  if form.syntax == uids.RLELossless:
    options["correct_unused_bits"] = False  # done by the caller, who knows HighBit
  plugin = _PLUGINS[form.syntax]
  frame, _ = decoder.as_array(encapsulate([data]), index=0, decoding_plugin=plugin, **options)
  return frame


def _jpeg(data: bytes, form: Form, found: codestream.Codestream) -> np.ndarray:
  """JPEG of 8 bits.  What the frame says of its colours goes before what the header says."""
  image = PIL.Image.open(io.BytesIO(data), formats=("JPEG",))
  marked = "jfif" in image.info or "adobe_transform" in image.info or found.named_rgb
  if form.photometric == "RGB" and not marked:
    image.draft("YCbCr", image.size)  # as it is: unmarked colours are not converted
  frame = np.array(image)
  return frame.view(np.int8) if form.dtype.kind == "i" else frame


def _jpeg_2000(data: bytes, form: Form, found: codestream.Codestream) -> np.ndarray:
  """JPEG 2000 and its high-throughput form, with the sign that the header declares."""
  frame = openjpeg.decode(data).astype(form.dtype.newbyteorder("="))
  unused = form.allocated - found.precision
  if unused and found.signed != (form.dtype.kind == "i"):
    frame <<= unused
    frame >>= unused
  if form.photometric.startswith("YBR_FULL"):  # the codestream's own transform gives RGB
    frame = convert_color_space(frame, "YBR_FULL", "RGB")
  return frame
