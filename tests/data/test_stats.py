"""What is counted of a mixture, held against the batches and the records themselves."""

import dataclasses

import numpy as np
import pytest

from experiments import finetune_vqa
from hulu_jax.data import compression
from hulu_jax.data import counts
from hulu_jax.data import packing
from hulu_jax.data import settings
from hulu_jax.data import stats
from hulu_jax.data import vision
from hulu_jax.data.compression import Compression
from hulu_jax.data.schema import MODALITIES
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.data.stats import Cost
from tests.data import test_pipeline

SHAPE = StepShape(2, 200, 30, 90, (Group(2, 32, 3, 1), Group(8, 48, 1, 2)))
ANSWER = {"role": "assistant", "content": "no"}


def record(name, kind, frames):
  items = [{"type": "text", "text": f"what is {name} ?"}]
  if frames is not None:
    items.insert(0, {"type": kind, "frames": frames})
  return {"id": name, "messages": [{"role": "user", "content": items}, ANSWER]}


def records():
  rng = np.random.default_rng(0)
  picture = rng.integers(0, 256, (1, 42, 56, 3), dtype=np.uint8)
  still = np.repeat(rng.integers(0, 200, (1, 56, 56, 1), dtype=np.uint8), 5, axis=0)
  drifting = still + np.arange(0, 40, 8, dtype=np.uint8)[:, None, None, None]
  moving = rng.integers(0, 256, (4, 56, 56, 1), dtype=np.uint8)
  return [
    record("text", "text", None),
    record("picture", "image", picture),
    record("still", "volume", still),
    record("drifting", "volume", drifting),
    record("moving", "video", moving),
  ]


@pytest.fixture(scope="module")
def examples(builder):
  return [builder(r) for r in records()]


@pytest.fixture(scope="module")
def packed(examples):
  packer = packing.Packer(SHAPE)
  for number, example in enumerate(examples):
    assert packer.add_to(number % 2, example)
  return packer.batch()


def metrics(examples):
  return counts.metrics(counts.held(examples, ["a"]))


def test_metrics_by_modality_add_up_to_the_batch(examples, packed):
  info = metrics(examples)
  visual = np.count_nonzero(packed.visual_slot < SHAPE.visual)
  assert sum(info[f"tokens/{kind}"] for kind in counts.KINDS) == visual
  assert info["tokens/text"] == np.count_nonzero(packed.segments) - visual
  assert info["tokens/image"] == 12  # 3 x 4 patches, never compressed
  assert info["kept/image"] == 1.0 and info["kept/video"] == 1.0
  # 2 x 2 tokens in each of 5 frames; of a still volume only the first frame and one token of each
  # later one stay, and so of one that drifts by 8 of the 12 grey levels that count.
  assert info["tokens/volume"] == 2 * (4 + 4) and info["kept/volume"] == 16 / 40
  assert info["kept"] == (12 + 16 + 16) / (12 + 40 + 16)


def test_a_batch_without_media_has_no_fractions(examples):
  info = metrics(examples[:1])
  assert info["tokens/text"] == len(examples[0].tokens) and info["tokens/image"] == 0
  assert info["kept"] == 0.0 and "kept/image" not in info


def test_room_is_what_a_batch_holds(examples, packed):
  tokens, patches, supervised = counts.room(examples)
  held = stats.used(packed, SHAPE)
  assert held.tolist() == [tokens, supervised, patches, 12 + 16 + 16]
  assert tokens == np.count_nonzero(packed.segments)
  assert supervised == np.count_nonzero(packed.loss_weights)


def test_the_pipeline_says_them_of_every_batch(builder):
  for packed in test_pipeline.take(
    test_pipeline.iterate(builder, [test_pipeline.Numbered(0, 30)], [test_pipeline.PLAIN]), 4
  ):
    batch, info = packed.batch, packed.info
    visual = np.count_nonzero(batch.visual_slot < test_pipeline.SHAPE.visual)
    assert info["tokens/image"] == visual and info["tokens/volume"] == 0
    assert info["tokens/text"] == np.count_nonzero(batch.segments) - visual
    unused = np.count_nonzero(batch.loss_weights == 0)
    assert info["padding/supervised"] == unused / batch.loss_weights.size
    assert ("kept/image" in info) == (visual > 0) and "kept/volume" not in info


@pytest.mark.parametrize("mode", ["off", "hulumed", "videollama3", "fixed"])
def test_kept_by_mode_is_what_that_mode_would_keep(builder, mode):
  """Each record is built once under every mode; one build must tell what the others keep."""
  used = Compression(mode=mode, grey=5.0 if mode == "fixed" else None)
  own = dataclasses.replace(builder.policy, compression=used)
  for one in records()[1:]:
    (visual,) = dataclasses.replace(builder, policy=own)(one).visuals
    found = stats.kept_by_mode(visual, used)
    assert found.keys() == {"off", "hulumed", "videollama3", mode}
    for other in found:
      grey = 5.0 if other == "fixed" else None
      policy = dataclasses.replace(own, compression=Compression(mode=other, grey=grey))
      want = dataclasses.replace(builder, policy=policy)(one)
      assert found[other] == len(want.visual_positions)


def test_a_measuring_builder_builds_the_same(builder, examples):
  measuring = stats.Measuring(
    **{f.name: vars(builder)[f.name] for f in dataclasses.fields(builder)}
  )

  class Listed(list):
    files = ()

  numbered = stats.Numbered(Listed([*records(), {"id": "bad"}]))
  assert len(numbered) == 6
  for number, want in enumerate(examples):
    got = measuring(numbered[number])
    np.testing.assert_array_equal(got.tokens, want.tokens)
  measuring(numbered[5])
  assert sorted(measuring.seen) == list(range(5))
  row = stats.dataset_row(measuring.seen.values(), "fixed")
  info = metrics(examples)
  assert row["tokens"] == {kind: info[f"tokens/{kind}"] for kind in MODALITIES}
  assert row["kept"]["volume"]["fixed"] == info["kept/volume"]
  assert row["kept"]["volume"]["off"] == 1.0
  # The first frame too loses all but one token, as the released code does.
  assert row["kept"]["volume"]["hulumed"] == 10 / 40
  assert row["samples"] == 5 and row["patches"] == counts.room(examples)[1]


def test_a_shape_pays_for_all_its_room_and_uses_what_it_holds(packed):
  cost = Cost(token=3.0, supervised=5.0, patch=2.0, visual=1.0)
  row = stats.shape_row(SHAPE, [stats.used(packed, SHAPE)], cost)
  paid = 2 * (200 * 3 + 30 * 5 + (2 * 32 + 8 * 48) * 2 + 90 * 1)
  assert row["flops"] == paid
  filled = [np.count_nonzero(packed.segments) * 3, np.count_nonzero(packed.loss_weights) * 5]
  filled += [sum(np.count_nonzero(s) for s in packed.patch_segment) * 2, 44]
  assert row["useful_over_paid"] == pytest.approx(sum(filled) / paid)
  assert row["fill"]["visual"] == 44 / 180
  assert "fill" not in stats.shape_row(SHAPE, [], cost)


def test_shapes_of_an_experiment_come_lightest_first():
  cfg = finetune_vqa.get_config("tiny")
  with cfg.unlocked():
    cfg.shapes.small = {"tokens": 64, "supervised": 8, "visual": 8, "groups": ((1, 8, 1, 2),)}
  small, large = settings.step_shapes(cfg.shapes, 3)
  assert small == StepShape(3, 64, 8, 8, (Group(1, 8, 1, 2),)) and large.tokens == 512
  assert settings.policy(cfg.policy) == vision.Policy(
    patch=14,
    min_tokens=1,
    max_tokens=64,
    merge={"image": 1, "volume": 2, "video": 2},
    preset="radiology",
    compression=compression.OFF,
  )
  with pytest.raises(ValueError, match="0 shapes; expected 1 to 3"):
    settings.step_shapes(type(cfg)(), 3)
  cfg.shapes.small.groups = ((1, 7, 1, 2),)
  with pytest.raises(ValueError, match="slots that do not divide into merge blocks"):
    settings.step_shapes(cfg.shapes, 3)
