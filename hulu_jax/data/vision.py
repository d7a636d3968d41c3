"""Frames to what the encoder eats: resized, in patches of merge-block order, with a keep mask."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses

import einops
import numpy as np

from hulu_jax.data import compression as compression_lib
from hulu_jax.data import resize
from hulu_jax.data.compression import Compression
from hulu_jax.data.schema import PATCH
from hulu_jax.data.schema import Visual
from hulu_jax.media.types import Media


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
  """How media become visual tokens; travels with a checkpoint, since a model is used as trained.

  patch: side in pixels; min_tokens, max_tokens: visual tokens of a conversation, after merging;
  merge: by kind ("image", "volume", "video"); preset: how media are read (`media.read`).
  swap_sides: kinds whose height and width are exchanged where the target size is worked out, so
  that what is shown is squashed onto the transposed canvas.  The released code does it to whatever
  it holds as a Pillow picture (spec 1.3): ("image",) is its Hugging Face path with pictures given
  as files, ("image", "volume") its local one.  Empty for all else.
  """

  patch: int
  min_tokens: int
  max_tokens: int
  merge: Mapping[str, int]
  preset: str
  compression: Compression
  swap_sides: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    if self.patch != PATCH:
      raise ValueError(f"patch {self.patch}; the batch's contract fixes {PATCH} pixels")
    unknown = sorted(set(self.swap_sides) - set(self.merge))
    if unknown:
      raise ValueError(f"swap_sides names {unknown}; there are: {', '.join(self.merge)}")


# What the released model uses (16,384 tokens, volumes and clips merged 2 x 2), compression off.
HULUMED = Policy(
  patch=14,
  min_tokens=16,
  max_tokens=16384,
  merge={"image": 1, "volume": 2, "video": 2},
  preset="radiology",
  compression=compression_lib.OFF,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted(Media):
  """A medium whose frames were resized beforehand to what a policy shows.

  original: height and width before.  Sizes are worked out from them again: the rule applied to its
  own result can give another (a minimum that wins over the budget, sides that are swapped).
  counted: frames before some were cut, which sizes are worked out for; None: all are there.
  max_tokens: what the policy's was lowered to for this conversation; None: as it is.
  `spacing_mm` and `affine` are still those of the pixels before.
  """

  original: tuple[int, int]
  counted: int | None = None
  max_tokens: int | None = None


def visuals(media: Sequence[Media], policy: Policy) -> tuple[Visual, ...]:
  """All media of one conversation as the encoder sees them; they share the token budget.

  Only volumes and clips are compressed: a list of pictures is a list of separate entries.
  """
  return tuple(
    _visual(m, size, policy) for m, size in zip(media, sizes(media, policy), strict=True)
  )


def fit(media: Sequence[Media], policy: Policy) -> tuple[Fitted, ...]:
  """All media of one conversation with their frames as `visuals` resizes them.

  Raises:
    ValueError: as `sizes`, or media fitted already, to another size.
  """
  return tuple(fitted(m, size) for m, size in zip(media, sizes(media, policy), strict=True))


def fitted(medium: Media, size: tuple[int, int]) -> Fitted:
  """One medium with its frames resized; ValueError if it is fitted already, to another size."""
  _check_fitted(medium, size)
  if isinstance(medium, Fitted):
    return medium
  frames = resize.resize(medium.frames, size)
  fields = {f.name: vars(medium)[f.name] for f in dataclasses.fields(Media)}
  return Fitted(**{**fields, "frames": frames}, original=_original(medium))


def outline(medium: Fitted) -> Media:
  """As it was before, as far as `sizes` goes: pixels are all 0, and take no memory."""
  fields = {f.name: vars(medium)[f.name] for f in dataclasses.fields(Media)}
  shape = (len(medium.frames), *medium.original, medium.frames.shape[-1])
  return Media(**{**fields, "frames": np.broadcast_to(np.uint8(0), shape)})


def sizes(media: Sequence[Media], policy: Policy) -> list[tuple[int, int]]:
  """(height, width) that each medium of one conversation is shown at; its pixels do not matter.

  Raises:
    ValueError: a side would shrink to nothing.
  """
  if not media:
    return []
  lowered = [m.max_tokens for m in media if isinstance(m, Fitted) and m.max_tokens is not None]
  return resize.target_sizes(
    [_entry(m, policy) for m in media],
    [policy.patch * policy.merge[m.kind] for m in media],
    policy.min_tokens,
    min([policy.max_tokens, *lowered]),
  )


def _entry(media: Media, policy: Policy) -> resize.Entry:
  height, width = _original(media)
  if media.kind in policy.swap_sides:
    height, width = width, height
  counted = media.counted if isinstance(media, Fitted) else None
  return resize.Entry(height, width, len(media.frames) if counted is None else counted)


def _original(media: Media) -> tuple[int, int]:
  return media.original if isinstance(media, Fitted) else media.frames.shape[1:3]


def _check_fitted(media: Media, size: tuple[int, int]) -> None:
  found = media.frames.shape[1:3]
  if isinstance(media, Fitted) and found != size:
    raise ValueError(f"frames prepared at {found}, this policy shows {size}; prepare them with it")


def _visual(media: Media, size: tuple[int, int], policy: Policy) -> Visual:
  _check_fitted(media, size)
  merge, shape = policy.merge[media.kind], media.frames.shape
  resized = resize.each(media.frames, size)
  patches = _patches(resized, (shape[0], *size, shape[3]), policy.patch, merge)
  keep = keep_mask(patches, merge, media, policy.compression)
  grid = (size[0] // policy.patch, size[1] // policy.patch)
  pruned = policy.compression.prune == "before"
  return Visual(media.kind, patches, grid, merge, keep, pruned)


def keep_mask(
  patches: np.ndarray, merge: int, media: Media, compression: Compression
) -> np.ndarray:
  """bool [T, P // merge**2], from patches [T, P, values]: the visual tokens that survive."""
  tokens = einops.rearrange(patches, "t (n m) v -> t n (m v)", m=merge**2)
  if media.kind == "image":
    return np.ones(tokens.shape[:2], bool)
  return compression_lib.keep_mask(tokens, compression, media.window)


def patchify(frames: np.ndarray, patch: int, merge: int) -> np.ndarray:
  """uint8 [T, H, W, C] -> uint8 [T, P, C * patch**2]; a patch is [channel][row][column].

  Patches come block row, block column, row in block, column in block, so `merge**2` consecutive
  ones make a visual token.
  """
  return _patches(frames, frames.shape, patch, merge)


def _patches(
  frames: Iterable[np.ndarray], shape: tuple[int, ...], patch: int, merge: int
) -> np.ndarray:
  """`patchify` of frames that come one by one; shape: of all together, [T, H, W, C]."""
  count, height, width, channels = shape
  out = np.empty((count, height // patch * (width // patch), channels * patch**2), np.uint8)
  row = f"V{patch}"  # a row of a patch moves as one item, in half the time of its bytes
  for place, frame in zip(out, frames, strict=True):
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).view(row)
    rows = einops.rearrange(
      planes, "c (bh mh ph) (bw mw) -> bh bw mh mw c ph", ph=patch, mh=merge, mw=merge
    )
    place.view(row).reshape(rows.shape)[...] = rows
  return out


def patch_places(grid: tuple[int, int], merge: int) -> np.ndarray:
  """int16 [P, 2]: row and column of each patch in the un-merged grid, in `patchify`'s order."""
  rows, columns = np.meshgrid(*(np.arange(n, dtype=np.int16) for n in grid), indexing="ij")
  places = np.stack([rows, columns], axis=-1)
  return einops.rearrange(places, "(bh mh) (bw mw) c -> (bh bw mh mw) c", mh=merge, mw=merge)
