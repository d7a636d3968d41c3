"""Draws docs/compression.png: what is kept over the threshold, and one slice under three modes."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib import figure
from matplotlib.axes import Axes
import numpy as np

from benchmarks import retention_lesions as lesions
from benchmarks import retention_measures as measures
from benchmarks import retention_scans as scans
from benchmarks.retention_lesions import Sphere
from benchmarks.retention_measures import Case
from benchmarks.retention_scans import Scan
from benchmarks.retention_scans import Shown
from hulu_jax.data.compression import Compression
from hulu_jax.media import Options

# What is drawn into the slice: easier to see than what is measured.
LESION = Sphere((0, 0, 0), 15.0, -1)
CONTRAST_HU = 40.0
_SHADE = np.array([150, 20, 20]) / 255


def draw(
  scan: Scan,
  organ: str,
  options: Options,
  cases: Mapping[str, Case],
  whole: Mapping[str, float],
  path: Path,
) -> None:
  """options: as the scan is shown; cases: lesions of `organ` by the label to draw, with modes named
  "threshold against"; whole: kept fractions of all tokens by the same modes."""
  fig = figure.Figure(figsize=(10.5, 6.6), dpi=100, layout="constrained")
  top, bottom = fig.subfigures(2, 1, height_ratios=[1, 1.1], squeeze=False)[:, 0]
  left, right = top.subplots(1, 2, sharey=True)
  for against, ax in zip(("previous", "last_kept"), (left, right), strict=True):
    _curves(ax, against, cases, whole)
  left.set_ylabel("fraction kept")
  right.legend(frameon=False, fontsize=8)
  compared = (
    ("hulumed: 12.75 grey levels = 20 HU", Compression(mode="hulumed")),
    ("fixed, 8 HU", Compression(mode="fixed", grey=8, hu=8)),
    ("fixed, 3 HU", Compression(mode="fixed", grey=3, hu=3)),
  )
  _slices(bottom, scan, scan.masks[organ], options, compared)
  fig.savefig(path, format="png", pil_kwargs={"optimize": True})


def _curves(ax: Axes, against: str, cases: Mapping[str, Case], whole: Mapping[str, float]) -> None:
  chosen = [name for name in whole if name.endswith(f" {against}")]
  x = [float(name.split()[0]) for name in chosen]
  ax.plot(x, [whole[name] for name in chosen], color="black", label="all tokens of the scan")
  for number, (label, case) in enumerate(cases.items()):
    found = [case.by_mode[name] for name in chosen]
    colour = f"C{number}"
    ax.plot(x, [s.tokens for s in found], "o-", color=colour, markersize=4, label=label)
    low, high = np.array([s.tokens_interval for s in found]).T
    ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.plot(x, [s.anyway for s in found], "x:", color=colour, label="the same without the lesion")
  if against == "previous":
    ax.axvline(20, color="grey", linewidth=0.8)
    ax.text(19.6, 0.97, "hulumed", ha="right", va="top", fontsize=8, color="grey")
  ax.set_title(f"fixed, against {against}", fontsize=10)
  ax.set_xlabel("threshold, HU of mean change of a token")
  ax.grid(alpha=0.3)


def _slices(
  bottom: figure.SubFigure,
  scan: Scan,
  mask: np.ndarray,
  options: Options,
  compared: tuple[tuple[str, Compression], ...],
) -> None:
  plain = scans.show(scan, options)
  across = scans.across(scan, plain)
  place = lesions.places(mask, scan.steps_mm, LESION.diameter_mm, 1, 2, across)[0]
  place = LESION._replace(centre=place.centre)
  values = lesions.insert(scan.voxels.values, [place], CONTRAST_HU, scan.steps_mm)
  shown = scans.show(scan, options, values)
  weights = scans.covered(
    scan, lesions.weight_map([place], scan.voxels.values.shape, scan.steps_mm)
  )
  frame = int(weights.sum(axis=(1, 2)).argmax())
  outline = _pixels(scans.covered(scan, mask * np.uint8(255))[frame], shown)
  for ax, (title, mode) in zip(bottom.subplots(1, len(compared)), compared, strict=True):
    keep = measures.kept(shown.tokens, mode, shown.media.window)
    picture = np.repeat(_pixels(shown.tokens[frame], shown)[..., None] / 255, 3, axis=-1)
    side = picture.shape[0] // shown.rows
    dropped = ~keep[frame].reshape(shown.rows, shown.columns)
    dropped = dropped.repeat(side, axis=0).repeat(side, axis=1)
    picture[dropped] = picture[dropped] / 2 + _SHADE / 2
    ax.imshow(picture, interpolation="bilinear")
    ax.contour(outline, levels=[128], colors="tab:cyan", linewidths=0.8)
    ax.contour(_pixels(weights[frame], shown), levels=[128], colors="yellow", linewidths=0.8)
    ax.set_title(f"{title}\nkept in this slice: {keep[frame].mean():.2f}", fontsize=9)
    ax.axis("off")


def _pixels(tokens: np.ndarray, shown: Shown) -> np.ndarray:
  """One frame [N, values] of grey tokens of 2 x 2 patches as [H, W]."""
  patch = int(np.sqrt(tokens.shape[1] // 4))
  blocks = tokens.reshape(shown.rows, shown.columns, 2, 2, patch, patch)
  return blocks.transpose(0, 2, 4, 1, 3, 5).reshape(shown.rows * 2 * patch, -1)
