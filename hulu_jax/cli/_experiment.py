"""An experiment file on a command line that has options of its own."""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict
from ml_collections import config_flags


def split(argv: Sequence[str], command: str) -> tuple[ConfigDict | None, list[str]]:
  """What --config and the --config.KEY=VALUE after it make, and the other arguments.

  Raises:
    flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError: an experiment is Python
      and its keys are flags; a typo in either surfaces as one of these.
  """
  values = flags.FlagValues()
  line = [command, *argv]
  config = config_flags.DEFINE_config_file(
    "config", None, "Experiment file.", flag_values=values, sys_argv=line
  )
  rest = values(line, known_only=True)[1:]
  return config.value, rest
