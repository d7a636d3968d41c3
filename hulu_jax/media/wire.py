"""Requests and answers between `worker.Reader` and its process: JSON and raw pixels, no pickle."""

from collections.abc import Callable, Mapping
import dataclasses
import json
import math
import struct
from typing import IO, Any, cast, get_type_hints

import numpy as np

from hulu_jax.media import from_json
from hulu_jax.media.errors import KINDS
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.errors import Kind
from hulu_jax.media.limits import Limits
from hulu_jax.media.types import Media
from hulu_jax.media.types import Options

_MOST_HEADER = 64 << 20  # bytes of JSON; a long clip has a time for every frame
_LENGTH = struct.Struct(">Q")
_TYPES = get_type_hints(Media)
_NOT_PLAIN = ("affine", "provenance")
_ROW = tuple[float, float, float, float]
_AFFINE = tuple[_ROW, _ROW, _ROW, _ROW]
_PLAIN = (str, int, float, bool)
Take = Callable[[int], bytes | bytearray]  # gives exactly so many bytes, or raises


class Garbled(Exception):
  """An answer that `send_answer` did not write."""


@dataclasses.dataclass(frozen=True)
class Request:
  """The arguments of one `read`, and how many seconds it may take; path and root are absolute."""

  path: str
  options: Options
  preset: str
  limits: Limits
  root: str | None
  key: bytes
  seconds: float


def send(stream: IO[bytes], header: Mapping[str, Any], raw: bytes | memoryview = b"") -> None:
  """Writes a header and the bytes that follow it."""
  text = json.dumps(header, default=np.generic.item).encode()
  stream.write(_LENGTH.pack(len(text)) + text)
  stream.write(raw)
  stream.flush()


def receive(take: Take) -> dict[str, Any]:
  """The next header; raises Garbled if it is none."""
  (length,) = _LENGTH.unpack(take(_LENGTH.size))
  if length > _MOST_HEADER:
    raise Garbled(f"a header of {length} bytes")
  try:
    header = json.loads(take(length))
  except ValueError as error:
    raise Garbled("a header that is not JSON") from error
  if not isinstance(header, dict):
    raise Garbled("a header that is no object")
  return header


def send_answer(stream: IO[bytes], answer: Media | BadRecord) -> None:
  """Writes what a read came to."""
  if isinstance(answer, BadRecord):
    send(stream, {"kind": answer.kind, "reason": answer.reason, "file": answer.file})
    return
  fields = {f.name: getattr(answer, f.name) for f in dataclasses.fields(Media)}
  frames = np.ascontiguousarray(fields.pop("frames"), np.uint8)
  affine = fields.pop("affine")
  fields |= {
    "affine": None if affine is None else np.asarray(affine, np.float64).tolist(),
    "provenance": dict(answer.provenance),
  }
  send(stream, {"shape": frames.shape, "media": fields}, frames.data.cast("B"))


def receive_answer(take: Take, limits: Limits) -> Media | BadRecord:
  """What a read came to, checked field by field: the other side may have been taken over.

  Raises Garbled for anything `send_answer` would not have written, or more pixels than allowed.
  """
  header = receive(take)
  if "kind" in header:
    kind, reason, file = (header.get(name) for name in ("kind", "reason", "file"))
    if kind not in KINDS or not isinstance(reason, str) or not isinstance(file, str):
      raise Garbled("an error of another form")
    return BadRecord(cast(Kind, kind), reason, file)
  try:
    shape = from_json.fit(header.get("shape"), tuple[int, int, int, int])
    fields = _checked(header.get("media"))
  except from_json.Mismatch as error:
    raise Garbled(str(error)) from error
  if min(shape) < 1 or shape[3] not in (1, 3) or math.prod(shape) > 3 * limits.max_voxels:
    raise Garbled("a shape that is none, or more pixels than allowed")
  frames = np.frombuffer(take(math.prod(shape)), np.uint8).reshape(shape)
  return Media(frames=frames, **fields)


def _checked(fields: Any) -> dict[str, Any]:
  """JSON values as the fields of `Media` they stand for; raises Mismatch or Garbled."""
  if not isinstance(fields, dict) or set(fields) != set(_TYPES) - {"frames"}:
    raise Garbled("other fields than those of Media")
  affine, provenance = fields["affine"], fields["provenance"]
  plain = isinstance(provenance, dict) and all(isinstance(v, _PLAIN) for v in provenance.values())
  if not plain:
    raise Garbled("a provenance that is not plain")
  out = {n: from_json.fit(v, _TYPES[n]) for n, v in fields.items() if n not in _NOT_PLAIN}
  matrix = None if affine is None else np.array(from_json.fit(affine, _AFFINE), np.float64)
  return out | {"affine": matrix, "provenance": provenance}


def send_request(stream: IO[bytes], wanted: Request) -> None:
  """Writes what is to be read."""
  fields = dataclasses.asdict(wanted)
  send(stream, fields | {"key": wanted.key.hex()})


def receive_request(take: Take) -> Request:
  """What is to be read."""
  fields = receive(take)
  return Request(
    **fields
    | {
      "options": from_json.options(fields["options"]),
      "limits": Limits(**fields["limits"]),
      "key": bytes.fromhex(fields["key"]),
    }
  )
