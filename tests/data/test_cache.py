"""The cache changes nothing but the time: bits, errors, bounds, damage, many threads."""

from concurrent import futures
import dataclasses
import os
import stat
import threading

import numpy as np
from PIL import Image
import pytest

from hulu_jax import media as media_lib
from hulu_jax.data import vision
from hulu_jax.data.cache import Cache
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Options
from tests.data import records_made


@pytest.fixture
def plain(builder, tmp_path):
  """A builder over files of every kind, that counts what it decodes."""
  records_made.write(tmp_path)
  counting = Counting()
  policy = dataclasses.replace(builder.policy, max_tokens=200)
  return dataclasses.replace(builder, root=tmp_path, policy=policy, reader=counting), counting


class Counting:
  def __init__(self):
    self.read = []

  def __call__(self, path, options, **more):
    self.read.append(path.name)
    return media_lib.read(path, options, **more)


def cached(builder, tmp_path, most=10_000_000):
  return dataclasses.replace(builder, cache=Cache(tmp_path / "cache", most))


def same(one, other):
  if isinstance(one, BadRecord):
    return str(one) == str(other) and one.file == other.file
  arrays = [(one.tokens, other.tokens), (one.weights, other.weights)]
  for a, b in zip(one.visuals, other.visuals, strict=True):
    arrays += [(a.patches, b.patches), (a.keep, b.keep)]
  return all(np.array_equal(a, b) for a, b in arrays) and one.cut == other.cut


def size(folder):
  return sum(p.stat().st_size for p in (folder / "cache" / "entries").glob("*/*/*"))


def test_the_same_bits_with_and_without(plain, tmp_path):
  """Every record, bad ones too; the second time no volume or clip is decoded."""
  builder, counting = plain
  own = cached(builder, tmp_path)
  for _ in range(2):
    for record in records_made.records():
      assert same(builder(record), own(record)), record["id"]
  counting.read.clear()
  for record in records_made.records():
    own(record)
  assert {n for n in counting.read if n != "gone.png"} == {"skin.png", "chest.png"}


def test_media_are_as_read(plain, tmp_path):
  """What is known of a medium, its times and its hash under this run's key included."""
  builder, _ = plain
  keyed = dataclasses.replace(builder, key=b"k" * 16)
  record = records_made.records()[6]["messages"]
  without = vision.fit(keyed.read_all(record), keyed.policy)
  cached(builder, tmp_path).read_all(record)  # written under another key
  found = vision.fit(cached(keyed, tmp_path).read_all(record), keyed.policy)
  for one, other in zip(without, found, strict=True):
    for field in dataclasses.fields(one):
      np.testing.assert_equal(vars(one)[field.name], vars(other)[field.name])


def test_times_of_a_record_are_not_kept_for_others(plain, tmp_path):
  builder, _ = plain
  own = cached(builder, tmp_path)
  item = {"type": "video", "path": "cine.mp4"}
  told = {**item, "timestamps": [9.0, 10.0, 11.0, 12.0, 13.0]}
  asked = [[{"role": "user", "content": [i]}] for i in (told, item, told)]
  times = [own.read_all(messages)[0].timestamps for messages in asked]
  assert times[0] == times[2] == (9.0, 10.0, 11.0, 12.0, 13.0)
  assert times[1] == builder.read(item).timestamps


def test_sizes_depend_on_the_company(plain, tmp_path):
  """One file at two sizes: the second is made, and both are found."""
  builder, counting = plain
  own = cached(builder, tmp_path)
  records = [records_made.records()[n] for n in (4, 6)]
  for _ in range(2):
    for record in records:
      assert same(builder(record), own(record))
  counting.read.clear()
  for record in records:
    own(record)
  assert "ct.nii.gz" not in counting.read


def test_a_cut_record_is_cut_alike(plain, tmp_path):
  builder, _ = plain
  records = records_made.records()
  for count, side in ((30, 28), (7, 100)):
    np.save(tmp_path / f"{count}.npy", np.random.default_rng(0).normal(size=(count, side, side)))
    item = {"type": "volume", "path": f"{count}.npy", "spacing_mm": [1.0, 1.0, 1.0]}
    records.append({**records[4], "messages": [{"role": "user", "content": [item]}]})
  groups = (Group(1, 24, 3, 1), Group(16, 4, 1, 2))
  builder = dataclasses.replace(builder, budget=[StepShape(1, 120, 40, 20, groups)])
  own = cached(builder, tmp_path)
  for record in (*records, *records):
    assert same(builder(record), own(record))
  assert [own(record).cut for record in records[-2:]] == [("frames",), ("resolution",)]


@pytest.mark.parametrize("change", ["bytes", "time", "option", "folder"])
def test_what_changed_is_read_again(plain, tmp_path, change):
  builder, counting = plain
  own = cached(builder, tmp_path)
  item = {"type": "volume", "path": "ct.nii.gz", "modality": "CT", "window": "brain"}
  if change == "folder":
    (tmp_path / "clip").mkdir()
    for n in range(4):
      Image.fromarray(np.full((30, 30), 40 * n, np.uint8)).save(tmp_path / f"clip/{n}.png")
    item = {"type": "video", "path": "clip"}
  message = [{"role": "user", "content": [item]}]
  before = own.read_all(message)
  own.read_all(message)
  assert len(counting.read) == 1
  if change == "bytes":
    (tmp_path / "ct.nii.gz").write_bytes((tmp_path / "cine.mp4").read_bytes())
    with pytest.raises(BadRecord, match="cannot apply to a clip"):
      own.read_all(message)
  elif change == "time":
    os.utime(tmp_path / "ct.nii.gz", ns=(0, 1))
    own.read_all(message)
  elif change == "option":
    item["window"] = "lung"
    assert own.read_all(message)[0].window != before[0].window
  else:
    Image.fromarray(np.full((30, 30), 7, np.uint8)).save(tmp_path / "clip/2.png")
    os.utime(tmp_path / "clip/2.png", ns=(0, 1))
    assert not np.array_equal(own.read_all(message)[0].frames, before[0].frames)
  assert len(counting.read) == 2


def test_damage_is_dropped_and_made_again(plain, tmp_path):
  builder, counting = plain
  own = cached(builder, tmp_path)
  record = records_made.records()[4]
  first = own(record)
  (entry,) = (tmp_path / "cache/entries").glob("*/*/*")
  whole = entry.read_bytes()
  for damaged in (whole[:-1], whole[:40], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
    entry.write_bytes(damaged)
    counting.read.clear()
    assert same(first, own(record)) and counting.read == ["ct.nii.gz"]
    assert entry.read_bytes() == whole


def medium(side, value=0):
  frames = np.full((2, side, side, 1), value, np.uint8)
  return vision.fitted(media_lib.Media("volume", frames), (side, side))


def keys(cache, tmp_path, count):
  for n in range(count):
    (tmp_path / f"{n}.nii").write_bytes(bytes(n + 1))
  return [cache.key(tmp_path / f"{n}.nii", Options(), "radiology", tmp_path) for n in range(count)]


def test_the_bound_holds_and_the_least_used_goes(tmp_path):
  most = 40_000
  cache = Cache(tmp_path / "cache", most)
  names = keys(cache, tmp_path, 12)
  assert len(set(names)) == 12
  for n, name in enumerate(names):
    cache.store(name, (56, 56), medium(56, n))
    assert size(tmp_path) <= most
    for path in (tmp_path / "cache/entries").glob("*/*/*"):
      if not path.parent.name == names[0][2:]:
        os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    assert cache.find(names[0]) is not None, "used all the time"
  assert cache.find(names[1]) is None and cache.find(names[11]) is not None
  np.testing.assert_array_equal(cache.load(names[11], (56, 56)).frames, medium(56, 11).frames)
  cache.store(names[1], (200, 200), medium(200))
  assert cache.find(names[1]) is None, "larger than the whole cache"
  empty = [p for p in (tmp_path / "cache/entries").glob("*/*") if not any(p.iterdir())]
  assert not empty


def test_many_threads_of_two_caches_stay_within_the_bound(tmp_path):
  """Two objects have no memory in common, as two processes have not."""
  most = 60_000
  caches = [Cache(tmp_path / "cache", most) for _ in range(2)]
  names = keys(caches[0], tmp_path, 20)
  over, stop = [], threading.Event()

  def watch():
    while not stop.is_set():
      try:
        over.append(size(tmp_path))
      except FileNotFoundError:
        continue

  def work(n):
    cache = caches[n % 2]
    cache.store(names[n % 20], (56, 56), medium(56, n % 20))
    found = cache.find(names[n * 7 % 20])
    assert found is None or (found.frames == n * 7 % 20).all()

  watcher = threading.Thread(target=watch)
  watcher.start()
  try:
    with futures.ThreadPoolExecutor(8) as pool:
      list(pool.map(work, range(200)))
  finally:
    stop.set()
    watcher.join()
  entry = max(p.stat().st_size for p in (tmp_path / "cache/entries").glob("*/*/*"))
  # While they write, a listing may count an entry that goes and the one that takes its room.
  assert over and max(over) <= most + 8 * entry
  assert size(tmp_path) <= most + entry
  assert not list((tmp_path / "cache/entries").glob("*/*/*.part"))


def test_no_name_and_no_path_in_the_cache(plain, tmp_path):
  builder, _ = plain
  own = cached(builder, tmp_path)
  (tmp_path / "Doe^Jane").mkdir()
  (tmp_path / "ct.nii.gz").rename(tmp_path / "Doe^Jane/ct.nii.gz")
  own.read_all([{"role": "user", "content": [{"type": "volume", "path": "Doe^Jane/ct.nii.gz"}]}])
  entries = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
  assert len(list((tmp_path / "cache/entries").glob("*/*/*"))) == 1
  for path in entries:
    assert "Doe" not in str(path.relative_to(tmp_path)) and b"Doe" not in path.read_bytes()
  for path in (tmp_path / "cache").glob("entries/*/*/*"):
    assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_a_path_that_leaves_the_root_is_refused_whatever_is_cached(plain, tmp_path):
  """The same file is in the cache, put there by a builder whose root it is below."""
  builder, _ = plain
  cached(builder, tmp_path)(records_made.records()[4])
  (tmp_path / "inner").mkdir()
  inner = dataclasses.replace(cached(builder, tmp_path), root=tmp_path / "inner")
  item = {"type": "volume", "path": "../ct.nii.gz", "modality": "CT", "window": "brain"}
  with pytest.raises(BadRecord, match="leaves its root"):
    inner.read_all([{"role": "user", "content": [item]}])


def test_a_bound_must_be_one(tmp_path):
  with pytest.raises(ValueError, match="data.cache_bytes = 0; expected 1 or more"):
    Cache(tmp_path / "cache", 0)
