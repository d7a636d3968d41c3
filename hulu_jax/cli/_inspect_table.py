"""`hulu inspect` for people: one file as a table, a column per preset; several, one line each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hulu_jax.cli._inspect_answer import number
from hulu_jax.cli._inspect_answer import shown

Answer = Mapping[str, Any]
_NARROWEST = 80  # columns where there is no terminal to ask
_NOTE, _LABEL, _BAD = "yellow", "bold", "bold red"


def one_file(columns: Sequence[Answer], footer: Sequence[str] = ()) -> str:
  """The text of a table of one file, a column per preset; rows that differ are marked.

  columns: answers of `describe`; footer: lines below the table.
  """
  table = Table(box=box.SIMPLE_HEAD, show_header=True, header_style=_LABEL, pad_edge=False)
  table.add_column("", style=_LABEL, no_wrap=True)
  for answer in columns:
    table.add_column(f"preset {answer['preset']}", overflow="fold")
  for section in _SECTIONS:
    for label, show in section.items():
      cells = [show(answer) for answer in columns]
      if any(cells):
        marked = f"{label} *" if len(set(cells)) > 1 else label
        table.add_row(marked, *(Text(cell or "-") for cell in cells))
    table.add_section()
  most = max(len(answer["notes"]) for answer in columns)
  for row in range(most):
    notes = [answer["notes"][row : row + 1] for answer in columns]
    table.add_row(Text("note", style=_NOTE), *(Text("".join(note), style=_NOTE) for note in notes))
  lines = ["* differs between the presets"] if len(columns) > 1 else []
  return _text(table, [*lines, *footer])


def several(rows: Sequence[tuple[int, Answer | None, str]]) -> str:
  """The text of a table with one line per file and preset.

  rows: position on the command line, the answer of `describe` or None, and the kind of error.
  """
  table = Table(box=box.SIMPLE_HEAD, header_style=_LABEL, pad_edge=False, padding=(0, 1, 0, 0))
  line = dict(_LINE)
  if len({answer["preset"] for _, answer, _ in rows if answer is not None}) > 1:
    line["preset"] = lambda a: a["preset"]
  line["notes"] = lambda a: str(len(a["notes"]))
  for name in ("file", *line):
    table.add_column(name, overflow="fold")
  for position, answer, error in rows:
    if answer is None:
      table.add_row(str(position), Text(error, style=_BAD))
      continue
    cells = [Text(show(answer) or "-") for show in line.values()]
    if answer["notes"]:
      cells[-1].stylize(_NOTE)
    table.add_row(str(position), *cells)
  return _text(table)


def _text(table: Table, lines: Sequence[str] = ()) -> str:
  """As wide and as colourful as the terminal; for a pipe plain, `_NARROWEST` wide or more."""
  console = Console(highlight=False)
  if not console.is_terminal:
    console = Console(highlight=False, width=max(console.width, _NARROWEST))
  # Captured, since rich would end the process where the pipe is closed.
  with console.capture() as text:
    console.print(table)
    for line in lines:
      console.print(line, markup=False)
  return text.get()


def _times(numbers: Sequence[float]) -> str:
  return " x ".join(f"{v:.4g}" for v in numbers)


def _spacing(answer: Answer, number: str = "{:.4g}", between: str = " x ") -> str | None:
  steps = answer["spacing_mm"]
  if steps is None:
    return None
  # A picture has no next slice.
  return between.join(number.format(v) for v in (steps if steps[0] else steps[1:]))


def _brief(answer: Answer) -> str | None:
  """The window or the range of values, in a few letters."""
  if answer["rgb_windows"] is not None:
    return "+".join(f"{c:g}/{w:g}" for c, w in answer["rgb_windows"])
  if answer["window"] is not None:
    return "{:g}/{:g} HU".format(*answer["window"])
  return None if answer["value_range"] is None else "..".join(map(number, answer["value_range"]))


def _frames(answer: Answer) -> str:
  return f"{answer['frames']:,}, {'colour' if answer['channels'] == 3 else 'grey'}"


def _taken(answer: Answer) -> str | None:
  """Which slices or frames, counted from 0."""
  taken = answer["slices"]
  if taken is None or answer["kind"] == "image":
    return None
  of_all = "" if answer["frames_available"] is None else f" of {answer['frames_available']:,}"
  if len(taken) == answer["frames_available"] == len(set(taken)):
    return f"all {len(taken):,}"
  if len(taken) == 1:
    return f"number {taken[0]}{of_all}"
  steps = sorted({b - a for a, b in zip(taken, taken[1:], strict=False)})
  every = f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else f"{steps[0]}"
  return f"{taken[0]} to {taken[-1]}{of_all}, steps of {every}"


def _time(answer: Answer) -> str | None:
  times = answer["timestamps"]
  if times is None:
    return None
  rate = "" if answer["fps"] is None else f" of a clip of {answer['fps']:g} frames a second"
  return f"{times[0]:.2f} to {times[-1]:.2f} s{rate}"


def _kept(answer: Answer) -> str:
  kept, tokens = answer["tokens_kept"], answer["tokens"]
  return f"{kept:,}" if kept == tokens else f"{kept:,} of {tokens:,}"


def _compression(answer: Answer) -> str:
  kept, tokens = answer["tokens_kept"], answer["tokens"]
  if answer["compression"] == "off":
    return "off"
  if answer["kind"] == "image":
    return "none: pictures are never compressed"
  thresholds = (
    ("grey levels", answer["threshold_grey"]),
    ("HU", answer["threshold_hu"]),
  )
  named = "".join(f", {v:g} {unit}" for unit, v in thresholds if v is not None)
  return f"{answer['compression']}{named}: {kept:,} kept ({100 * kept / tokens:.1f} %)"


def _bytes(count: int) -> str:
  for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
    if count >= size:
      return f"{count / size:.1f} {unit}"
  return f"{count} bytes"


def _budget(answer: Answer) -> str:
  share = 100 * answer["tokens"] / answer["max_tokens"]
  rows, columns = answer["grid"]
  merge = answer["merge"]
  return (
    f"{answer['tokens']:,} = {answer['frames']:,} x {rows // merge} x {columns // merge} "
    f"({'<1' if share < 1 else round(share)} % of {answer['max_tokens']:,})"
  )


# Column of the table of several files to what stands in it, short enough for one line.
_LINE: dict[str, Callable[[Answer], str | None]] = {
  "what": lambda a: f"{a['kind']} {a['modality'] or ''}".rstrip(),
  "pixels": lambda a: "x".join(str(n) for n in (a["frames"], *a["size"])),
  "spacing mm": lambda a: _spacing(a, "{:.3g}", "x"),
  "grey": _brief,
  "tokens": _kept,
}
# Label to what stands beside it; a row is left out where no preset has anything to say.
_SECTIONS: tuple[dict[str, Callable[[Answer], str | None]], ...] = (
  {
    "kind": lambda a: a["kind"] + ("" if a["format"] is None else f", {a['format']}"),
    "on disk": lambda a: _bytes(a["bytes"]),
    "modality": lambda a: a["modality"],
    "units": lambda a: a["units"],
  },
  {
    "orientation": lambda a: a["orientation_words"],
    "frames": _frames,
    "taken": _taken,
    "time": _time,
    "size": lambda a: f"{_times(a['size'])} (rows x columns)",
    "spacing": lambda a: None if _spacing(a) is None else f"{_spacing(a)} mm",
    "black to white": shown,
  },
  {
    "resized to": lambda a: f"{_times(a['resized'])}, patches {_bytes(a['patch_bytes'])}",
    "visual tokens": _budget,
    "compression": _compression,
    "decoder tokens": lambda a: f"{a['decoder_tokens']:,} with the template's text",
  },
)
