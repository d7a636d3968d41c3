"""A file is its own registration: a config names a module, and nothing else changes."""

import importlib
import pkgutil
from types import ModuleType


def names(package: str) -> list[str]:
  """The plugins of `package`, sorted; modules with a leading underscore are its private parts."""
  path = importlib.import_module(package).__path__
  return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
  """Imports `package.name`.

  Raises:
    ValueError: there is no such plugin; the message lists those there are.
  """
  if name not in names(package):
    raise ValueError(f"no {name!r} in {package}; there are: {', '.join(names(package))}")
  return importlib.import_module(f"{package}.{name}")
