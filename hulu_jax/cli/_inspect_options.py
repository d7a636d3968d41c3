"""The flags of `hulu inspect`, and what they ask of the reader and of the token policy."""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import math
from pathlib import Path
from typing import NoReturn

from hulu_jax import media as media_lib
from hulu_jax.data import compression as compression_lib
from hulu_jax.data import vision
from hulu_jax.media import privacy
from hulu_jax.media import types
from hulu_jax.media import windows

EXAMPLES = """examples:
  hulu inspect ct_folder --window lung
  hulu inspect ct.nii.gz --modality CT --window lung+mediastinum+bone --overlay sheet.png
  hulu inspect ct.nii.gz --modality CT --window -600/1500 --slice-mm 5 --json
  hulu inspect mr.nii.gz --modality MR --plane sagittal --frames 24
  hulu inspect cine.dcm --crop ultrasound_region --compression hulumed --overlay kept.png
  hulu inspect ct_folder --preset both --overlay side_by_side.png
  hulu inspect ward/*.dcm

Pictures made from patient data are patient data."""
# Their values may start with a minus sign, which argparse takes for another flag.
_SIGNED = ("--window", "--value-range")


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    self.exit(2, f"hulu inspect: {message} (see hulu inspect --help)\n")


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The flags; raises SystemExit as argparse does, with code 2 and one line for a bad one."""
  parser = _Parser(
    prog="hulu inspect",
    usage="hulu inspect [options] FILE_OR_FOLDER ...",
    description="Show what pictures, volumes and videos are and what the model would see of them.",
    epilog=EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    "paths",
    metavar="FILE_OR_FOLDER",
    type=Path,
    nargs="+",
    help="a folder is one DICOM series (see --series) or the frames of a clip",
  )
  _add_output(parser)
  _add_values(parser)
  _add_geometry(parser)
  _add_tokens(parser)
  return parser.parse_args(_with_signs(argv))


def presets(args: argparse.Namespace) -> tuple[str, ...]:
  """The presets to read with."""
  return media_lib.PRESETS if args.preset == "both" else (args.preset,)


def options(args: argparse.Namespace) -> media_lib.Options:
  """What is asked of the reader."""
  return media_lib.Options(
    modality=args.modality,
    quantity=args.quantity,
    window=args.window,
    function=args.function,
    value_range=args.value_range,
    plane=args.plane,
    time_index=args.time_index,
    series=args.series,
    phase=args.phase,
    frames=args.frames,
    slice_mm=args.slice_mm,
    resample_mm=args.resample_mm,
    repeat_slices=args.repeat_slices,
    fps=args.fps,
    crop=args.crop,
    region=args.region,
    spacing_mm=args.spacing_mm,
  )


def limits(args: argparse.Namespace) -> media_lib.Limits:
  """The default limits with those that were raised or lowered."""
  return dataclasses.replace(media_lib.DEFAULT, **dict(args.limit))


def key(args: argparse.Namespace) -> bytes | None:
  """The key of the file hashes; raises ValueError for a file that is no key."""
  return None if args.hash_key is None else privacy.read_key(args.hash_key)


def policy(args: argparse.Namespace, preset: str) -> vision.Policy:
  """How frames become tokens: the released model's policy with what was asked.

  Raises BadRecord for numbers that are no policy.
  """
  if args.compression == "fixed" and args.threshold is None:
    raise media_lib.BadRecord("options", "--compression fixed needs --threshold, in grey levels")
  given = (args.threshold, args.threshold_hu) != (None, None)
  if args.compression != "fixed" and given:
    raise media_lib.BadRecord("options", "--threshold and --threshold-hu need --compression fixed")
  base = vision.HULUMED
  return dataclasses.replace(
    base,
    preset=preset,
    max_tokens=args.max_tokens or base.max_tokens,
    merge=dict.fromkeys(base.merge, args.merge) if args.merge else base.merge,
    compression=compression_lib.Compression(
      mode=args.compression, grey=args.threshold, hu=args.threshold_hu
    ),
    swap_sides=args.swap_sides,
  )


def _add_output(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group("output")
  group.add_argument("--json", action="store_true", help="print one JSON object (docs/media.md)")
  group.add_argument(
    "--overlay",
    type=Path,
    metavar="PNG",
    help="write a sheet of what the model sees, dropped tokens shaded; one file only",
  )
  group.add_argument(
    "--preset",
    choices=(*media_lib.PRESETS, "both"),
    default="radiology",
    help="radiology (default): as a radiologist expects it; hulumed: as the released code reads "
    "it; both: side by side",
  )
  group.add_argument(
    "--limit",
    type=_limit,
    action="append",
    default=[],
    metavar="NAME=N",
    help="raise or lower a limit on the file: "
    + ", ".join(f.name for f in dataclasses.fields(media_lib.Limits)),
  )
  group.add_argument(
    "--root", type=Path, metavar="DIR", help="refuse files, and links in a folder, that leave it"
  )
  group.add_argument(
    "--hash-key",
    type=Path,
    metavar="FILE",
    help="key of the hashes that stand for files (made if absent), so that they are the same in "
    "every run; without it they differ",
  )
  group.add_argument(
    "--timeout",
    type=_seconds,
    metavar="SECONDS",
    help="decode in a process of its own and give up after so long: for files nobody vouches for",
  )


def _add_values(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group("values to grey levels")
  group.add_argument(
    "--modality", metavar="CODE", help="CT, MR, PT, ...: for files that cannot say it (NIfTI, .npy)"
  )
  group.add_argument(
    "--window",
    metavar="NAME|C/W",
    help=f"{', '.join(windows.TABLE)}, or centre/width in HU; three joined by + are shown as red, "
    "green and blue",
  )
  group.add_argument("--function", choices=types.FUNCTIONS, help="of the window")
  group.add_argument(
    "--value-range",
    type=_numbers(float, "LOW,HIGH"),
    metavar="LOW,HIGH",
    help="values shown as black and white, where they are not HU",
  )
  group.add_argument(
    "--quantity",
    metavar="NAME",
    help=f"what a map measures: {', '.join(windows.QUANTITIES)}; shown in a fixed range",
  )


def _add_geometry(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group("which volume, plane, slices and frames")
  group.add_argument("--series", type=int, metavar="N", help="which series of a folder, from 1")
  group.add_argument("--phase", metavar="NAME", help="which volume of a series that holds several")
  group.add_argument(
    "--time-index", type=int, metavar="N", help="which volume of a 4D file, from 0"
  )
  group.add_argument("--plane", choices=types.PLANES, help="default: the one it was acquired in")
  group.add_argument("--frames", type=int, metavar="N", help="slices or frames at most")
  group.add_argument("--slice-mm", type=float, metavar="MM", help="one slice every so many mm")
  group.add_argument(
    "--resample-mm", type=float, metavar="MM", help="resample the volume to cubes of this side"
  )
  group.add_argument(
    "--repeat-slices",
    action="store_true",
    help="preset hulumed: exactly --frames slices (180), repeating some of a shorter volume",
  )
  group.add_argument("--fps", type=float, metavar="F", help="frames a second of a video")
  group.add_argument(
    "--spacing-mm",
    type=_numbers(float, "SLICE,ROW,COLUMN"),
    metavar="S,R,C",
    help="of a .npy volume, along its three axes",
  )
  group.add_argument(
    "--crop",
    type=_crop,
    metavar="T,L,B,R|ultrasound_region",
    help="cut images and videos to a box in pixels, or to the ultrasound region",
  )
  group.add_argument(
    "--region",
    type=_numbers(int, "TOP,LEFT,BOTTOM,RIGHT"),
    metavar="T,L,B,R",
    help="of a whole-slide level, in its pixels",
  )


def _add_tokens(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group("visual tokens")
  group.add_argument(
    "--compression",
    choices=compression_lib.MODES,
    default="off",
    help="drop tokens that hardly change from one slice or frame to the next (default off)",
  )
  group.add_argument(
    "--threshold",
    type=_threshold,
    metavar="GREY",
    help="for --compression fixed: grey levels of mean change, a clinical choice",
  )
  group.add_argument(
    "--threshold-hu", type=_threshold, metavar="HU", help="the same in HU, for CT in a window"
  )
  group.add_argument(
    "--merge",
    type=int,
    choices=(1, 2),
    help="N x N patches make a token (default: 1 for images, 2 for volumes and videos)",
  )
  group.add_argument(
    "--max-tokens",
    type=_count,
    metavar="N",
    help=f"budget of visual tokens (default {vision.HULUMED.max_tokens:,})",
  )
  group.add_argument(
    "--swap-sides",
    type=_kinds,
    default=(),
    metavar="KINDS",
    help="image or image,volume: exchange height and width in the size a frame is resized to, as "
    "the released code does",
  )


def _kinds(text: str) -> tuple[str, ...]:
  kinds = tuple(text.split(","))
  if unknown := sorted(set(kinds) - set(vision.HULUMED.merge)):
    expected = ", ".join(vision.HULUMED.merge)
    raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r}; expected {expected}")
  return kinds


def _numbers(kind: Callable[[str], float], names: str) -> Callable[[str], tuple[float, ...]]:
  def parse_numbers(text: str) -> tuple[float, ...]:
    try:
      numbers = tuple(kind(v) for v in text.split(","))
    except ValueError:
      numbers = ()
    if len(numbers) != names.count(",") + 1:
      raise argparse.ArgumentTypeError(f"{text!r}; expected {names}")
    return numbers

  return parse_numbers


def _crop(text: str) -> str | tuple[float, ...]:
  if text == "ultrasound_region":
    return text
  return _numbers(int, "TOP,LEFT,BOTTOM,RIGHT or ultrasound_region")(text)


def _threshold(text: str) -> float:
  """Finite, so that JSON can hold it."""
  try:
    number = float(text)
  except ValueError:
    number = math.nan
  if not 0 <= number < math.inf:
    raise argparse.ArgumentTypeError(f"{text!r}; expected a number of at least 0")
  return number


def _count(text: str) -> int:
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of at least 1")
  return int(text)


def _limit(text: str) -> tuple[str, int]:
  name, _, number = text.partition("=")
  names = [f.name for f in dataclasses.fields(media_lib.Limits)]
  if name not in names or not number.isdecimal():
    raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=N with one of {', '.join(names)}")
  return name, int(number)


def _seconds(text: str) -> float:
  try:
    seconds = float(text)
  except ValueError:
    seconds = 0.0
  if not (0 < seconds and math.isfinite(seconds)):
    raise argparse.ArgumentTypeError(f"{text!r}; expected seconds, more than 0")
  return seconds


def _with_signs(argv: Sequence[str]) -> list[str]:
  """`--window -600/1500` as `--window=-600/1500`."""
  out: list[str] = []
  for word in argv:
    if out and out[-1] in _SIGNED and word[:1] == "-" and word[1:2].isdigit():
      out[-1] += f"={word}"
    else:
      out.append(word)
  return out
