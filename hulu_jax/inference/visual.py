"""The visual tokens of one medium, for those who want features and not an answer."""

from typing import NamedTuple

import einops
import jax
import numpy as np

from hulu_jax.core import params as P
from hulu_jax.data import vision
from hulu_jax.data.vision import Policy
from hulu_jax.inference import entry
from hulu_jax.kernels.visual_tokenizer import rule
from hulu_jax.media.types import Media
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute


class VisualTokens(NamedTuple):
  """What of a medium reaches the decoder, in its order.

  tokens: float32 [kept, embed of the decoder]; frame: int32 [kept]; place: int32 [kept, 2], row and
  column in the grid of visual tokens; keep: bool [T, rows, columns]; score: int32 [T, rows,
  columns], the sum of absolute grey-level differences that decided, 0 in the first frame.
  """

  tokens: np.ndarray
  frame: np.ndarray
  place: np.ndarray
  keep: np.ndarray
  score: np.ndarray


def tokens(
  params: P.Params, medium: Media, policy: Policy, config: HuluConfig, compute: Compute
) -> VisualTokens:
  """A medium as `policy` shows it, encoded, compressed and projected on one device."""
  (visual,) = vision.visuals([medium], policy)
  merge = visual.merge
  frames, count, values = visual.patches.shape
  rows, columns = (side // merge for side in visual.grid)
  compression = policy.compression
  own = rule.of(
    # Pictures are never compressed.
    mode="off" if visual.kind == "image" else compression.mode,
    frames=frames,
    values=values * merge**2,
    grey=_grey(medium, policy),
    against=compression.against,
  )
  plan = entry.Plan(
    config=config, compute=compute, rule=own, before=visual.pruned, capacity=frames * rows * columns
  )
  patches = einops.rearrange(visual.patches, "t (n m) v -> t n m v", m=merge**2)
  places = vision.patch_places(visual.grid, merge).reshape(count // merge**2, merge**2, 2)
  found = jax.device_get(entry.encode(params, patches, places, plan))
  source = found.source[: found.valid]
  return VisualTokens(
    tokens=found.tokens[: found.valid].astype(np.float32),
    frame=source // (rows * columns),
    place=np.stack(np.divmod(source % (rows * columns), columns), axis=-1),
    keep=found.keep.reshape(frames, rows, columns),
    score=found.score.reshape(frames, rows, columns),
  )


def _grey(medium: Media, policy: Policy) -> float | None:
  """The threshold of `fixed`, None for what has none of its own."""
  if medium.kind == "image" or policy.compression.mode != "fixed":
    return None
  return policy.compression.threshold(medium.window)
