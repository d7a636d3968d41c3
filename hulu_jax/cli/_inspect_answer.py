"""What `hulu inspect` knows of one file under one preset: the object that `--json` prints."""

from collections.abc import Mapping, Sequence
import math
from pathlib import Path
import re
from typing import Any

from hulu_jax import media as media_lib
from hulu_jax.data import chat
from hulu_jax.data.schema import PATCH
from hulu_jax.data.schema import Visual
from hulu_jax.data.vision import Policy

_TOWARDS = {
  "R": "left to right",
  "L": "right to left",
  "A": "back to front",
  "P": "front to back",
  "S": "feet to head",
  "I": "head to feet",
}
_SIDES = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
# Qwen's tokenizers give a run of letters, a digit and a sign one token each in what the chat
# template writes around frames.
_WORDS = re.compile(r"[A-Za-z]+|.", re.DOTALL)


def describe(path: Path, media: media_lib.Media, visual: Visual, policy: Policy) -> dict[str, Any]:
  """Plain numbers and strings, None where not known; nothing about a patient.

  docs/media.md documents every key.
  """
  per_frame = visual.keep.shape[1]
  return {
    "kind": media.kind,
    "format": media.provenance.get("format"),
    "bytes": size_on_disk(path),
    "frames": len(media.frames),
    "frames_available": _available(media),
    "size": list(media.frames.shape[1:3]),
    "channels": media.frames.shape[3],
    "modality": media.modality,
    "units": media.units,
    "window": _rounded(media.window),
    "rgb_windows": None if media.rgb_windows is None else [_rounded(w) for w in media.rgb_windows],
    "value_range": _rounded(media.value_range),
    "plane": media.plane,
    "oblique_degrees": _one(media.oblique_degrees),
    "orientation": media.axis_codes,
    "orientation_words": orientation(media),
    "spacing_mm": _rounded(media.spacing_mm),
    "affine": None if media.affine is None else [_rounded(row) for row in media.affine],
    "slices": None if media.slices is None else list(media.slices),
    "fps": _one(media.fps),
    "timestamps": _rounded(media.timestamps),
    "preset": policy.preset,
    "resized": [n * PATCH for n in visual.grid],
    "grid": list(visual.grid),
    "merge": visual.merge,
    "swap_sides": media.kind in policy.swap_sides,
    "patch_bytes": visual.patches.nbytes,
    "compression": policy.compression.mode,
    "threshold_grey": policy.compression.grey,
    "threshold_hu": policy.compression.hu,
    "max_tokens": policy.max_tokens,
    "tokens_per_frame": per_frame,
    "tokens": visual.keep.size,
    "tokens_kept": int(visual.keep.sum()),
    "decoder_tokens": decoder_tokens(media, visual),
    "provenance": {k: _one(v) if isinstance(v, float) else v for k, v in media.provenance.items()},
    "notes": list(media.notes),
  }


def _available(media: media_lib.Media) -> int | None:
  """Slices of the displayed volume, or frames of the clip, from which some were taken."""
  key = {"volume": "slices_in_volume", "video": "frames"}.get(media.kind, "")
  count = media.provenance.get(key)
  return None if count is None else int(count)


def orientation(media: media_lib.Media) -> str | None:
  """How a volume is shown, in plain words; None for images and clips."""
  if media.kind != "volume":
    return None
  degrees = media.oblique_degrees or 0.0
  # As stored or in array order: slices that lie in no plane, or in one that nobody asked for.
  name = media.plane or str(media.provenance.get("plane", "as stored"))
  if media.plane is None and degrees:
    name = "no plane"
  words = name + (f", {degrees:.1f} degrees oblique" if degrees >= 0.1 else "")
  codes = media.axis_codes
  if codes is None:
    return f"{words}; sides not known"
  up, left = (_SIDES[_OPPOSITE[codes[k]]] for k in (1, 2))
  return f"{words}, {_TOWARDS[codes[0]]}; {up} of the patient up, {left} on the viewer's left"


def decoder_tokens(media: media_lib.Media, visual: Visual) -> int:
  """Positions of the decoder that a user's message with this medium alone takes.

  Kept visual tokens, the template around them, and the commas and times between frames as Qwen's
  tokenizers split them.
  """
  message = {"role": "user", "content": [{"type": media.kind}]}
  pieces = chat.render([message], [chat.Entry(len(media.frames), media.timestamps)])
  around = sum(len(_WORDS.findall(p.text or "")) + (p.special is not None) for p in pieces)
  return around + int(visual.keep.sum())


def title(answer: dict[str, Any]) -> list[str]:
  """Lines for the head of a contact sheet."""
  grey = shown(answer)
  lines = [f"preset {answer['preset']}: {answer['kind']}" + ("" if grey is None else f", {grey}")]
  return lines + ([answer["orientation_words"]] if answer["orientation_words"] else [])


def shown(answer: Mapping[str, Any]) -> str | None:
  """How values became grey levels, from an answer of `describe`; None for pictures as they are."""
  alone = answer["preset"] == "hulumed" and answer["kind"] == "volume"
  words = [_levels(answer), "each slice stretched by itself" if alone else None]
  return ", then ".join(w for w in words if w is not None) or None


def _levels(answer: Mapping[str, Any]) -> str | None:
  if answer["rgb_windows"] is not None:
    return " + ".join(f"{c:g}/{w:g}" for c, w in answer["rgb_windows"]) + " HU (red, green, blue)"
  if answer["window"] is not None:
    centre, width = answer["window"]
    return f"centre {centre:g}, width {width:g} HU"
  if answer["value_range"] is not None:
    low, high = answer["value_range"]
    return f"{number(low)} to {number(high)} {answer['units'] or ''}".rstrip()
  return None


def number(value: float) -> str:
  """Three digits or all that stand before the point."""
  return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def size_on_disk(path: Path) -> int:
  """Bytes of a file, or of all files of a folder and the folders below it."""
  files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
  return sum(f.stat().st_size for f in files)


def _one(value: float | None) -> float | None:
  """JSON knows no infinity, and a header may hold one."""
  return None if value is None or not math.isfinite(value) else round(float(value), 6)


def _rounded(values: Sequence[float] | None) -> list[float | None] | None:
  return None if values is None else [_one(v) for v in values]
