"""`hulu inspect`: what a file is and what the model would see of it; starts without JAX."""

import argparse
from collections.abc import Sequence
import dataclasses
import json
from pathlib import Path
import sys
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from hulu_jax import media as media_lib
from hulu_jax.data import compression as compression_lib
from hulu_jax.data import overlay
from hulu_jax.data import vision
from hulu_jax.data.schema import Visual
from hulu_jax.media import windows

_EXAMPLE = """examples:
  hulu inspect ct_folder --window lung
  hulu inspect ct.nii.gz --modality CT --window 40/400 --json
  hulu inspect cine.dcm --compression hulumed --overlay kept.png"""


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    self.exit(2, f"hulu inspect: {message} (see hulu inspect --help)\n")


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit code, 2 for a bad file or option."""
  try:
    args = _parser().parse_args(argv)
  except SystemExit as stop:  # --help and bad arguments end argparse this way
    return int(stop.code or 0)
  try:
    media = media_lib.read(args.path, _options(args), preset=args.preset)
    visual = vision.visuals([media], _policy(args))[0]
    if args.overlay is not None:
      overlay.write_png(args.overlay, overlay.contact_sheet(media, visual))
  except (media_lib.BadRecord, ValueError) as error:
    print(f"hulu inspect: {args.path}: {error}", file=sys.stderr)
    return 2
  except OSError as error:  # readers turn theirs into BadRecord: this is the overlay
    print(f"hulu inspect: {args.overlay}: cannot be written ({error.strerror})", file=sys.stderr)
    return 2
  answer = describe(media, visual) | {"preset": args.preset, "compression": args.compression}
  if args.compression == "fixed":
    answer["threshold_grey"] = args.threshold
  if args.json:
    print(json.dumps(answer, allow_nan=False))
  else:
    _print_table(answer, args)
  return 0


def describe(media: media_lib.Media, visual: Visual) -> dict[str, Any]:
  """What `--json` prints: plain numbers and strings, nothing about a patient."""
  answer: dict[str, Any] = {
    "kind": media.kind,
    "frames": len(media.frames),
    "size": list(media.frames.shape[1:3]),
    "channels": media.frames.shape[3],
    "spacing_mm": _rounded(media.spacing_mm),
    "grid": list(visual.grid),
    "merge": visual.merge,
    "tokens": int(visual.keep.size),
    "tokens_kept": int(visual.keep.sum()),
  }
  more = {
    "modality": media.modality,
    "window": _rounded(media.window),
    "orientation": media.axis_codes,
    "fps": media.fps,
    "timestamps": _rounded(media.timestamps),
    "notes": list(media.notes) or None,
  }
  return answer | {key: value for key, value in more.items() if value is not None}


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog="hulu inspect",
    description="Show what a picture, volume or video is and what the model would see of it.",
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "path", metavar="FILE_OR_FOLDER", type=Path, help="a folder: one DICOM series"
  )
  parser.add_argument("--preset", choices=media_lib.PRESETS, default="radiology")
  named = ", ".join(windows.TABLE)
  parser.add_argument("--window", metavar="NAME|C/W", help=f"{named}, or centre/width in HU")
  parser.add_argument("--plane", choices=("axial", "coronal", "sagittal"))
  parser.add_argument("--modality", help="CT, MR, ...: for files that cannot say it (NIfTI, .npy)")
  parser.add_argument("--time-index", type=int, metavar="N", help="which volume of a 4D file")
  parser.add_argument("--frames", type=int, metavar="N", help="slices or frames at most")
  parser.add_argument("--fps", type=float, metavar="F", help="frames a second of a video")
  parser.add_argument(
    "--crop", metavar="T,L,B,R|ultrasound_region", help="cut to a box in pixels, or to the region"
  )
  parser.add_argument("--compression", choices=compression_lib.MODES, default="off")
  parser.add_argument(
    "--threshold",
    type=float,
    metavar="GREY",
    help="for --compression fixed: grey levels of mean change, a clinical choice",
  )
  parser.add_argument("--json", action="store_true", help="print one JSON object")
  parser.add_argument(
    "--overlay", type=Path, metavar="PNG", help="write a sheet of frames, dropped tokens shaded"
  )
  return parser


def _options(args: argparse.Namespace) -> media_lib.Options:
  return media_lib.Options(
    modality=args.modality,
    window=args.window,
    plane=args.plane,
    time_index=args.time_index,
    frames=args.frames,
    fps=args.fps,
    crop=_crop(args.crop),
  )


def _crop(text: str | None) -> str | tuple[int, int, int, int] | None:
  if text is None or text == "ultrasound_region":
    return text
  try:
    top, left, bottom, right = (int(v) for v in text.split(","))
  except ValueError as error:
    raise media_lib.BadRecord(
      "options", f"crop {text!r}; expected top,left,bottom,right or ultrasound_region"
    ) from error
  return top, left, bottom, right


def _policy(args: argparse.Namespace) -> vision.Policy:
  if args.compression == "fixed" and args.threshold is None:
    raise media_lib.BadRecord("options", "--compression fixed needs --threshold, in grey levels")
  grey = args.threshold if args.compression == "fixed" else None
  compression = compression_lib.Compression(mode=args.compression, grey=grey)
  return dataclasses.replace(vision.HULUMED, preset=args.preset, compression=compression)


def _rounded(numbers: Sequence[float] | None) -> list[float] | None:
  return None if numbers is None else [round(float(v), 6) for v in numbers]


def _print_table(answer: dict[str, Any], args: argparse.Namespace) -> None:
  table = Table(title="hulu inspect", show_header=False)
  for key, value in answer.items():
    if key != "notes" and value is not None:
      table.add_row(key, _shown(key, value, answer))
  for note in answer.get("notes", ()):
    table.add_row("note", note)
  if args.overlay is not None:
    table.add_row("overlay", str(args.overlay))
  Console().print(table)


def _shown(key: str, value: Any, answer: dict[str, Any]) -> str:
  match key:
    case "size" | "grid" | "spacing_mm":
      return " x ".join(f"{v:g}" for v in value)
    case "window":
      return f"centre {value[0]:g}, width {value[1]:g} HU"
    case "tokens_kept":
      return f"{value} ({100 * value / answer['tokens']:.1f} %)"
    case "timestamps":
      return f"{value[0]:.3f} to {value[-1]:.3f} s"
    case _:
      return str(value)
