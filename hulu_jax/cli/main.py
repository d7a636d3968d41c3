"""`hulu COMMAND ...`: finds the command's file and hands it the arguments."""

import sys

from hulu_jax.core import plugins
from hulu_jax.core.notice import NOTICE

_PACKAGE = "hulu_jax.cli"


def commands() -> list[str]:
  """Every subcommand there is."""
  return [name for name in plugins.names(_PACKAGE) if name != "main"]


def main(argv: list[str] | None = None) -> int:
  """Runs one command; returns its exit code."""
  args = sys.argv[1:] if argv is None else argv
  if not args or args[0] in ("-h", "--help"):
    print(f"usage: hulu COMMAND [--help]\n\ncommands: {', '.join(commands())}\n\n{NOTICE}")
    return 0
  if args[0] not in commands():
    print(f"hulu: no command {args[0]!r}; there are: {', '.join(commands())}", file=sys.stderr)
    return 2
  return plugins.load(_PACKAGE, args[0]).main(args[1:])


if __name__ == "__main__":
  sys.exit(main())
