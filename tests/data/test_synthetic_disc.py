"""The quick start's data: what a label says is what the picture shows, and the splits are apart."""

from concurrent import futures
import itertools
import time

import numpy as np
import pytest

from hulu_jax.data.datasets import _backgrounds
from hulu_jax.data.datasets import _discs
from hulu_jax.data.datasets import synthetic_disc
from hulu_jax.media import samples

POOL = 24


def source(kind, split, *, size=120, fade=0.0, seed=3):
  pool = 0 if kind == "text" else POOL
  return synthetic_disc.Source(kind=kind, split=split, seed=seed, size=size, pool=pool, fade=fade)


def frames(record):
  medium = record["messages"][0]["content"][0]
  return medium["frames"][..., 0]


def turns(record):
  """[(question, answer)], the question without the medium or the findings."""
  texts = [message["content"][-1]["text"] for message in record["messages"]]
  texts[0] = texts[0].split(" . ")[-1]
  return list(zip(texts[::2], texts[1::2], strict=True))


def same(a, b):
  return a["id"] == b["id"] and turns(a) == turns(b) and np.array_equal(frames(a), frames(b))


@pytest.mark.parametrize("kind", ["2D", "3D", "video"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_records_depend_on_seed_and_index_only(kind, split):
  first, again, other = (source(kind, split, seed=seed) for seed in (11, 11, 12))
  with futures.ThreadPoolExecutor(4) as pool:
    threaded = list(pool.map(again.__getitem__, reversed(range(len(again)))))[::-1]
  assert all(same(first[i], record) for i, record in enumerate(threaded))
  assert not any(same(first[i], other[i]) for i in range(20))


def test_pool_rendering_is_deterministic():
  render = _backgrounds.clips.__wrapped__
  assert np.array_equal(render("train", "volume", 5, 3), render("train", "volume", 5, 3))


@pytest.mark.parametrize(
  ("kind", "type_", "shape"),
  [
    ("2D", "image", (1, 112, 112, 1)),
    ("3D", "volume", (6, 56, 56, 1)),
    ("video", "video", (6, 56, 56, 1)),
  ],
)
def test_record_layout(kind, type_, shape):
  record = source(kind, "train")[7]
  medium, question = record["messages"][0]["content"]
  assert record["kind"] == kind and record["id"] == f"disc-{kind}-train-7"
  assert medium["type"] == type_ and question["type"] == "text"
  assert medium["frames"].dtype == np.uint8 and medium["frames"].shape == shape
  assert medium.get("timestamps") == ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0] if kind == "video" else None)
  assert [m["role"] for m in record["messages"]] == ["user", "assistant"] * len(turns(record))
  assert len(turns(record)) == (4 if kind == "2D" else 3)


def difference(kind, split, monkeypatch, **fields):
  """Each record beside the change its disc makes: where |with - without| is large, the disc is."""
  data = source(kind, split, **fields)
  with_disc = [data[i] for i in range(len(data))]
  with monkeypatch.context() as patch:
    patch.setattr(_discs, "draw", lambda frame, disc, noise: None)
    without = [data[i] for i in range(len(data))]
  for a, b in zip(with_disc, without, strict=True):
    assert turns(a) == turns(b)
    yield a, np.abs(frames(a).astype(int) - frames(b).astype(int))


@pytest.mark.parametrize(("split", "fade"), [("train", 0.0), ("train", 1.0), ("test", 0.0)])
def test_picture_labels_are_where_the_disc_is(split, fade, monkeypatch):
  asked = set()
  for record, change in difference("2D", split, monkeypatch, fade=fade):
    present = bool(change.any())
    if present:
      _, rows, columns = np.nonzero(change > 12)
      y, x = (rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2
      quadrant = f"{'lower' if y > 56 else 'upper'} {'right' if x > 56 else 'left'}"
    for question, answer in turns(record):
      asked.add(question)
      match question:
        case "is there a disc ?":
          assert answer == ("yes" if present else "no")
        case "which quadrant is the disc in ?":
          assert answer == (quadrant if present else "none")
        case "which row ?" | "which column ?" if present:
          centre = y if question == "which row ?" else x
          # The middle of the changed pixels is the centre to about a pixel or two.
          assert abs((int(answer) - 0.5) * 14 - centre) < 7 + 3
        case _:
          assert answer == "none"
  assert len(asked) == (4 if split == "train" else 2)


@pytest.mark.parametrize("kind", ["3D", "video"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_clip_labels_are_where_the_disc_is(kind, split, monkeypatch):
  for record, change in difference(kind, split, monkeypatch):
    touched = np.flatnonzero(change.reshape(6, -1).max(1) > 12)
    first, last = int(touched[0]), int(touched[-1])
    assert first // 2 == last // 2 and len(touched) == last - first + 1
    truth = {
      "which third contains the disc ?": ("first", "middle", "last")[first // 2],
      "first frame ?": str(first + 1),
      "last frame ?": str(last + 1),
    }
    assert all(truth[question] == answer for question, answer in turns(record))


@pytest.mark.parametrize("contrast", [0.4, -0.4])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_a_disc_is_drawn_where_and_as_strong_as_it_says(level, contrast):
  frame = np.full((60, 80), level, np.float32)
  _discs.draw(frame, _discs.Disc(30.5, 20.25, 8, contrast), np.zeros_like(frame))
  change = frame - np.float32(level)
  y, x = np.indices(frame.shape) + 0.5
  weight = change / change.sum()
  assert ((weight * y).sum(), (weight * x).sum()) == pytest.approx((30.5, 20.25), abs=0.01)
  assert change.sum() / change[30, 20] == pytest.approx(np.pi * 8**2, rel=0.02)
  # Where the asked sign would leave 0..1 the other is taken.
  sign = np.sign(contrast) if 0 <= level + contrast <= 1 else np.sign(0.5 - level)
  assert change[30, 20] == pytest.approx(0.4 * sign, abs=1e-6)


def test_training_fades_from_flat_to_full():
  data = source("2D", "train", size=400, fade=0.5)
  # The median over rows is blind to discs: what varies is the ground.
  contrast = np.array([np.median(frames(data[i])[0], axis=0).std() for i in range(400)])
  assert contrast[:20].mean() < 0.4 * contrast[200:].mean()
  assert np.array_equal(frames(data[300]), frames(source("2D", "train", size=400)[300]))


def test_splits_share_no_file():
  used = {
    split: {samples.locate(name) for name in _backgrounds.names(split, "image", "volume", "video")}
    for split in synthetic_disc.SPLITS
  }
  assert used["train"] and used["test"] and not used["train"] & used["test"]


def test_pools_are_rendered_from_their_splits_files_only(monkeypatch):
  loaded = []
  load = samples.load
  monkeypatch.setattr(samples, "load", lambda name: loaded.append(name) or load(name))
  for split in synthetic_disc.SPLITS:
    loaded.clear()
    _backgrounds.pictures(split, 2, 0)
    assert set(loaded) == set(samples.names(split))
  loaded.clear()
  _backgrounds.clips.__wrapped__("test", "video", 2, 0)
  assert loaded == ["cine"]


def listed(record):
  """{finding: side} of a text record."""
  text = record["messages"][0]["content"][0]["text"]
  pairs = text.removeprefix("findings : ").split(" . ")[0].split(" , ")
  return dict(pair.split() for pair in pairs)


@pytest.mark.parametrize("fade", [0.0, 1.0])
@pytest.mark.parametrize("split", ["train", "test"])
def test_text_answers_follow_from_the_text(split, fade):
  data = source("text", split, fade=fade if split == "train" else 0.0)
  for record in (data[i] for i in range(len(data))):
    sides = listed(record)
    assert len(turns(record)) == (len(sides) if split == "train" else 1)
    for question, answer in turns(record):
      assert answer == sides[question.removeprefix("which side is the ").removesuffix(" ?")]
    if len(sides) > 1:
      assert 2 * list(sides.values()).count("left") == len(sides)


def test_held_out_pairs_never_meet_in_training():
  def pairs(split):
    data = source("text", split, size=1500)
    return [set(map(frozenset, itertools.combinations(listed(data[i]), 2))) for i in range(1500)]

  held = set(synthetic_disc.HELD_OUT_PAIRS)
  seen = set.union(*pairs("train"))
  assert not seen & held
  assert len(seen) == 8 * 7 // 2 - len(held)
  assert all(met & held for met in pairs("test"))


def test_every_test_question_needs_a_held_out_pair():
  data = source("text", "test", size=300)
  for record in (data[i] for i in range(300)):
    ((question, _),) = turns(record)
    asked = question.split()[-2]
    assert any({asked, other} in synthetic_disc.HELD_OUT_PAIRS for other in listed(record))


@pytest.mark.parametrize(
  ("kind", "counts"),
  [
    ("text", {"left": 150, "right": 150}),
    ("2D", {"upper left": 38, "upper right": 37, "lower left": 38, "lower right": 37, "yes": 75}),
    ("3D", {"first": 100, "middle": 100, "last": 100}),
    ("video", {"first": 100, "middle": 100, "last": 100}),
  ],
)
def test_scored_answers_are_dealt_evenly(kind, counts):
  data = source(kind, "test", size=300)
  answers = [turns(data[i])[0][1] for i in range(300)]
  assert all(abs(answers.count(answer) - count) <= 1 for answer, count in counts.items())


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"kind": "4D"}, "kind is '4D', expected one of text, 2D, 3D, video"),
    ({"split": "val"}, "split is 'val', expected one of train, test"),
    ({"size": 0}, "size is 0, expected at least 1"),
    ({"pool": 0}, "pool is 0 for 2D"),
    ({"kind": "text"}, "pool is 8 for text"),
    ({"fade": 1.5}, "fade is 1.5 for train"),
    ({"fade": 0.5, "split": "test"}, "fade is 0.5 for test"),
  ],
)
def test_a_field_out_of_range_is_named(fields, message):
  good = {"kind": "2D", "split": "train", "seed": 0, "size": 8, "pool": 8, "fade": 0.0}
  with pytest.raises(ValueError, match=message):
    synthetic_disc.Source(**(good | fields))


def test_an_index_past_the_end_ends_the_iteration():
  data = source("text", "test", size=5)
  assert len(list(data)) == len(data) == 5
  with pytest.raises(IndexError):
    data[-1]


@pytest.mark.parametrize("kind", synthetic_disc.KINDS)
def test_a_record_is_cheap(kind):
  data = source(kind, "train")
  start = time.thread_time()
  for i in range(100):
    data[i]
  # About 0.2 ms where measured; the trainer needs 450 a second, so 2 ms would starve it.
  assert (time.thread_time() - start) / 100 < 2e-3
