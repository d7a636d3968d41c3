"""Every field that travels from a file to the model: name, shape and unit, in one place."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy on the host, a jax.Array on the device

# What a sample shows, by number: it is of the last of these that it holds.
MODALITIES = ("text", "image", "volume", "video")
# Side of a patch in pixels: fixed by the contract, since a patch of one channel is 196 bytes.
PATCH = 14


class Ref(NamedTuple):
  """Which record of a mixture: number of the dataset, and of the record in it."""

  source: int
  record: int


@dataclasses.dataclass(frozen=True)
class Visual:
  """One entry of a prompt (an image, a volume, a clip) as the encoder will see it.

  patches: uint8 [T, P, 196 * channels], a patch is [channel][row][col], `merge**2` consecutive
    patches make one visual token.
  grid: rows and columns of patches in each frame, before merging (P = rows * columns).
  keep: bool [T, P // merge**2], the visual tokens that survive compression.
  pruned: whether the encoder sees the patches of these alone (`prune="before"`).
  """

  kind: str  # "image", "volume" or "video"
  patches: np.ndarray
  grid: tuple[int, int]
  merge: int
  keep: np.ndarray
  pruned: bool = False

  @property
  def channels(self) -> int:
    """1 for grey media, 3 for colour."""
    return self.patches.shape[2] // PATCH**2


@dataclasses.dataclass(frozen=True)
class Example:
  """One conversation, tokenized and compressed, not yet packed.

  tokens: int32 [n]
  weights: float32 [n], loss weight of token i as a target (0 where it is not supervised).
  visual_positions: int32 [v], where in `tokens` each kept visual token goes, in the order entry,
    frame, token.
  source: number of the dataset it came from.
  cut: what it lost so that it fits a step shape (see `cutting`), () if nothing.
  """

  id: str
  tokens: np.ndarray
  weights: np.ndarray
  visuals: tuple[Visual, ...]
  visual_positions: np.ndarray
  source: int
  cut: tuple[str, ...] = ()

  @property
  def modality(self) -> int:
    """Its number in MODALITIES."""
    return max((MODALITIES.index(v.kind) for v in self.visuals), default=0)


class Group(NamedTuple):
  """One patch group of a step shape: `slots` of `size` patches per row, for frames of like kind."""

  slots: int
  size: int
  channels: int
  merge: int

  @property
  def pooled(self) -> int:
    """Visual tokens per row."""
    return self.slots * self.size // self.merge**2


class StepShape(NamedTuple):
  """The static shape of one batch; see `Batch` for what the letters count."""

  rows: int  # B
  tokens: int  # L
  supervised: int  # K
  visual: int  # V
  groups: tuple[Group, ...]


class Batch(NamedTuple):
  """What the model eats.  All shapes are static; G groups stand in tuples.

  tokens, targets, positions, segments: int32 [B, L].  targets[i] is the token after i in its
    segment; positions count the compressed sequence and restart per sample; segment 0 is padding.
  loss_index: int32 [B, K] supervised positions, padding points past L.
  loss_weights: float32 [B, K]
  loss_modality: int32 [B, K] of their samples, numbers of MODALITIES; for metrics.
  source: int32 [B, L] dataset number.
  patches[g]: uint8 [B, slots, size, 196 * channels]
  patch_segment[g]: int32 [B, slots, size] frame number inside the slot, 0 is padding.
  patch_hw[g]: int16 [B, slots, size, 2] row and column of the patch in its frame's un-merged grid.
  visual_source: int32 [B, V] kept visual tokens, sorted, as indices into the row's pooled axis (all
    groups in order); padding points past its end.
  visual_slot: int32 [B, L] index into V, or V for a text token.
  """

  tokens: Array
  targets: Array
  positions: Array
  segments: Array
  loss_index: Array
  loss_weights: Array
  loss_modality: Array
  source: Array
  patches: tuple[Array, ...]
  patch_segment: tuple[Array, ...]
  patch_hw: tuple[Array, ...]
  visual_source: Array
  visual_slot: Array
