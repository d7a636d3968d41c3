"""`hulu data`: looks at a mixture before it is trained on, and for what it should not hold."""

import argparse
import importlib
import sys
from typing import NoReturn

from absl import flags

_HELP = """\
usage: hulu data stats         what a mixture holds, how full its steps are
       hulu data shapes        step shapes that suit it
       hulu data dedup         records that repeat an earlier one
       hulu data decontaminate records that hold what a benchmark asks

example: hulu data stats --config=experiments/quickstart.py --steps=20
Each has its own --help."""


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


# Loaded when asked for: only `stats` and `shapes` need JAX.
_COMMANDS = {
  "stats": "_data_stats",
  "shapes": "_data_shapes",
  "dedup": "_data_dedup",
  "decontaminate": "_data_leakage",
}


def main(argv: list[str]) -> int:
  """Runs one; bad input is one line on stderr and exit code 2."""
  if not argv or argv[0] in ("-h", "--help"):
    print(_HELP)
    return 0
  if argv[0] not in _COMMANDS:
    print(f"hulu data: no command {argv[0]!r}; there are: {', '.join(_COMMANDS)}", file=sys.stderr)
    return 2
  command = importlib.import_module(f"hulu_jax.cli.{_COMMANDS[argv[0]]}")
  parser = _Parser(
    prog=f"hulu data {argv[0]}",
    epilog=command.EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  try:
    return command.run(parser, argv[1:])
  except SystemExit as stop:  # --help and bad arguments end argparse this way
    return int(stop.code or 0)
  # An experiment is Python and its keys are flags: a typo in either surfaces as one of these.
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    print(f"hulu data {argv[0]}: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
