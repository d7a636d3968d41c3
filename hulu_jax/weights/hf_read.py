"""What a Hugging Face folder says about showing media, held against what the encoder expects."""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from hulu_jax.data.vision import Policy
from hulu_jax.weights import files

_FILES = ("preprocessor_config.json", "processor_config.json")


def policy(folder: pathlib.Path, usual: Policy) -> Policy:
  """`usual` with the bounds on visual tokens that the folder's image processor has.

  Raises:
    ValueError: pixels normalised otherwise than to [-1, 1], another patch, or bounds that are none.
  """
  found = [folder / name for name in _FILES if (folder / name).is_file()]
  if not found:
    return usual
  raw = files.read_json(found[0])
  where = str(found[0])
  image = raw.get("image_processor", raw)
  if not isinstance(image, Mapping):
    raise ValueError(f"{where}: image_processor is {type(image).__name__}; expected an object")
  for key in ("image_mean", "image_std"):
    value = image.get(key, [0.5] * 3)
    if value not in ([0.5] * 3, 0.5):
      raise ValueError(f"{where}: {key} = {value!r} is not supported, 0.5 is")
  if image.get("patch_size", usual.patch) != usual.patch:
    raise ValueError(f"{where}: patch_size = {image['patch_size']!r}; expected {usual.patch}")
  fewest, most = _bounds(image, where, usual)
  return dataclasses.replace(usual, min_tokens=fewest, max_tokens=most)


def _bounds(image: Mapping[str, Any], where: str, usual: Policy) -> tuple[int, int]:
  token = (usual.patch * usual.merge["image"]) ** 2
  size = image.get("size")
  if isinstance(size, Mapping) and {"shortest_edge", "longest_edge"} <= size.keys():
    said = {"min_tokens": size["shortest_edge"], "max_tokens": size["longest_edge"]}
  else:
    token = 1
    said = {
      "min_tokens": image.get("min_tokens", usual.min_tokens),
      "max_tokens": image.get("max_tokens", usual.max_tokens),
    }
  for key, value in said.items():
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise ValueError(f"{where}: {key} = {value!r}; expected a whole number of at least 1")
  return max(1, said["min_tokens"] // token), max(1, said["max_tokens"] // token)
