"""From a CT in NIfTI to model-ready patches: what grey bytes save against float32 colours.

  .venv/bin/python benchmarks/prep_volume.py

Makes a seeded 512 x 512 x 180 int16 volume (and its .nii.gz), prepares it with the preset `hulumed`
and with the arithmetic of the released image processor re-created from Pillow and NumPy, checks
that both show the same pixels, and prints ratios of process CPU seconds and of bytes for the device
(medians of interleaved repetitions), and peak memory.  About two minutes and 2 GB of memory.
"""

from collections.abc import Callable
import os
from pathlib import Path
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import nibabel
import numpy as np
import PIL
from PIL import Image

from hulu_jax.data import resize
from hulu_jax.data import vision
from hulu_jax.media import read

SHAPE, SEED, REPETITIONS = (512, 512, 180), 2026, 9
PATCH, MERGE = vision.HULUMED.patch, vision.HULUMED.merge["volume"]


def make(path: Path, shape: tuple[int, int, int] = SHAPE) -> None:
  """A noisy ellipsoid of soft tissue in air, as int16 HU."""
  rng = np.random.default_rng(SEED)
  x, y, z = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij", sparse=True)
  values = np.empty(shape, np.int16)
  for k in range(shape[2]):
    body = x[..., 0] ** 2 + y[..., 0] ** 2 + z[0, 0, k] ** 2 < 1
    noise = rng.normal(0, 25, shape[:2])
    values[..., k] = np.where(body, 40, -1000) + noise
  nibabel.Nifti1Image(values, np.diag([0.7, 0.7, 1.5, 1.0])).to_filename(path)


def target(shape: tuple[int, int, int]) -> tuple[int, int]:
  """Height and width of every slice under the released token budget."""
  entry = resize.Entry(shape[0], shape[1], shape[2])
  policy = vision.HULUMED
  return resize.target_sizes([entry], [PATCH * MERGE], policy.min_tokens, policy.max_tokens)[0]


def ours(path: Path) -> np.ndarray:
  """uint8 [T, P, 196]: as any caller gets them."""
  return vision.visuals([read(path, preset="hulumed")], vision.HULUMED)[0].patches


def reference(path: Path) -> np.ndarray:
  """float32 [T * P, 588]: the released slices (HF path) and image processor, spec 1.4, 1.5, 1.9.

  Rescaled in float32; transformers' own helper takes the slower way through float64.
  """
  data = nibabel.load(path).get_fdata()
  height, width = target(data.shape)
  prepared = []
  for frame in [_slice_as_colours(data[:, :, k]) for k in range(data.shape[2])]:
    picture = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    small = np.array(picture.resize((width, height), Image.Resampling.BICUBIC))
    prepared.append(normalised(small).transpose(2, 0, 1))
  stacked = np.array(prepared)
  rows, columns = height // PATCH, width // PATCH
  blocks = stacked.reshape(
    len(stacked), 3, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH
  )
  return blocks.transpose(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, 3 * PATCH**2)


def _slice_as_colours(values: np.ndarray) -> np.ndarray:
  """uint8 [3, H, W], stretched by itself."""
  low, high = values.min(), values.max()
  if high > low:
    grey = ((values - low) / (high - low) * 255).astype(np.uint8)
  else:
    grey = np.zeros(values.shape, np.uint8)
  return np.stack([grey] * 3)


def normalised(pixels: np.ndarray) -> np.ndarray:
  """uint8 -> float32 in [-1, 1], mean and standard deviation 0.5."""
  scaled = pixels.astype(np.float32) * np.float32(1 / 255)
  return (scaled - np.float32(0.5)) / np.float32(0.5)


def floor(path: Path) -> int:
  """What cannot be left out: reading the bytes, and one grey resize of every slice."""
  stored = np.fromfile(path, np.int16, offset=352)
  grey = np.zeros(SHAPE[:2], np.uint8)
  height, width = target(SHAPE)
  for _ in range(SHAPE[2]):
    Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC)
  return stored.nbytes


def check(path: Path) -> tuple[int, int]:
  """Asserts that the pixels are identical; the bytes of our patches and of the reference's."""
  found, expected = ours(path), reference(path)
  colours = expected.reshape(*found.shape[:2], 3, PATCH**2)
  for channel in range(3):
    np.testing.assert_array_equal(normalised(found), colours[:, :, channel])
  return found.nbytes, expected.nbytes


def cpu_seconds(do: Callable[[Path], object], path: Path) -> float:
  """Of this process, user and system together."""
  start = time.process_time()
  do(path)
  return time.process_time() - start


def peak_mib(name: str, path: Path) -> float:
  """Peak memory of one call in a fresh process, above what imports take."""
  done = subprocess.run(
    [sys.executable, __file__, name, str(path)], check=True, capture_output=True, text=True
  )
  return float(done.stdout)


def _print_peak(name: str, path: Path) -> None:
  Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts anew
  before = _status("VmRSS")
  {"ours": ours, "reference": reference}[name](path)
  print((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
  """KiB of this process."""
  lines = Path("/proc/self/status").read_text().splitlines()
  return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _report(path: Path, with_floor: bool) -> None:
  peaks = peak_mib("ours", path), peak_mib("reference", path)
  ours_bytes, reference_bytes = check(path)
  times: list[tuple[float, float, float]] = []
  for _ in range(REPETITIONS):
    low = cpu_seconds(floor, path) if with_floor else float("nan")
    times.append((cpu_seconds(ours, path), cpu_seconds(reference, path), low))
  # Neighbours in time share whatever else the machine does.
  ratio = statistics.median(own / other for own, other, _ in times)
  above = f"{statistics.median(own / low for own, _, low in times):.2f}" if with_floor else "-"
  print(
    f"| {''.join(path.suffixes)} | {ratio:.3f} | {above} | {ours_bytes / reference_bytes:.4f} | "
    f"{peaks[0] / peaks[1]:.2f} ({peaks[0]:.0f} of {peaks[1]:.0f} MiB) |"
  )


def main() -> None:
  """Prints the table; with a name and a file, the peak memory of that one."""
  if len(sys.argv) == 3:
    _print_peak(sys.argv[1], Path(sys.argv[2]))
    return
  versions = f"Python {platform.python_version()}, NumPy {np.__version__}, Pillow {PIL.__version__}"
  print(f"{versions}, nibabel {nibabel.__version__}; load {os.getloadavg()[0]:.1f}\n")
  print("| file | CPU seconds, ours / reference | ours / floor | bytes | peak memory |")
  print("|---|---|---|---|---|")
  with tempfile.TemporaryDirectory() as folder:
    for name in ("a.nii", "a.nii.gz"):
      path = Path(folder) / name
      make(path)
      _report(path, with_floor=path.suffix == ".nii")


if __name__ == "__main__":
  main()
