"""A model by its name on the Hugging Face hub: files of weights and words, never code."""

import importlib.util
import pathlib
import re

_WANTED = ("*.safetensors", "*.json", "tokenizer.*", "*.jinja", "README.md", "LICENSE*")


def is_name(source: str) -> bool:
  """Whether `source` looks like a name of the hub and is nothing on this disk."""
  known = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is not None
  return known and not pathlib.Path(source).exists()


def fetch(name: str, revision: str | None) -> tuple[pathlib.Path, str]:
  """(folder, commit) of a model, downloaded unless this machine has it.

  Raises:
    ValueError: huggingface_hub is not installed, or what it says goes wrong.
  """
  if importlib.util.find_spec("huggingface_hub") is None:
    raise ValueError(
      f"{name} is no folder here, and names of the hub need the package huggingface_hub"
    )
  import huggingface_hub

  try:
    pattern = list(_WANTED)
    if not any(f.endswith(".safetensors") for f in _files(name, revision)):
      pattern.append("*.bin")
    folder = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=pattern)
  except (OSError, ValueError) as error:
    said = " ".join(str(error).split())[:300]
    raise ValueError(f"{name} is no folder here, and the hub gave no model: {said}") from error
  path = pathlib.Path(folder)
  return path, path.name


def _files(name: str, revision: str | None) -> list[str]:
  import huggingface_hub

  return huggingface_hub.HfApi().list_repo_files(name, revision=revision)
