"""A dataset on the command line: a file, or the name of a plugin and its fields."""

import ast
from pathlib import Path
import re
from typing import Any

from hulu_jax.data.prepare import Input

# Plugin of a file, by the ending of its name.
_FILES = {".jsonl": "jsonl", ".json": "json_list", ".parquet": "parquet"}

_PLUGIN = re.compile(r"\w+:\w+=")


def parse(text: str) -> Input:
  """FILE.jsonl, FILE.json, FILE.parquet or NAME:FIELD=VALUE,FIELD=VALUE.

  A value is a number, true or false where it reads as one, and text otherwise.

  Raises:
    ValueError: a field without value.
  """
  if not _PLUGIN.match(text) and Path(text).suffix in _FILES:
    return Input(_FILES[Path(text).suffix], {"path": text})
  name, _, rest = text.partition(":")
  fields = {}
  for pair in rest.split(",") if rest else []:
    key, equals, value = pair.partition("=")
    if not equals:
      raise ValueError(f"--input={text}: {pair!r}; expected FIELD=VALUE")
    fields[key] = _value(value)
  return Input(name, fields)


def _value(text: str) -> Any:
  if text.lower() in ("true", "false"):
    return text.lower() == "true"
  try:
    found = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
  return found if isinstance(found, (int, float)) else text
