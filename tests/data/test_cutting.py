"""Records over budget lose frames, then resolution, never text; prepared and plain ones alike."""

import dataclasses
import json

import numpy as np
import pytest

from hulu_jax.data import cutting
from hulu_jax.data import lengths
from hulu_jax.data import pipeline
from hulu_jax.data import rows
from hulu_jax.data import vision
from hulu_jax.data.compression import Compression
from hulu_jax.data.datasets import prepared
from hulu_jax.data.prepare import Input
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.media.types import Media
from tests.data import records_made

OFF = Compression(mode="off")


def shape(tokens=200, supervised=40, visual=100, groups=((2, 64, 1, 1), (4, 64, 1, 2))):
  return StepShape(1, tokens, supervised, visual, tuple(Group(*g) for g in groups))


def volume(count, height=56, width=56, kind="volume", **more):
  rng = np.random.default_rng(count)
  frames = rng.integers(0, 256, (count, height, width, 1), np.uint8)
  return {"type": kind, "medium": Media(kind, frames, **more)}


def record(*content, answer="The left one.", role="user"):
  question = {"type": "text", "text": "Which one?"}
  messages = [
    {"role": role, "content": [*content, question]},
    {"role": "assistant", "content": answer},
  ]
  return {"id": "case", "messages": messages}


@pytest.fixture
def own(builder):
  policy = dataclasses.replace(builder.policy, compression=OFF, max_tokens=4000)
  return dataclasses.replace(builder, policy=policy, budget=[shape()])


def fits(example, *shapes):
  """Against the packer's own rule."""
  return any(rows.refusal(lengths.of(example), one) is None for one in shapes)


def answer_of(example):
  return example.tokens[example.weights > 0].tolist(), example.weights[example.weights > 0].tolist()


def test_what_fits_is_left_alone(own):
  short = record(volume(3))
  whole = dataclasses.replace(own, budget=None)(short)
  same = own(short)
  np.testing.assert_array_equal(whole.tokens, same.tokens)
  np.testing.assert_array_equal(whole.visuals[0].patches, same.visuals[0].patches)
  assert same.cut == ()


def test_frames_go_first_evenly_and_the_ends_stay(own):
  """A row holds 16 frames of 16 patches: as many are left of 40, at the size they had."""
  medium = volume(40, slices=tuple(range(0, 80, 2)), spacing_mm=(3.0, 1.0, 1.0))
  whole = dataclasses.replace(own, budget=None)(record(medium))
  built = own(record(medium))
  assert fits(built, shape()) and not fits(whole, shape())
  assert built.cut == ("frames",)
  assert built.visuals[0].grid == whole.visuals[0].grid
  kept = np.linspace(0, 39, 16).astype(int)
  np.testing.assert_array_equal(built.visuals[0].patches, whole.visuals[0].patches[kept])
  assert answer_of(built) == answer_of(whole)
  (media,) = own.media(record(medium)["messages"], "case")
  assert media.slices == tuple(2 * kept) and media.counted == 40
  assert media.spacing_mm == pytest.approx((3.0 * 39 / 15, 1.0, 1.0))
  assert "16 of 40 frames kept" in media.notes[-1]


def test_the_longest_loses_frames_first(own):
  built = own(record(volume(30), volume(5), volume(20)))
  assert [len(v.patches) for v in built.visuals][1] == 5 or built.cut == ("frames", "resolution")
  wide = dataclasses.replace(own, budget=[shape(groups=((8, 64, 1, 2),))])
  counts = [len(v.patches) for v in wide(record(volume(30), volume(5))).visuals]
  assert counts == [20, 5]  # 20 + 5 frames make 100 visual tokens


def test_times_follow_their_frames(own):
  times = tuple(float(n) for n in range(20))
  item = {"type": "video", "frames": volume(20)["medium"].frames, "timestamps": list(times)}
  built = own(record(item))
  text = own.tokenizer.decode(built.tokens).replace(" ", "")
  assert built.cut == ("frames",) and text.startswith("user\nTime0.0s:")
  assert "Time19.0s:" in text and text.count("Time") == len(built.visuals[0].patches)


def test_then_the_resolution_goes_and_frames_come_back(own):
  """Frames of 144 patches fit no slot of 64, however few: they shrink, and 16 fit again."""
  built = own(record(volume(40, 168, 168)))
  assert built.cut == ("frames", "resolution") and fits(built, shape())
  frames, patches, _ = built.visuals[0].patches.shape
  assert patches <= 64 and frames >= cutting.FEWEST
  more = lengths.of(built)._replace(media=(lengths.Medium(frames + 1, patches, 1, 2),))
  tokens = patches // 4
  more = more._replace(visual=more.visual + tokens, tokens=more.tokens + tokens + 1)
  assert rows.refusal(more, shape()) is not None, "another frame would not have fitted"


def test_a_picture_only_loses_resolution(own):
  built = own(record(volume(1, 140, 140, "image")))
  assert built.cut == ("resolution",) and fits(built, shape())
  assert built.visuals[0].patches.shape[1] > 32, "no smaller than it must be"


def test_text_is_never_cut(own):
  long = record(volume(40), answer="and " * 200)
  whole = dataclasses.replace(own, budget=None)(long)
  built = own(long)
  np.testing.assert_array_equal(built.tokens, whole.tokens)
  assert built.cut == () and not fits(built, shape())


def test_a_stream_keeps_its_frames(own):
  """What is learnt of a stream is what follows each frame."""
  built = own(record(volume(24, 84, 84, "video"), role="stream"))
  assert len(built.visuals[0].patches) == 24 and built.cut in ((), ("resolution",))


def test_the_resolution_does_not_go_below_the_minimum(own):
  policy = dataclasses.replace(own.policy, min_tokens=36)
  built = dataclasses.replace(own, policy=policy)(record(volume(9, 168, 168)))
  assert built.cut == () and not fits(built, shape())


@pytest.mark.parametrize("mode", ["off", "hulumed", "videollama3", "fixed"])
def test_every_cut_record_fits(own, mode):
  """Under every compression, with any mixture of media; twice the same."""
  rng = np.random.default_rng(1)
  compression = Compression(mode=mode, grey=30.0 if mode == "fixed" else None)
  policy = dataclasses.replace(own.policy, compression=compression)
  shapes = [shape(), shape(tokens=300, visual=140, groups=((1, 128, 1, 1), (6, 128, 1, 2)))]
  own = dataclasses.replace(own, policy=policy, budget=shapes)
  cut = 0
  for _ in range(12):
    sizes = rng.integers(28, 180, (int(rng.integers(1, 4)), 2))
    kinds = rng.choice(["image", "volume", "video"], len(sizes))
    media = [
      volume(1 if kind == "image" else int(rng.integers(2, 50)), *map(int, size), str(kind))
      for kind, size in zip(kinds, sizes, strict=True)
    ]
    built, again = own(record(*media)), own(record(*media))
    np.testing.assert_array_equal(built.tokens, again.tokens)
    whole = dataclasses.replace(own, budget=None)(record(*media))
    assert answer_of(built) == answer_of(whole)
    if built.cut:
      cut += 1
      assert fits(built, *shapes) and not fits(whole, *shapes)
    else:
      np.testing.assert_array_equal(built.tokens, whole.tokens)
  assert cut >= 4


def test_prepared_records_are_cut_as_plain_ones(builder, tmp_path):
  """Frames and lengths of a shard are those of training; another budget is refused by name."""
  path = records_made.write(tmp_path)
  with path.open("a") as file:
    for count, height, width in ((40, 56, 56), (12, 168, 168), (30, 90, 200), (2, 140, 140)):
      name = f"{count}.npy"
      np.save(tmp_path / name, np.random.default_rng(count).normal(size=(count, height, width)))
      item = {"type": "volume", "path": name, "spacing_mm": [3.0, 1.0, 1.0]}
      file.write(json.dumps({**record(item), "id": name}) + "\n")
  source = Input("jsonl", {"path": str(path)})
  budget = [shape(tokens=120, visual=40, groups=((2, 24, 3, 1), (2, 24, 1, 1), (4, 128, 1, 2)))]
  policy = dataclasses.replace(builder.policy, compression=OFF, max_tokens=1000)
  own = dataclasses.replace(builder, root=tmp_path, policy=policy, budget=budget)
  records_made.run(source, own, tmp_path / "out")
  stored, plain = prepared.Source(path=str(tmp_path / "out")), source.open()
  known = stored.lengths.lengths(policy, own.tokenizer, budget)
  cut = []
  for n, number in enumerate(stored.numbers):
    one, other = own(plain[int(number)]), own(stored[n])
    np.testing.assert_array_equal(one.tokens, other.tokens)
    for mine, theirs in zip(one.visuals, other.visuals, strict=True):
      np.testing.assert_array_equal(mine.patches, theirs.patches)
    assert known[n] == lengths.of(one) and one.cut == other.cut
    cut += [one.cut] * bool(one.cut)
  assert set(cut) == {("frames",), ("resolution",), ("frames", "resolution")}
  with pytest.raises(ValueError, match=r"budget was .*, is None"):
    stored.lengths.lengths(policy, own.tokenizer)
  with pytest.raises(ValueError, match=r"budget\.0\.tokens was 120, is 121"):
    stored.lengths.lengths(policy, own.tokenizer, [budget[0]._replace(tokens=121)])
  other = dataclasses.replace(policy, compression=Compression(mode="hulumed"))
  with pytest.raises(ValueError, match=r"policy\.compression\.mode was 'off', is 'hulumed'"):
    stored.lengths.lengths(other, own.tokenizer, budget)


def test_the_pipeline_counts_cuts(own):
  class Records:
    files, lengths = (), None

    def __len__(self):
      return 2

    def __getitem__(self, index):
      return {**record(volume(40) if index else volume(2)), "id": str(index)}

  entry = {"name": "records", "label": "a", "weight": 1.0, "shuffle": False}
  data = pipeline.Data(mixture=[entry], datasets=[Records()], builders=[own], lengths=None)
  options = pipeline.Options(lookahead=2, patience=10, threads=1, prefetch=1, max_bad=0.0, seed=0)
  iterator = pipeline.train_iterator(data, [shape()._replace(rows=2)], (0, 1), options)
  infos = [next(iterator).info for _ in range(4)]
  iterator.close()
  assert any(info["cut"] for info in infos)
  assert all(info["cut"] == info["cut/frames"] and not info["cut/resolution"] for info in infos)


def test_the_search_finds_the_largest_and_the_smallest():
  for edge in range(0, 12):
    below, above = (lambda n, edge=edge: n <= edge), (lambda n, edge=edge: n >= edge)
    assert cutting._largest(3, 9, below) == (None if edge < 3 else min(edge, 9))
    assert cutting._smallest(3, 9, above) == min(max(edge, 3), 10)


def test_fitted_media_keep_what_they_are(own):
  media = [volume(5)["medium"]]
  once = vision.fit(media, own.policy)
  assert vision.fit(once, own.policy) == once
