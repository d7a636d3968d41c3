"""Selecting parts of a parameter tree by path."""

from collections.abc import Callable
import re
from typing import Any

import jax


def path_name(path: tuple[Any, ...]) -> str:
  """The path of a leaf as text, e.g. `decoder/layers/q`."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def names(tree: Any) -> list[str]:
  """The path of every leaf, in tree order."""
  return [path_name(path) for path, _ in jax.tree.leaves_with_path(tree)]


def map_named(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
  """`jax.tree.map` whose function gets the leaf's path name first."""
  return jax.tree.map_with_path(lambda path, *leaves: f(path_name(path), *leaves), tree, *rest)


def partition(tree: Any, pattern: str) -> tuple[Any, Any]:
  """Splits into (leaves whose whole path matches `pattern`, the others); holes are None.

  Raises:
    ValueError: no path matches.
  """
  if not any(re.fullmatch(pattern, name) for name in names(tree)):
    tops = sorted({name.split("/")[0] for name in names(tree)})
    raise ValueError(f"pattern {pattern!r} matches no parameter; paths start with {tops}")
  hit = map_named(lambda name, _: re.fullmatch(pattern, name) is not None, tree)
  return (
    jax.tree.map(lambda leaf, h: leaf if h else None, tree, hit),
    jax.tree.map(lambda leaf, h: None if h else leaf, tree, hit),
  )


def merge(first: Any, second: Any) -> Any:
  """Undoes `partition`: each leaf from whichever side has it."""
  return jax.tree.map(
    lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None
  )
