"""Pruning before the encoder: what is packed, counted and stored is what survives, nothing else."""

import dataclasses

import jax
import numpy as np
import pytest

from hulu_jax.data import counts
from hulu_jax.data import lengths
from hulu_jax.data import packing
from hulu_jax.data import stored_lengths
from hulu_jax.data import vision
from hulu_jax.data.compression import Compression
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.data.schema import Visual
from hulu_jax.inference import prompts
from tests.models.mixed import CONVERSATIONS
from tests.models.mixed import SHAPE

# perf model of the encoder: FLOPs of a patch's linear layers, and of its attention per patch seen.
LINEAR, ATTENTION = 823.5e6, 0.1244e6


def with_prune(builder, prune, **changed):
  compression = dataclasses.replace(builder.policy.compression, prune=prune, **changed)
  policy = dataclasses.replace(builder.policy, compression=compression)
  return dataclasses.replace(builder, policy=policy)


def build(builder, name):
  return builder.build(CONVERSATIONS[name], name, generate=False)


def test_the_row_holds_the_kept_patches_at_their_true_places(builder):
  example = build(with_prune(builder, "before"), "volume")
  (visual,) = example.visuals
  assert 0 < np.count_nonzero(~visual.keep)  # something is pruned
  packer = packing.Packer(SHAPE)
  assert packer.add(example)
  batch, group = packer.batch(), 2  # grey, merged 2 x 2
  row = next(r for r in range(SHAPE.rows) if batch.segments[r].any())
  held = {}  # frame -> {place: bytes}
  numbers = {}
  for slot in range(SHAPE.groups[group].slots):
    for i in np.flatnonzero(batch.patch_segment[group][row, slot]):
      key = (slot, int(batch.patch_segment[group][row, slot, i]))
      frame = numbers.setdefault(key, len(numbers))
      place = tuple(batch.patch_hw[group][row, slot, i].tolist())
      held.setdefault(frame, {})[place] = batch.patches[group][row, slot, i]
  assert len(held) == len(visual.keep)
  columns = visual.grid[1] // 2
  for frame, kept in enumerate(visual.keep):
    want = {
      (2 * (n // columns) + r, 2 * (n % columns) + c): visual.patches[frame, 4 * n + 2 * r + c]
      for n in np.flatnonzero(kept)
      for r in range(2)
      for c in range(2)
    }
    assert held[frame].keys() == want.keys()
    for place, patch in want.items():
      np.testing.assert_array_equal(held[frame][place], patch)
  used = batch.visual_source[row] < sum(g.pooled for g in SHAPE.groups)
  assert used.sum() == visual.keep.sum() == len(example.visual_positions)


def test_without_compression_before_is_after_bit_for_bit(builder):
  batches = []
  for prune in ("after", "before"):
    packer = packing.Packer(SHAPE)
    own = with_prune(builder, prune, mode="off", grey=None)
    assert all(packer.add(build(own, name)) for name in CONVERSATIONS)
    batches.append(packer.batch())
  for after, before in zip(*map(jax.tree.leaves, batches), strict=True):
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("name", ["volume", "clip", "both", "pictures"])
def test_lengths_stats_and_prompts_count_what_is_encoded(builder, name):
  own = with_prune(builder, "before")
  example = own.build(CONVERSATIONS[name][:1], name, generate=True)
  patches = sum(int(v.keep.sum()) * v.merge**2 for v in example.visuals)
  length = lengths.of(example)
  assert sum(m.frames * m.patches for m in length.media) == patches
  assert counts.room([example])[1] == patches
  batch, _ = prompts.to_batch([example], 1)
  assert sum(np.count_nonzero(s) for s in batch.patch_segment) == patches


def test_stored_lengths_are_those_of_the_built_record(builder):
  own = with_prune(builder, "before")
  modes = stored_lengths.compressions(own.policy)
  assert list(modes) == ["fixed"]  # other modes would have other patches
  media = own.read_all(CONVERSATIONS["volume"])
  whole = build(with_prune(builder, "after", mode="off", grey=None), "volume")
  measured = stored_lengths.measure(0, lengths.of(whole), whole, media, modes)
  arrays = stored_lengths.collect([measured], modes)
  assert len(arrays.kind) == len(arrays.media)
  assert arrays.lengths("fixed")[0] == lengths.of(build(own, "volume"))


def test_released_modes_refuse_it():
  for mode in ("hulumed", "videollama3"):
    with pytest.raises(ValueError, match="equality with released code"):
      Compression(mode=mode, prune="before")
  with pytest.raises(ValueError, match="expected one of after, before"):
    Compression(mode="off", prune="during")
  assert vision.HULUMED.compression.prune == "after"


def test_a_volume_of_180_slices_saves_what_was_counted():
  """V180 with 55 % cut: 50.4 TFLOP of the encoder, of which pruning saves about 28."""
  rng = np.random.default_rng(0)
  keep = rng.random((180, 81)) < 0.45
  keep[:, 0] |= ~keep.any(axis=1)
  patches = np.broadcast_to(np.uint8(0), (180, 324, 196))
  after = Visual("volume", patches, (18, 18), 2, keep)

  def flops(visual):
    return sum(
      m.frames * m.patches * (LINEAR + ATTENTION * m.patches) for m in lengths.encoded(visual)
    )

  before = dataclasses.replace(after, pruned=True)
  assert flops(after) == pytest.approx(50.4e12, rel=0.01)
  # 28.3 are the difference of the two columns of the count; the mask here is drawn, so 5 %.
  assert flops(after) - flops(before) == pytest.approx(28.3e12, rel=0.05)


def test_pruned_frames_share_slots():
  keep = np.zeros((6, 4), bool)
  keep[:, 1] = True
  visual = Visual("video", np.zeros((6, 16, 196), np.uint8), (4, 4), 2, keep, pruned=True)
  assert lengths.encoded(visual) == (lengths.Medium(6, 4, 1, 2),)
  shape = StepShape(1, 8, 1, 6, (Group(2, 12, 1, 2),))
  length = lengths.Length(7, 0, 6, lengths.encoded(visual))
  assert packing.rows.refusal(length, shape) is None
