"""The only reader of torch's .bin files: a process of its own turns them into safetensors.

They are pickles, which can run code.  torch reads them with `weights_only`, here and nowhere else,
and what it makes of them reaches the caller as plain bytes.
"""

from collections.abc import Iterator
import json
import os
import pathlib
import subprocess
import sys
from typing import Any
import zipfile

from hulu_jax.weights import files
from hulu_jax.weights import headers

_INDEX = "pytorch_model.bin.index.json"
# Beside the weights a training run saves these.
_NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin", "non_lora_trainables.bin")
_OLDEST = (2, 6)  # before it, weights_only could be made to run code


def found(path: pathlib.Path) -> list[pathlib.Path]:
  """The .bin files that hold the weights of a folder without safetensors, or the file itself."""
  if path.is_file():
    return [path] if path.suffix in (".bin", ".pt", ".pth") else []
  if any(path.glob("*.safetensors")):
    return []
  named = sorted({path / name for name in files.read_index(path / _INDEX, ".bin").values()})
  if named and all(file.is_file() for file in named):
    return named
  there = [p for p in sorted(path.glob("*.bin")) if p.is_file() and p.name not in _NO_WEIGHTS]
  return [p for p in there if p.name.startswith("pytorch_model")] or there


def to_safetensors(paths: list[pathlib.Path], scratch: pathlib.Path) -> None:
  """Writes what the files hold to `scratch`, a safetensors file for each.

  Raises:
    ValueError: torch is missing or too old, or a file holds anything but tensors.
  """
  command = [sys.executable, "-m", "hulu_jax.weights.unpickle"]
  order = json.dumps([str(scratch), *map(str, paths)])
  done = subprocess.run(command, input=order, capture_output=True, text=True, check=False)
  if done.returncode:
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    raise ValueError(f"{paths[0].parent}: torch with weights_only refuses: {said[-1]}")


def _main(scratch: pathlib.Path, paths: list[pathlib.Path]) -> None:
  import torch

  if tuple(int(n) for n in torch.__version__.split(".")[:2]) < _OLDEST:
    raise SystemExit(f"torch {torch.__version__} is too old to read .bin files safely; 2.6 is not")
  for number, path in enumerate(paths):
    _one(torch, path, scratch / f"{number:05d}.safetensors")


def _one(torch: Any, source: pathlib.Path, target: pathlib.Path) -> None:
  # Mapped, a file needs no memory of its own; the format before zip cannot be.
  mapped = zipfile.is_zipfile(source)
  tensors = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
  names = {str(torch.float64): "F64", str(torch.float32): "F32"}
  names |= {str(torch.float16): "F16", str(torch.bfloat16): "BF16"}
  entries = {name: (names[str(t.dtype)], tuple(t.shape)) for name, t in _checked(tensors, names)}
  places = headers.write(target, entries)
  descriptor = os.open(target, os.O_WRONLY)
  for name, start in places.items():
    data = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    while data:
      written = os.pwrite(descriptor, data, start)
      data, start = data[written:], start + written
  os.close(descriptor)


def _checked(tensors: Any, names: Any) -> Iterator[tuple[str, Any]]:
  if not isinstance(tensors, dict):
    raise SystemExit(f"it holds {type(tensors).__name__}; expected a dict of tensors")
  for name, value in tensors.items():
    if not isinstance(name, str) or str(type(value).__name__) not in ("Tensor", "Parameter"):
      raise SystemExit(f"{name!r} is {type(value).__name__}; expected a tensor")
    if str(value.dtype) not in names:
      raise SystemExit(f"{name} is {value.dtype}; expected one of {', '.join(names)}")
    yield name, value


if __name__ == "__main__":
  to, *pickles = map(pathlib.Path, json.load(sys.stdin))
  _main(to, pickles)
