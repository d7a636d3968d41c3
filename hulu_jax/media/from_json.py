"""Builds `Options` from plain JSON values, each checked against the type of its field."""

from collections.abc import Mapping
import dataclasses
import difflib
import math
import sys
from types import NoneType
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Options

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_FIELDS = get_type_hints(Options)
NAMES = tuple(field.name for field in dataclasses.fields(Options))
_NO = object()  # stands for "is not of this type": None is a value


class Mismatch(ValueError):
  """A JSON value of another type than asked for; says which, without the value."""


def options(mapping: Mapping[str, Any]) -> Options:
  """The options that a JSON object, or a row of a table, asks for.

  Lists become tuples and whole numbers serve as numbers; text is never read as a number, nor true
  as 1.  Raises BadRecord("options") for unknown keys, with the closest known one, and for values of
  another type, without quoting them.
  """
  if not isinstance(mapping, Mapping):
    raise BadRecord("options", f"options are {_found(mapping)}; expected an object")
  for key in mapping:
    if key not in NAMES:
      raise BadRecord("options", unknown(key, NAMES))
  return Options(**{key: _value(key, value) for key, value in mapping.items()})


def unknown(key: object, known: tuple[str, ...]) -> str:
  """One line on a key that is not in `known`: the closest one, or all there are."""
  close = difflib.get_close_matches(str(key), known, n=1)
  if close:
    return f"unknown key {str(key)[:40]!r}; did you mean {close[0]!r}?"
  return f"unknown key {str(key)[:40]!r}; there are: {', '.join(sorted(known))}"


def fit(value: Any, kind: Any) -> Any:
  """`value` as `kind`: a scalar type, None, a tuple of these, or a union; raises Mismatch."""
  fitting = _fit(value, kind)
  if fitting is _NO:
    raise Mismatch(f"{_found(value)}; expected {_expected(kind)}")
  return fitting


def _value(name: str, value: Any) -> Any:
  try:
    return fit(value, _FIELDS[name])
  except Mismatch as error:
    raise BadRecord("options", f"{name} is {error}") from None


def _fit(value: Any, kind: Any) -> Any:
  """`value` as `kind`, or `_NO`."""
  if isinstance(kind, UnionType):
    fitting = (_fit(value, one) for one in get_args(kind))
    return next((f for f in fitting if f is not _NO), _NO)
  if get_origin(kind) is tuple:
    return _fit_tuple(value, get_args(kind))
  if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
    return float(value) if abs(value) <= sys.float_info.max else _NO
  if kind is int and isinstance(value, bool):
    return _NO
  return value if isinstance(value, kind) else _NO


def _fit_tuple(value: Any, kinds: tuple[Any, ...]) -> Any:
  if not isinstance(value, (list, tuple)):
    return _NO
  if kinds[-1] is Ellipsis:
    kinds = kinds[:1] * len(value)
  if len(value) != len(kinds):
    return _NO
  fitting = tuple(_fit(v, kind) for v, kind in zip(value, kinds, strict=True))
  return _NO if any(v is _NO for v in fitting) else fitting


def _expected(kind: Any) -> str:
  if isinstance(kind, UnionType):
    return " or ".join(_expected(one) for one in get_args(kind) if one is not NoneType)
  if get_origin(kind) is tuple:
    first, count = get_args(kind)[0], len(get_args(kind))
    return f"a list of {count} {'whole numbers' if first is int else 'numbers'}"
  return _NAMES.get(kind, "null")


def _found(value: Any) -> str:
  """The kind of a JSON value, never the value: a wrong column may hold a name."""
  if isinstance(value, (list, tuple)):
    return f"a list of {len(value)}"
  if isinstance(value, float) and not math.isfinite(value):
    return "not a finite number"
  return _NAMES.get(type(value), "null" if value is None else f"a {type(value).__name__}")
