"""Silences the decoders' own logs and warnings: they quote paths, names and dates."""

from collections.abc import Iterator
import contextlib
import contextvars
import logging
import threading
import warnings

from PIL import JpegImagePlugin
from PIL import MpoImagePlugin
from PIL import PngImagePlugin
from PIL import TiffImagePlugin
from PIL import WebPImagePlugin

_LIBRARIES = ("PIL", "_openjpeg", "jpeg_ls", "libav", "nibabel", "openjpeg", "pydicom", "pylibjpeg")
# Pillow would load these, and make their loggers, in the midst of the first picture.
_PLUGINS = (JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
_INSIDE = contextvars.ContextVar("a decoder is at work in this thread", default=False)
_LOCK = threading.Lock()


class _OnlyInside:
  """Stands where a warning filter has its pattern, and a logger its filter.

  Filters belong to the process, and `warnings.catch_warnings` in two threads at once leaves them as
  neither found them: so ours stay, and match nothing but what is said while this thread decodes.
  """

  def match(self, text: str) -> bool:
    """Whether a warning is to be ignored, whatever it says."""
    del text
    return _INSIDE.get()

  def filter(self, record: logging.LogRecord) -> bool:
    """Whether a record is to be logged."""
    del record
    return not _INSIDE.get()


_OURS = _OnlyInside()
_IGNORE = ("ignore", _OURS, Warning, None, 0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Within, in this thread only: no warnings, and no logs of `_LIBRARIES`."""
  _install()
  token = _INSIDE.set(True)
  try:
    yield
  finally:
    _INSIDE.reset(token)


def _install() -> None:
  """Puts the filters in front, where a later one of the caller's may have come before."""
  with _LOCK:
    for name, logger in list(logging.root.manager.loggerDict.items()):
      if name.split(".")[0] in _LIBRARIES and isinstance(logger, logging.Logger):
        logger.addFilter(_OURS)  # once, however often
    filters = warnings.filters
    if not filters or filters[0] is not _IGNORE:
      filters[:] = [_IGNORE, *(f for f in filters if f is not _IGNORE)]  # type: ignore[index]


_install()
