"""Packing: every token and patch lands where it should, and what is too big is told."""

import dataclasses

import numpy as np
import pytest

from hulu_jax.data import packing
from hulu_jax.data import vision
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.data.schema import Visual

# Two sizes of grey pictures, so that first fit has a choice; colour; merged grey stacks.
SHAPE = StepShape(
  rows=3,
  tokens=64,
  supervised=20,
  visual=40,
  groups=(Group(2, 30, 1, 1), Group(2, 12, 1, 1), Group(1, 12, 3, 1), Group(2, 32, 1, 2)),
)


def visual(rng, kind, frames, grid, channels, merge):
  patches = rng.integers(1, 256, (frames, grid[0] * grid[1], 196 * channels), dtype=np.uint8)
  keep = rng.random((frames, grid[0] * grid[1] // merge**2)) < 0.6
  keep[:, 0] = True
  return Visual(kind, patches, grid, merge, keep)


def example(rng, number, *visuals, text=9, answer=4):
  """Text, each visual's kept tokens with a separator after each frame, a weighted answer."""
  tokens, positions = list(rng.integers(100, 200, text)), []
  for v in visuals:
    for kept in v.keep.sum(axis=1):
      positions += range(len(tokens), len(tokens) + kept)
      tokens += [50] * kept + [51]
  weights = [0.0] * len(tokens) + [0.5 * (i % 3) for i in range(answer)]
  tokens += list(rng.integers(200, 300, answer))
  return Example(
    id=f"case-{number}",
    tokens=np.array(tokens, np.int32),
    weights=np.array(weights, np.float32),
    visuals=visuals,
    visual_positions=np.array(positions, np.int32),
    source=number % 4,
  )


def mixed_examples():
  rng = np.random.default_rng(0)
  grey = lambda grid: visual(rng, "image", 1, grid, 1, 1)  # noqa: E731
  colour = lambda grid: visual(rng, "image", 1, grid, 3, 1)  # noqa: E731
  stack = lambda frames, grid: visual(rng, "volume", frames, grid, 1, 2)  # noqa: E731
  return [
    example(rng, 0),
    example(rng, 1, stack(3, (4, 2)), grey((3, 4))),
    example(rng, 2, colour((2, 5)), colour((1, 2))),
    example(rng, 3, grey((5, 6)), text=1),
    example(rng, 4, grey((2, 2)), colour((2, 2)), stack(2, (4, 4)), text=3),
    example(rng, 5, text=30, answer=9),
    example(rng, 6, stack(1, (2, 2))),
  ]


@pytest.fixture(scope="module")
def packed():
  packer = packing.Packer(SHAPE)
  examples = mixed_examples()
  assert all(packer.add(e) for e in examples)
  return packer.batch(), packer.examples, examples


def segments(batch):
  """(row, slice) of every packed sample, row by row."""
  for r, row in enumerate(batch.segments):
    for number in range(1, row.max() + 1):
      where = np.flatnonzero(row == number)
      yield r, slice(where[0], where[-1] + 1)


def test_nothing_is_lost_or_doubled(packed):
  batch, order, examples = packed
  assert sorted(e.id for e in order) == [e.id for e in examples]
  assert len(list(segments(batch))) == len(examples)
  assert len({r for r, _ in segments(batch)}) > 1
  assert sum(len(e.tokens) for e in examples) == np.count_nonzero(batch.segments)


def test_each_segment_is_one_example(packed):
  batch, order, _ = packed
  for (r, here), e in zip(segments(batch), order, strict=True):
    n = len(e.tokens)
    np.testing.assert_array_equal(batch.tokens[r, here], e.tokens)
    np.testing.assert_array_equal(batch.targets[r, here][:-1], e.tokens[1:])
    np.testing.assert_array_equal(batch.positions[r, here], np.arange(n))
    assert set(batch.source[r, here]) == {e.source}
    # The loss of position i is weighted as the token after it; the first token is never a target.
    at = {
      int(i) - here.start: w
      for i, w in zip(batch.loss_index[r], batch.loss_weights[r], strict=True)
      if here.start <= i < here.stop
    }
    assert at == {i - 1: e.weights[i] for i in range(1, n) if e.weights[i]}


def test_each_kept_token_reads_its_own_patches(packed):
  """Follows a visual token from the text through the pooled axis back to its bytes."""
  batch, order, _ = packed
  pooled = [[group[r] for group in pooled_by_group(batch)] for r in range(SHAPE.rows)]
  for (r, here), e in zip(segments(batch), order, strict=True):
    blocks = [block for group in pooled[r] for block in group]
    wanted = []
    for v in e.visuals:
      places = vision.patch_places(v.grid, v.merge)
      for patches, keep in zip(v.patches, v.keep, strict=True):
        m = v.merge**2
        wanted += [
          (patches[k * m : k * m + m], places[k * m : k * m + m]) for k in np.flatnonzero(keep)
        ]
    slots = batch.visual_slot[r, here]
    assert set(np.flatnonzero(slots < SHAPE.visual)) == set(e.visual_positions)
    for position, (patches, places) in zip(e.visual_positions, wanted, strict=True):
      got_patches, got_places, got_segment = blocks[batch.visual_source[r, slots[position]]]
      np.testing.assert_array_equal(got_patches, patches)
      np.testing.assert_array_equal(got_places, places)
      assert len(set(got_segment)) == 1 and got_segment[0] > 0


def pooled_by_group(batch):
  return [pooled_rows(batch, g) for g in range(len(SHAPE.groups))]


def pooled_rows(batch, g):
  """Per row, the merge blocks of a group in order: (patches, places, frame numbers)."""
  m = SHAPE.groups[g].merge ** 2
  parts = (batch.patches[g], batch.patch_hw[g], batch.patch_segment[g])
  rows = []
  for r in range(SHAPE.rows):
    flat = [p[r].reshape(-1, m, *p.shape[3:]) for p in parts]
    rows.append(list(zip(*flat, strict=True)))
  return rows


def test_a_frame_is_one_segment_of_one_slot(packed):
  batch, order, _ = packed
  frames = sum(len(v.patches) for e in order for v in e.visuals)
  found = 0
  for segment in batch.patch_segment:
    for slot in segment.reshape(-1, segment.shape[-1]):
      used = slot[slot > 0]
      np.testing.assert_array_equal(used, np.sort(used))
      np.testing.assert_array_equal(slot[: len(used)], used)
      found += len(set(used))
  assert found == frames


def test_visual_source_is_sorted_and_padding_points_past_the_end(packed):
  batch, order, _ = packed
  past = sum(g.pooled for g in SHAPE.groups)
  kept = sum(len(e.visual_positions) for e in order)
  assert (np.diff(batch.visual_source, axis=1) >= 0).all()
  assert np.count_nonzero(batch.visual_source < past) == kept
  assert (batch.visual_source[batch.visual_source >= past] == past).all()
  assert np.count_nonzero(batch.visual_slot < SHAPE.visual) == kept
  unused = batch.loss_index == SHAPE.tokens
  assert (batch.loss_weights[unused] == 0).all() and (batch.loss_weights[~unused] > 0).all()


def test_a_batch_has_the_static_shape_whatever_is_in_it(packed):
  batch, _, _ = packed
  empty = packing.empty_batch(SHAPE)
  one = packing.Packer(SHAPE)
  one.add(mixed_examples()[0])
  for fields in zip(batch, empty, one.batch(), strict=True):
    groups = fields if isinstance(fields[0], tuple) else tuple((f,) for f in fields)
    for same in zip(*groups, strict=True):
      assert len({(a.shape, a.dtype) for a in same}) == 1
  assert (empty.segments == 0).all() and all((s == 0).all() for s in empty.patch_segment)


def test_the_smallest_group_that_fits_is_taken_first():
  rng = np.random.default_rng(1)
  small, large = (visual(rng, "image", 1, grid, 1, 1) for grid in ((3, 4), (5, 6)))
  packer = packing.Packer(SHAPE)
  assert packer.add(example(rng, 0, small, large, text=1))
  batch = packer.batch()
  assert np.count_nonzero(batch.patch_segment[1][0]) == 12
  assert np.count_nonzero(batch.patch_segment[0][0]) == 30


def test_a_full_batch_refuses_and_keeps_what_it_has():
  rng = np.random.default_rng(2)
  packer = packing.Packer(SHAPE)
  long = [example(rng, n, text=50, answer=0) for n in range(4)]
  assert [packer.add(e) for e in long] == [True, True, True, False]
  before = packer.batch()
  assert not packer.add(long[3])
  picture = example(rng, 9, visual(rng, "image", 3, (3, 4), 3, 1), text=0, answer=0)
  assert not packer.add(picture)  # its frames need three slots of the one there is
  for a, b in zip(before, packer.batch(), strict=True):
    np.testing.assert_equal(a, b)
  assert packer.add(example(rng, 10, text=5, answer=0))


@pytest.mark.parametrize(
  ("make", "reason"),
  [
    (lambda rng: example(rng, 0, text=65, answer=0), "65 tokens, the shape holds 64"),
    (lambda rng: example(rng, 0, text=2, answer=40), "26 supervised positions, the shape holds 20"),
    (
      lambda rng: example(rng, 0, visual(rng, "image", 1, (5, 7), 1, 1), text=1),
      r"\(1, 35, 1, 1\)\] do not fit",
    ),
    (
      lambda rng: example(rng, 0, visual(rng, "image", 1, (2, 2), 3, 2), text=1),
      r"\(1, 4, 3, 2\)\] do not fit",
    ),
    (
      lambda rng: example(rng, 0, visual(rng, "volume", 5, (4, 4), 1, 2), text=1),
      r"\(5, 16, 1, 2\)\] do not fit",
    ),
  ],
)
def test_what_no_empty_row_can_hold_is_told(make, reason):
  too_big = make(np.random.default_rng(3))
  with pytest.raises(AssertionError, match=reason):
    raise AssertionError(packing.refusal(too_big, SHAPE))
  assert not packing.Packer(SHAPE).add(too_big)


def test_too_many_visual_tokens_are_told():
  rng = np.random.default_rng(4)
  picture = visual(rng, "image", 2, (5, 6), 1, 1)
  picture = dataclasses.replace(picture, keep=np.ones((2, 30), bool))
  too_many = example(rng, 0, picture, text=1, answer=0)
  assert packing.refusal(too_many, SHAPE) == "60 visual tokens, the shape holds 40"


def test_what_fits_is_not_refused():
  assert [packing.refusal(e, SHAPE) for e in mixed_examples()] == [None] * 7
