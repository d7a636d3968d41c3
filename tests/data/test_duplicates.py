"""Duplicates and leakage: what was planted is found, what only resembles it is not."""

import io
import itertools

import numpy as np
from PIL import Image
import pytest

from hulu_jax.data import duplicates
from hulu_jax.data import hamming
from hulu_jax.data import leakage
from hulu_jax.data import looks
from hulu_jax.data import marks
from hulu_jax.data import ngrams
from hulu_jax.data import picture_hash
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media

RULE = duplicates.Rule(by="both", bits=4, overlap=0.8, common=100)
LEAK = leakage.Rule(bits=4, overlap=0.0, common=0.05)
PASSAGE = (
  "a seventy year old man presents with three days of productive cough fever and pleuritic chest "
  "pain on the right side and has crackles over the lower lobe which antibiotic is given first"
)


def scene(seed, size=(96, 112)):
  """A smooth picture with some detail, uint8 [1, H, W, 1]."""
  rng = np.random.default_rng(seed)
  coarse = Image.fromarray(rng.integers(0, 256, (9, 11), dtype=np.uint8))
  picture = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.float32)
  noisy = np.clip(0.9 * picture + rng.normal(12, 3, size), 0, 255)
  return noisy.astype(np.uint8)[None, :, :, None]


def clip(seed, frames=12):
  return np.concatenate([scene(1000 * seed + k) for k in range(frames)])


def item(frames, kind="image"):
  return {"type": kind, "frames": frames}


def record(name, text, *items, answer=""):
  said = [*items, {"type": "text", "text": text}]
  messages = [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]
  return {"id": name, "messages": messages}


def saved(frames, quality):
  """Through a JPEG file."""
  file = io.BytesIO()
  Image.fromarray(frames[0, ..., 0]).save(file, "JPEG", quality=quality)
  return np.asarray(Image.open(file))[None, :, :, None]


def resized(frames, factor):
  picture = Image.fromarray(frames[0, ..., 0])
  size = (round(picture.width * factor), round(picture.height * factor))
  return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))[None, :, :, None]


def brighter(frames, factor):
  return np.clip(frames * factor, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def marked(builder):
  def of(records, n=13):
    return [marks.of(r, builder.read, n) for r in records]

  return of


def dropped(found, rule=RULE):
  """{record that goes: record that stays}"""
  return {p.dropped: p.kept for p in duplicates.find(marks.stored(found), rule)}


@pytest.mark.parametrize(
  ("one", "other"),
  [
    ("Is there a FRACTURE?", "is there a fracture"),
    ("größe", "GRÖSSE"),
    ("x-ray: left (lateral)", "X ray left lateral"),
    ("ｆｅｖｅｒ", "fever"),
    ("肺炎はありますか。", "肺炎はありますか"),
    ("ไข้ สูง", "ไข้สูง"),
  ],
)
def test_words_do_not_depend_on_case_punctuation_or_width(one, other):
  assert ngrams.words(one) == ngrams.words(other)
  assert ngrams.whole(ngrams.words(one)) == ngrams.whole(ngrams.words(other))


@pytest.mark.parametrize(
  ("one", "other"), [("HER2+", "HER2-"), ("< 5 mm", "> 5 mm"), ("a b", "ab")]
)
def test_words_that_mean_something_else_stay_apart(one, other):
  assert ngrams.words(one) != ngrams.words(other)


def test_scripts_without_spaces_fall_into_characters():
  assert ngrams.words("CT肺炎 3mm") == ["ct", "肺", "炎", "3mm"]
  assert ngrams.words("हिन्दी में") == ["हिन्दी", "में"]


def test_overlap_is_that_of_sets_of_runs():
  rng = np.random.default_rng(0)
  for _ in range(20):
    texts = [rng.choice(list("abcde"), rng.integers(1, 40)).tolist() for _ in range(2)]
    sets = [{tuple(t[i : i + 3]) for i in range(len(t) - 2)} for t in texts]
    a, b = (ngrams.hashes(t, 3) for t in texts)
    assert (len(a), len(b)) == tuple(map(len, sets))
    want = len(sets[0] & sets[1]) / max(len(sets[0] | sets[1]), 1)
    assert ngrams.overlap(a, b, (1 << 64) - 1) == pytest.approx(want)


def test_overlap_of_long_texts_is_estimated_from_their_lowest_hashes():
  numbers = [str(n) for n in range(6000)]
  one, other = numbers[:5000], numbers[500:5500]  # 4,488 of 5,488 runs
  a, b = (ngrams.hashes(words, 13) for words in (one, other))
  whole = ngrams.overlap(a, b, (1 << 64) - 1)
  cut = min(int(a[marks.SKETCH - 1]), int(b[marks.SKETCH - 1]))
  # Four standard errors of 64 draws.
  assert ngrams.overlap(a, b, cut) == pytest.approx(whole, abs=4 * 0.5 / marks.SKETCH**0.5)


@pytest.mark.parametrize("bits", [0, 1, 4, 9])
def test_near_hashes_are_those_that_comparing_all_finds(bits):
  rng = np.random.default_rng(bits)
  base = rng.integers(0, 2**63, 400, dtype=np.uint64)
  turned = base.copy()
  for _ in range(6):
    turned ^= np.uint64(1) << rng.integers(0, 64, 400, dtype=np.uint64)
  values = np.unique(np.concatenate([base, turned, base ^ np.uint64(5)]))
  near = np.bitwise_count(values[:, None] ^ values) <= bits
  found = list(zip(*hamming.pairs(values, bits), strict=True))
  assert sorted(found) == list(zip(*np.nonzero(np.triu(near, 1)), strict=True))
  left, right = values[::3], values[1::2]
  near = np.bitwise_count(left[:, None] ^ right) <= bits
  found = list(zip(*hamming.across(left, right, bits), strict=True))
  assert sorted(found) == list(zip(*np.nonzero(near), strict=True))


def test_crowded_hashes_are_found_too(monkeypatch):
  """One bucket of everything, in many small chunks."""
  monkeypatch.setattr(hamming, "_CHUNK", 100)
  values = np.unique(np.random.default_rng(0).integers(0, 4096, 300, dtype=np.uint64))
  near = np.bitwise_count(values[:, None] ^ values) <= 2
  found = list(zip(*hamming.pairs(values, 2), strict=True))
  assert sorted(found) == list(zip(*np.nonzero(np.triu(near, 1)), strict=True))


CHANGES = {
  "equal": lambda x: x.copy(),
  "JPEG of quality 60": lambda x: saved(x, 60),
  "half the size": lambda x: resized(x, 0.5),
  "0.73 of the size": lambda x: resized(x, 0.73),
  "brighter": lambda x: brighter(x, 1.15),
  "darker": lambda x: brighter(x, 0.7),
  "in colour": lambda x: np.repeat(x, 3, axis=-1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_found(marked, change):
  question = "Is there an effusion?"
  pictures = [scene(seed) for seed in range(8)]
  records = [record(f"r{k}", question, item(p)) for k, p in enumerate(pictures)]
  records += [record("again", question.upper(), item(CHANGES[change](pictures[5])))]
  pairs = duplicates.find(marks.stored(marked(records)), RULE)
  assert [(p.kept, p.dropped, p.text) for p in pairs] == [(5, 8, 1.0)]
  assert pairs[0].exact == (change == "equal") and pairs[0].bits <= 4


def test_flips_and_other_pictures_are_not_found(marked):
  pictures = [scene(0), scene(0)[:, :, ::-1], scene(1), scene(0)[:, 24:], 255 - scene(0)]
  records = [record(f"r{k}", "Which?", item(p)) for k, p in enumerate(pictures)]
  assert not dropped(marked(records))


def test_empty_pictures_are_equal_only_in_every_pixel(marked):
  grey = [np.full((1, 40, 40, 1), level, np.uint8) for level in (0, 128, 0)]
  records = [record(f"r{k}", "What?", item(g)) for k, g in enumerate(grey)]
  assert dropped(marked(records)) == {2: 0}


def test_a_clip_is_found_by_its_frames(marked):
  first, other = clip(1), clip(2)
  smaller = np.concatenate([resized(f[None], 0.7) for f in first])
  titled = other.copy()
  titled[:3] = first[:3]  # one of its eight frames, and two between, are the other's
  clips = [first, other, smaller, titled]
  records = [record(f"c{k}", "What?", item(c, "video")) for k, c in enumerate(clips)]
  assert dropped(marked(records)) == {2: 0}


def test_templates_make_no_duplicates(marked):
  """One text about many pictures, many texts about one picture: neither alone is a duplicate."""
  long = "Describe this image in as much detail as you can and name every finding that you see"
  records = [record(f"a{k}", long, item(scene(k))) for k in range(6)]
  records += [record(f"b{k}", f"Is there finding number {k}?", item(scene(0))) for k in range(6)]
  assert not dropped(marked(records))
  by_picture = dropped(marked(records), duplicates.Rule(**vars(RULE) | {"by": "picture"}))
  assert by_picture == dict.fromkeys(range(6, 12), 0)
  by_text = dropped(marked(records), duplicates.Rule(**vars(RULE) | {"by": "text"}))
  assert by_text == dict.fromkeys(range(1, 6), 0)


def test_texts_with_a_template_in_common_are_judged_by_the_rest(marked):
  """Twenty questions end alike; two of them, but for one word at the end, are the same."""
  words = np.random.default_rng(0).permutation([f"w{n}" for n in range(20 * 40)]).reshape(20, 40)
  ending = " ".join(f"option{k} is what the table of contents calls it" for k in range(40))
  texts = [f"{' '.join(row)} {ending}" for row in words]
  texts.append(f"{' '.join(words[3])} indeed {ending}")
  found = marked([record(f"t{k}", text) for k, text in enumerate(texts)], n=5)
  assert dropped(found, duplicates.Rule(**vars(RULE) | {"common": 10, "overlap": 0.6})) == {20: 3}
  everything = dropped(found, duplicates.Rule(**vars(RULE) | {"overlap": 0.5}))
  assert everything == dict.fromkeys(range(1, 21), 0)


def test_it_is_what_comparing_all_with_all_gives(marked):
  """Texts and pictures that differ in steps: the first stays, and likeness is not handed on."""
  rng = np.random.default_rng(3)
  words = [f"w{n}" for n in range(60)]

  def text(k):
    return " ".join(words[k % 3 * 4 :][: 40 + k // 3])

  def picture(k):
    frames = scene(k // 3).copy()
    frames[:, : 8 * (k % 3)] = 0  # an edge that grows: looks drift apart in steps
    return item(frames)

  records = []
  for n in range(60):
    media = [picture(rng.integers(9)) for _ in range(rng.integers(3))]
    records.append(record(f"r{n}", text(rng.integers(9)), *media))
  found = marked(records, n=5)
  kept, gone = [], set()
  for n, own in enumerate(found):
    if any(alike(found[k], own) for k in kept):
      gone.add(n)
    else:
      kept.append(n)
  assert set(dropped(found)) == gone
  assert 10 < len(gone) < 50


def alike(a, b):
  if len(a.looks) != len(b.looks):
    return False
  for x, y in zip(a.looks, b.looks, strict=True):
    low, high = (np.bitwise_count(p ^ q).mean() for p, q in zip(x, y, strict=True))
    if low > RULE.bits or high > 2 * RULE.bits:
      return False
  shared, either = set(a.grams) & set(b.grams), set(a.grams) | set(b.grams)
  return a.text == b.text or len(shared) / len(either) >= RULE.overlap


def test_bad_records_match_nothing_and_keep_their_place(marked):
  broken = {"id": "x", "messages": [{"role": "user", "content": [{"type": "image"}]}]}
  records = [record("a", "one"), broken, broken, BadRecord("format", "line 4"), record("b", "ONE")]
  found = marked(records)
  assert [isinstance(m, BadRecord) for m in found] == [False, True, True, True, False]
  assert dropped(found) == {4: 0}


def test_a_record_takes_the_bytes_that_are_stated(marked):
  long = " ".join(f"w{n}" for n in range(300))
  store = marks.stored(marked([record(f"r{k}", long, item(scene(k))) for k in range(50)]))
  assert store.bytes / 50 == pytest.approx(8 * (3 + marks.SKETCH + 4), abs=1)


@pytest.mark.parametrize(
  ("text", "hit"),
  [
    (PASSAGE.upper().replace(" AND ", ", and "), True),
    ("Summarise. " + PASSAGE + " Say why.", True),
    (" ".join(PASSAGE.split()[4:17]), True),
    (" ".join(PASSAGE.split()[4:16]), False),
    ("What is ASTHMA", True),
    ("What is asthma in children?", False),
  ],
)
def test_a_benchmark_text_is_found(marked, text, hit):
  asked = [record("b0", PASSAGE, answer="amoxicillin"), record("b1", "What is asthma?", answer="x")]
  benchmark = leakage.Benchmark(marked(asked), LEAK)
  (own,) = marked([record("t", text, answer="another answer")])
  found = benchmark.text(7, own)
  assert (found is not None) == hit
  assert found is None or (found.record, found.other) == (7, 1 if "sthma" in text.lower() else 0)


def test_a_short_question_about_a_picture_is_not_a_leak_but_the_picture_is(marked):
  asked = [record(f"b{k}", "Is there a fracture?", item(scene(k))) for k in range(4)]
  benchmark = leakage.Benchmark(marked(asked), LEAK)
  training = [
    record("t0", "Is there a fracture?", item(scene(50))),
    record("t1", "Something else", item(scene(60)), item(saved(scene(2), 60))),
    record("t2", "Something else", item(scene(3))),
    record("t3", "Is there a fracture?"),
  ]
  found = marked(training)
  assert [benchmark.text(n, m) for n, m in enumerate(found)] == [None] * 4
  hits = list(benchmark.media(marks.stored(found)))
  assert [(h.record, h.other, h.exact) for h in hits] == [(1, 2, False), (2, 3, True)]


def test_what_a_whole_benchmark_says_is_a_template(marked):
  ending = "answer with the letter of the option that you think is best of those given"
  asked = [record(f"b{k}", f"question number {k} {ending}") for k in range(100)]
  benchmark = leakage.Benchmark(marked(asked), LEAK)
  assert benchmark.templates == 3  # runs of 13 in an ending of 15 words
  other, same = marked([record("t", f"my own {ending}"), record("u", f"Number 17 {ending}")])
  assert benchmark.text(0, other) is None
  assert benchmark.text(1, same).other == 17


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [("by", "name", "by = 'name'"), ("bits", 17, "hamming = 17"), ("overlap", 0, "overlap = 0")],
)
def test_rules_that_cannot_be_meant(field, value, message):
  with pytest.raises(ValueError, match=message):
    duplicates.Rule(**vars(RULE) | {field: value})


# Measured on these files, with 4 bits: radiographs of different patients or days are never taken
# for one; of MedNIST's 179,700 pairs 6 are, neighbours in a scan (see benchmarks/duplicates.py).
@pytest.mark.parametrize(("name", "most"), [("img_hannover_cxr", 0), ("img_mednist", 6)])
def test_different_real_pictures_are_rarely_taken_for_one(name, most, shared_data, capsys):
  files = sorted((shared_data / name / "public" / "images").iterdir())
  hashes = [picture_hash.look(opened(file)) for file in files]
  low, high = (np.concatenate(part) for part in zip(*hashes, strict=True))
  table = looks.tables(low, high, np.arange(len(files) + 1))[1]
  near = looks.pairs(table, bits=4)
  sizes = np.bincount(table.look)
  alike = int((sizes * (sizes - 1) // 2).sum() + (sizes[near.left] * sizes[near.right]).sum())
  total = len(list(itertools.combinations(files, 2)))
  with capsys.disabled():
    print(f"\n{name}: {alike} of {total} pairs of different pictures are near")
  assert alike <= most


def opened(file):
  picture = np.asarray(Image.open(file).convert("L"))
  return Media(kind="image", frames=picture[None, :, :, None])
