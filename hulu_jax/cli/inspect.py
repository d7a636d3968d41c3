"""`hulu inspect`: what files are and what the model would see of them; starts without JAX."""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import functools
import json
import os
from pathlib import Path
import sys
from typing import Any

import numpy as np

from hulu_jax import media as media_lib
from hulu_jax.cli import _inspect_answer as answers
from hulu_jax.cli import _inspect_options as flags
from hulu_jax.data import overlay
from hulu_jax.data import vision

_OVERLAY = "The overlay is written. A picture made from patient data is patient data."


@dataclasses.dataclass(frozen=True)
class _View:
  """One file under one preset; file: its position on the command line, from 1.  `sheet`: uint8
  [H, W, 3] for the overlay.  Either `answer` or `error` is there."""

  file: int
  preset: str
  answer: dict[str, Any] | None = None
  sheet: np.ndarray | None = None
  error: media_lib.BadRecord | None = None


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit code, 2 if a file or an option is bad."""
  try:
    args = flags.parse(argv)
  except SystemExit as stop:  # --help and bad arguments end argparse this way
    return int(stop.code or 0)
  if args.overlay is not None and len(args.paths) > 1:
    return _refuse("--overlay takes one file")
  try:
    key = flags.key(args)
  except (ValueError, OSError) as error:
    return _refuse(f"--hash-key: {error}")
  with contextlib.ExitStack() as stack:
    read = _reader(args, stack)
    views = [
      _look(number, path, preset, args, functools.partial(read, key=key))
      for number, path in enumerate(args.paths, start=1)
      for preset in flags.presets(args)
    ]
  for view in views:
    if view.error is not None:
      print(f"hulu inspect: {_where(view, args)}{_one_line(view.error)}", file=sys.stderr)
  seen = [view for view in views if view.answer is not None]
  sheets = [view.sheet for view in seen if view.sheet is not None]
  if sheets:
    try:
      overlay.write_png(args.overlay, overlay.beside(sheets))
    except OSError as error:
      return _refuse(f"the overlay cannot be written ({error.strerror})")
  if seen or len(args.paths) > 1:
    _print(views, args)
  return 0 if len(seen) == len(views) else 2


def _refuse(reason: str) -> int:
  print(f"hulu inspect: {reason}", file=sys.stderr)
  return 2


Read = Callable[..., media_lib.Media]


def _reader(args: argparse.Namespace, stack: contextlib.ExitStack) -> Read:
  if args.timeout is None:
    return media_lib.read
  return stack.enter_context(media_lib.Reader(timeout=args.timeout)).read


def _look(
  number: int,
  path: Path,
  preset: str,
  args: argparse.Namespace,
  read: Read,
) -> _View:
  try:
    policy = flags.policy(args, preset)
    limits = flags.limits(args)
    media = read(path, flags.options(args), preset=preset, limits=limits, root=args.root)
    visual = _visual(media, policy)
  except media_lib.BadRecord as error:
    return _View(number, preset, error=error)
  answer = answers.describe(path, media, visual, policy)
  sheet = None
  if args.overlay is not None:
    sheet = overlay.contact_sheet(media, visual, answers.title(answer))
  return _View(number, preset, answer, sheet)


def _visual(media: media_lib.Media, policy: vision.Policy) -> vision.Visual:
  try:
    return vision.visuals([media], policy)[0]
  except ValueError as error:  # a picture that cannot be cut into patches
    raise media_lib.BadRecord("geometry", str(error)) from error


def _one_line(error: media_lib.BadRecord) -> str:
  """A reason that lists series has a line for each."""
  first, *others = str(error).splitlines()
  return " ".join([first, "; ".join(others)]).rstrip()


def _where(view: _View, args: argparse.Namespace) -> str:
  """Which file and preset an error is about, by position: a file's name may name a patient."""
  file = f"file {view.file} of {len(args.paths)}: " if len(args.paths) > 1 else ""
  return file + (f"preset {view.preset}: " if args.preset == "both" else "")


def _print(views: Sequence[_View], args: argparse.Namespace) -> None:
  text = json.dumps(_object(views, args), allow_nan=False) if args.json else _table(views, args)
  try:
    print(text.rstrip("\n"), flush=True)
  except BrokenPipeError:  # `head`, say, has seen enough: what is left must not fail at exit
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _table(views: Sequence[_View], args: argparse.Namespace) -> str:
  # Imported only where a table is drawn: rich is not needed for JSON, nor to refuse a file.
  from hulu_jax.cli import _inspect_table as table

  if len(args.paths) > 1:
    return table.several([(v.file, v.answer, _kind(v.error)) for v in views])
  footer = [] if args.overlay is None else [_OVERLAY]
  return table.one_file([v.answer for v in views if v.answer is not None], footer)


def _kind(error: media_lib.BadRecord | None) -> str:
  return "" if error is None else error.kind


def _object(views: Sequence[_View], args: argparse.Namespace) -> dict[str, Any]:
  """What `--json` prints: an answer, answers by preset, or a list of either for several files."""
  files = [_by_preset([v for v in views if v.file == n]) for n in range(1, len(args.paths) + 1)]
  if args.preset != "both":
    files = [file[args.preset] for file in files]
  if len(files) == 1:
    return files[0]
  failed = len({v.file for v in views if v.error is not None})
  return {"files": files, "failed": failed}


def _by_preset(views: Sequence[_View]) -> dict[str, Any]:
  return {v.preset: v.answer if v.error is None else _error(v.error) for v in views}


def _error(error: media_lib.BadRecord) -> dict[str, Any]:
  return {"error": {"kind": error.kind, "reason": error.reason, "file": error.file}}
