"""Where the compilers of TPUs and GPUs are, and how a process sees them without their devices."""

import importlib.util
import os
from pathlib import Path

# Platform, as JAX names it when lowering -> the package whose presence shows that it compiles.
_PACKAGES = {"tpu": "libtpu", "cuda": "jax_cuda13_plugin"}


def there(platform: str, folder: Path | None) -> bool:
  """Whether the compilers of a platform are in `folder`, or else installed beside this package."""
  package = _PACKAGES[platform]
  if folder is not None and (folder / package).is_dir():
    return True
  return importlib.util.find_spec(package) is not None


def environment(platform: str, devices: int, folders: list[Path]) -> dict[str, str]:
  """Of a process that compiles for a platform whose devices are not here.

  devices: emulated ones of platform "cpu"; folders: where its packages are, ours among them.
  """
  own = {
    "PYTHONPATH": os.pathsep.join(map(str, folders)),
    "JAX_PLATFORMS": "" if platform == "cuda" else "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    # There is no TPU to lock: other processes may compile at the same time.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
  }
  if platform == "cpu":
    own["JAX_NUM_CPU_DEVICES"] = str(devices)
  return {**os.environ, **own}
