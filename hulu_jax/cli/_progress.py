"""What a long command shows while it runs: a live line on a terminal, few lines elsewhere."""

from collections.abc import Mapping, Sequence
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeRemainingColumn

_LINES = 20  # how many lines a whole run prints where there is no terminal


class Line:
  """`with Line("train", steps) as line: line.update(step, {"loss": ...})`."""

  def __init__(self, title: str, total: int):
    self._title, self._total = title, total
    self._live = Console().is_terminal
    self._started = time.monotonic()
    self._printed = 0
    self._progress = Progress(
      TextColumn(title),
      BarColumn(),
      MofNCompleteColumn(),
      TextColumn("{task.fields[numbers]}"),
      TimeRemainingColumn(),
    )
    self._task = self._progress.add_task(title, total=total, numbers="")

  def __enter__(self) -> "Line":
    if self._live:
      self._progress.start()
    return self

  def __exit__(self, *exception: Any) -> None:
    if self._live:
      self._progress.stop()

  def update(
    self, step: int, scalars: Mapping[str, float], part: str = "", more: Sequence[str] = ()
  ) -> None:
    """Shows where the run is and a few numbers of that step.

    part: of the run, by name; more: said as it is, after the numbers.
    """
    said = [f"{name} {value:.3f}" for name, value in scalars.items()]
    numbers = "  ".join([*([part] if part else ()), *said, *more])
    if self._live:
      self._progress.update(self._task, completed=step, numbers=numbers)
    elif step * _LINES // self._total > self._printed:
      self._printed = step * _LINES // self._total
      seconds = time.monotonic() - self._started
      print(f"{self._title} {step}/{self._total}  {seconds:.0f} s  {numbers}", flush=True)

  def say(self, text: str) -> None:
    """A line that stays, above the live one where there is one."""
    if self._live:
      self._progress.console.print(text, highlight=False)
    else:
      print(text, flush=True)
