"""Nothing that a file says about a patient is said again: not by an error, a log, or a picture."""

import dataclasses
import itertools
import json
import logging
from pathlib import Path
import random
import subprocess
import sys
import traceback
import warnings
import zlib

import numpy as np
import pytest

from hulu_jax.cli import inspect
from hulu_jax.data import pipeline
from hulu_jax.data import schema
from hulu_jax.data.datasets import jsonl
from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import read
from tests.media import canaries
from tests.media import tiny

FOLDERS = ("series", "frames", "two_series", "broken_series", "phases")
NAMES = (*canaries.every_file(), "p.PAR", "t+tlrc.HEAD", *FOLDERS)
ASKED = (
  Options(),
  Options(modality="CT", window=(40.0, 400.0)),
  Options(frames=2, plane="coronal"),
  Options(fps=2.0, series=7, phase="venous"),
  Options(time_index=0),
)


def slice_of(folder: str, z: int) -> bytes:
  """Slice z of a series, as the folders of `FOLDERS` differ."""
  if folder == "phases":
    # Two at each place, told apart by a word that somebody chose.
    image_type = ["ORIGINAL", "PRIMARY", f"{canaries.WORD}{z % 2}"]
    place = [0, 0, 2.5 * (z // 2)]
    return canaries.filled(tiny.ct(ImagePositionPatient=place, ImageType=image_type))
  data = canaries.filled(tiny.ct(ImagePositionPatient=[0, 0, 2.5 * z]))
  if folder == "two_series":
    return data.replace(f"{canaries.UID}3".encode(), f"{canaries.UID}{z % 2}".encode())
  return data[: len(data) // 2] if folder == "broken_series" and z == 2 else data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Every file, and folders of them, under names that name a patient."""
  place = tmp_path_factory.mktemp(f"{canaries.WORD}_ward")
  for name, data in (canaries.every_file() | canaries.pairs()).items():
    (place / f"{canaries.WORD}_{name}").write_bytes(data)
  for name in FOLDERS:
    inner = place / f"{canaries.WORD}_{name}"
    inner.mkdir()
    for z in range(4):
      data = canaries.picture("PNG") if name == "frames" else slice_of(name, z)
      (inner / f"{canaries.WORD}_{z}").write_bytes(data)
  return place


@pytest.fixture
def heard(caplog, capfd):
  """Everything said since the test began: logs at DEBUG, both outputs, every warning."""
  caplog.set_level(logging.DEBUG)
  with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    yield lambda: "\n".join(
      [
        *(f"{r.name} {r.getMessage()} {r.args} {r.exc_text}" for r in caplog.records),
        *capfd.readouterr(),
        *(str(w.message) for w in warned),
      ]
    )


def check(text):
  """Fails, saying what and where, if `text` holds a canary."""
  lower = text.lower()
  for leak in canaries.LEAKS:
    place = lower.find(leak.lower())
    assert place < 0, f"{leak} in ...{text[max(0, place - 200) : place + 80]}..."


def said(path, options, preset):
  """What a read answers, in words: all of Media but pixels, or the whole error."""
  try:
    media = read(path, options, preset=preset)
  except BadRecord as bad:
    # As the worst logger would write it: with causes, attributes and the values at each step.
    chain = "".join(traceback.TracebackException.from_exception(bad).format(chain=True))
    assert bad.__context__ is None
    return f"{chain}\n{vars(bad)}"
  return repr(dataclasses.replace(media, frames=np.zeros(1)))


def test_the_canaries_are_there(folder):
  """And so are the files read: a file that is refused at once would prove nothing."""
  for name in NAMES:
    path = folder / f"{canaries.WORD}_{name}"
    files = [path] if path.is_file() else sorted(path.iterdir())
    for file in files:
      data = file.read_bytes()
      if name == "a.nii.gz":
        data = zlib.decompress(data, wbits=31)
      assert canaries.WORD.encode() in data or name == "a.npy", name
  refused = {"a.txt", "b.npy", "two_series", "broken_series", "phases", "stacks.dcm"}
  assert len(canaries.every_text_element()) > 2000
  for name in set(NAMES) - refused:
    first = Options(time_index=0) if name == "p.PAR" else Options()
    assert read(folder / f"{canaries.WORD}_{name}", first).frames.std() > 1, name
  for name in refused:
    with pytest.raises(BadRecord):
      read(folder / f"{canaries.WORD}_{name}")


@pytest.mark.parametrize("preset", ["radiology", "hulumed"])
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_does_not_quote_a_file(folder, heard, name, preset):
  answers = [said(folder / f"{canaries.WORD}_{name}", options, preset) for options in ASKED]
  check("\n".join([*answers, heard()]))


FIRST = """
import logging, sys, warnings
from hulu_jax.media import BadRecord, Options, read
logging.basicConfig(level=logging.DEBUG)
for damaged in (False, True):
  try:
    print(read(sys.argv[1 + damaged], Options(time_index=0) if "PAR" in sys.argv[1] else Options()))
  except BadRecord as bad:
    print(bad)
print("done")
"""


@pytest.mark.parametrize(
  "name", ["a.tiff", "a.png", "a.jpg", "a.mp4", "a.nii.gz", "p.PAR", "ct.dcm"]
)
def test_the_first_file_of_a_process_is_not_quoted(folder, tmp_path, name):
  """Loggers are made where a library is first used; warnings of open files come late."""
  path = folder / f"{canaries.WORD}_{name}"
  damaged = tmp_path / f"{canaries.WORD}_{name}"
  damaged.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
  command = [sys.executable, "-X", "dev", "-W", "always", "-c", FIRST, str(path), str(damaged)]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stderr
  check(done.stdout + done.stderr)


@pytest.mark.parametrize("name", canaries.every_file())
def test_a_reader_does_not_quote_a_damaged_file(folder, tmp_path, heard, name):
  data = (folder / f"{canaries.WORD}_{name}").read_bytes()
  path = tmp_path / f"{canaries.WORD}_{name}"
  rng = random.Random(name)
  answers = []
  for trial in range(40):
    damaged = bytearray(data[: rng.randrange(1, len(data))] if trial % 4 == 0 else data)
    for _ in range(trial % 4 * 20):
      damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    path.write_bytes(damaged)
    answers.append(said(path, Options(), ("radiology", "hulumed")[trial % 2]))
  check("\n".join([*answers, heard()]))


def test_a_parser_does_not_quote_a_word_where_a_number_belongs(tmp_path, heard):
  answers = []
  for name, data in canaries.numbers_as_words().items():
    path = tmp_path / f"{canaries.WORD}_{name}.dcm"
    path.write_bytes(data)
    for preset, options in itertools.product(("radiology", "hulumed"), ASKED[:2]):
      answers.append(f"{name.removeprefix(canaries.WORD)}: {said(path, options, preset)}")
  for answer in answers:
    check(answer)
  check(heard())


def test_a_path_is_not_quoted(folder, tmp_path, heard):
  answers = [said(folder / "gone" / f"{canaries.WORD}.dcm", Options(), "radiology")]
  (tmp_path / f"{canaries.WORD}_empty").touch()
  (tmp_path / f"{canaries.WORD}_folder").mkdir()
  (tmp_path / f"{canaries.WORD}_loop").symlink_to(f"{canaries.WORD}_loop")
  (tmp_path / f"{canaries.WORD}_folder" / "link").symlink_to(folder)
  (tmp_path / f"{canaries.WORD}.HEAD").write_text(canaries.WORD)
  (tmp_path / f"{canaries.WORD}.PAR").write_text(canaries.WORD)
  answers += [said(path, Options(), "radiology") for path in sorted(tmp_path.iterdir())]
  check("\n".join([*answers, heard()]))


@pytest.mark.parametrize("name", NAMES)
def test_inspect_does_not_quote_a_file(folder, tmp_path, heard, name):
  """The table, the JSON object, the sheet and its error line, of a good and a damaged copy."""
  path = folder / f"{canaries.WORD}_{name}"
  paths = [path]
  if path.is_file():
    paths.append(tmp_path / f"{canaries.WORD}_damaged_{name}")
    paths[-1].write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
  sheet = tmp_path / "sheet.png"
  for one in paths:
    inspect.main([str(one)])
    inspect.main([str(one), "--json", "--preset", "both"])
    inspect.main([str(one), "--overlay", str(sheet), "--frames", "2"])
  inspect.main([*map(str, paths), "--json"])
  inspect.main([*map(str, paths), str(folder / "gone")])
  check(heard())
  if sheet.exists():
    data = sheet.read_bytes()
    assert not [k for k in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME") if k in data]
    check(data.decode("latin-1"))


SHAPE = schema.StepShape(
  rows=1,
  tokens=512,
  supervised=64,
  visual=256,
  groups=(
    schema.Group(slots=16, size=48, channels=3, merge=1),
    schema.Group(slots=16, size=48, channels=1, merge=2),
    schema.Group(slots=16, size=48, channels=3, merge=2),
  ),
)


def records(folder: Path) -> list[str]:
  """Lines of a data set: one per file, and some that are no records, all naming a patient."""
  kinds = {"a.png": "image", "a.jpg": "image", "ct.dcm": "image", "series": "volume"}
  lines = []
  for name in NAMES:
    item = {"type": kinds.get(name, "video"), "path": f"{canaries.WORD}_{name}"}
    if name.startswith("a.nii"):
      item |= {"type": "volume", "modality": "CT", "window": "lung"}
    messages = [
      {"role": "user", "content": [item, {"type": "text", "text": "Is it clear?"}]},
      {"role": "assistant", "content": "No."},
    ]
    lines.append(json.dumps({"id": f"{canaries.WORD}-{name}", "messages": messages}))
  item = {"type": "image", "path": f"{canaries.WORD}_a.png", "window": [canaries.WORD]}
  wrong = [
    {"role": "user", "content": [item]},
    {"role": "user", "content": [item | {"window": {canaries.WORD: 1}}]},
    {"role": "user", "content": [{"type": "video", "frames": canaries.WORD}]},
    {"role": "user", "content": [item | {"window": None, "timestamps": canaries.WORD}]},
    {"role": "user", "content": {canaries.WORD: 1}},
    {"role": "user", "content": [{"type": "text", "text": {canaries.WORD: 1}}]},
    canaries.WORD,
  ]
  lines += [json.dumps({"id": canaries.WORD, "messages": [message]}) for message in wrong]
  lines += [f'{{"id": "{canaries.WORD}', f'"{canaries.WORD}"']
  return lines


def test_training_does_not_quote_a_record(folder, tmp_path, builder, heard):
  """Batches of what can be read; the rest is counted, and told when it is too much."""
  path = tmp_path / "records.jsonl"
  path.write_text("\n".join(records(folder)))
  source = jsonl.Source(path=str(path))
  own = dataclasses.replace(builder, root=folder)
  answers, good = [], 0
  for k in range(len(source)):
    built = own(source[k])
    if isinstance(built, BadRecord):
      answers.append("".join(traceback.format_exception(built)))
    else:
      good += 1
  assert good >= 6 and len(answers) >= 9
  mixture = [{"name": "jsonl", "label": "a", "weight": 1.0, "shuffle": False}]
  data = pipeline.Data(mixture=mixture, datasets=[source], builders=[own], lengths=None)
  listing = tmp_path / "bad_records.jsonl"
  for max_bad in (1.0, 0.0):
    options = pipeline.Options(
      lookahead=2, patience=9, threads=2, prefetch=1, max_bad=max_bad, seed=0, listing=listing
    )
    batches = pipeline.train_iterator(data, [SHAPE], (0, 1), options)
    try:
      infos = [next(batches).info for _ in range(4)]
      answers.append(repr(infos))
      assert infos[-1]["skipped"] > 0
    except BadRecord as bad:
      assert max_bad == 0.0
      answers.append("".join(traceback.format_exception(bad)))
  assert len(listing.read_text().splitlines()) > 5
  answers += [p.read_text() for p in tmp_path.rglob("*") if p.is_file() and p != path]
  for answer in answers:
    check(answer)
  check(heard())
