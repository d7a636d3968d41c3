"""Damaged files of every format: only BadRecord may escape, within five seconds and a gigabyte.

Files are read in a process that ends at either bound, or where a decoder crashes: these would be
other kinds of BadRecord than damage is.  The cases are the same in every run.
"""

import itertools

from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import read
from hulu_jax.media.worker import Reader
from tests.media import canaries
from tests.media import measured
from tests.media import tiny

# Where readers find their numbers: damage there tells more than damage in pixels.
HEADER = 700
ASKED = (
  Options(),
  Options(frames=2),
  Options(modality="CT", window=(40.0, 400.0)),
  Options(plane="sagittal", resample_mm=1.0, modality="MR"),
  Options(crop=(0, 0, 8, 8)),
  Options(fps=3.0),
  Options(time_index=0),
)
QUICK = settings(
  max_examples=30,
  derandomize=True,
  database=None,
  deadline=None,
  suppress_health_check=list(HealthCheck),
)
THOROUGH = settings(QUICK, max_examples=1000)


@pytest.fixture(scope="module")
def reader():
  with Reader(timeout=5, target=measured.read) as own:
    yield own


@pytest.fixture(scope="module")
def originals():
  return {name: make() for name, make in tiny.MADE.items()}


def flips(size):
  """Places in a file of `size` bytes and what to change there."""
  place = st.one_of(st.integers(0, min(size, HEADER) - 1), st.integers(0, size - 1))
  return st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=6)


@st.composite
def damage(draw, data):
  """`data` after flips, a cut, a hole of zeros or ones, or a part that stands there twice."""
  damaged = bytearray(data)
  kind = draw(st.sampled_from(("flips", "flips", "cut", "hole", "twice", "cut and flips")))
  start, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
  if kind.startswith("cut"):
    del damaged[max(start, 1) :]
  if kind == "hole":
    damaged[start:end] = draw(st.sampled_from((b"\0", b"\xff"))) * (end - start)
  if kind == "twice":
    damaged[end:end] = damaged[start:end]
  if kind.endswith("flips"):
    for place, change in draw(flips(len(damaged))):
      damaged[place] ^= change
  return bytes(damaged)


def alone(folder, number, damaged):
  """A file of its own.  A new name each time: what struck twice would not be tried again, and so
  not be made smaller."""
  path = folder / str(number)
  path.write_bytes(damaged)
  return path


def try_damage(reader, folder, data, examples, place=alone):
  """Reads `examples` kinds of damage to `data`, put where `place` says."""
  numbers = itertools.count()

  @examples
  @given(
    damaged=damage(data),
    options=st.sampled_from(ASKED),
    preset=st.sampled_from(("radiology", "hulumed")),
  )
  def attempt(damaged, options, preset):
    path = place(folder, next(numbers), damaged)
    try:
      media = reader.read(path, options, preset=preset)
    except BadRecord as bad:
      assert bad.kind not in ("crash", "timeout"), bad
      assert "MemoryError" not in bad.reason, bad
      assert bad.file and bad.__cause__ is None
    else:
      assert media.frames.dtype == "uint8" and media.frames.size

  attempt()


@pytest.mark.parametrize("name", tiny.MADE)
def test_the_original_is_read(originals, tmp_path, name):
  (tmp_path / name).write_bytes(originals[name])
  assert read(tmp_path / name).frames.std() > 1, "damage to a file that is not read shows nothing"


@pytest.mark.parametrize("name", tiny.MADE)
def test_damage_is_a_bad_record(reader, originals, tmp_path, name):
  try_damage(reader, tmp_path, originals[name], QUICK)


def in_series(folder, number, damaged):
  """One slice of four."""
  path = folder / str(number)
  path.mkdir()
  for z in range(3):
    dataset = tiny.ct(ImagePositionPatient=[0, 0, 2.5 * z])
    (path / f"{z}").write_bytes(tiny.saved(dataset))
  (path / "3").write_bytes(damaged)
  return path


def in_frames(folder, number, damaged):
  """One picture of three."""
  path = folder / str(number)
  path.mkdir()
  for k in range(2):
    (path / f"{k}.png").write_bytes(tiny.picture("PNG"))
  (path / "2.png").write_bytes(damaged)
  return path


def as_pair(name, whole):
  """Damage to file `name` of a pair of nibabel's own."""

  def place(folder, number, damaged):
    stem, suffix = name.split(".")
    other = next(n for n in whole if n.startswith(stem) and n != name)
    (folder / f"{number}{name}").write_bytes(damaged)
    (folder / f"{number}{other}").write_bytes(whole[other])
    return folder / f"{number}{stem}.{'HEAD' if suffix in ('HEAD', 'BRIK') else 'PAR'}"

  return place


def test_damage_to_one_file_of_several_is_a_bad_record(reader, originals, tmp_path):
  last, pairs = tiny.saved(tiny.ct(ImagePositionPatient=[0, 0, 7.5])), canaries.pairs()
  cases = [(last, in_series), (originals["a.png"], in_frames)]
  cases += [(data, as_pair(name, pairs)) for name, data in pairs.items()]
  for number, (data, place) in enumerate(cases):
    folder = tmp_path / f"case{number}"
    folder.mkdir()
    try_damage(reader, folder, data, QUICK, place)


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.MADE)
def test_much_damage_is_a_bad_record(reader, originals, tmp_path, name):
  try_damage(reader, tmp_path, originals[name], THOROUGH)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.nii", "plain.dcm", "enhanced.dcm", "a.npy", "a.png"])
def test_every_byte_of_a_header_may_be_wrong(reader, originals, tmp_path, name):
  """Each byte of the first 700 by itself, as zero, as 255 and with its lowest bit turned."""
  data = originals[name]
  for place in range(min(HEADER, len(data))):
    for value in {0, 255, data[place] ^ 1} - {data[place]}:
      path = tmp_path / "a"
      path.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
      try:
        reader.read(path)
      except BadRecord as bad:
        assert bad.kind not in ("crash", "timeout"), (place, value, bad)


@pytest.mark.parametrize("name", ["a.nii.gz", "plain.dcm", "j2k.dcm", "a.mp4", "a.png"])
def test_every_cut_is_noticed_or_harmless(reader, originals, tmp_path, name):
  """A file that lost its end is refused, or shows what the whole one shows."""
  data = originals[name]
  (tmp_path / name).write_bytes(data)
  whole = reader.read(tmp_path / name).frames
  for k in range(24):
    path = tmp_path / f"{k}_{name}"
    path.write_bytes(data[: len(data) * k // 24])
    try:
      frames = reader.read(path).frames
    except BadRecord as bad:
      assert bad.kind in ("format", "empty", "geometry"), bad
    else:
      assert frames.shape == whole.shape and (frames == whole).all(), k
