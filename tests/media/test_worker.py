"""Decoding in a process of its own: equal answers, and what a crash, a hang and a lie cost."""

import dataclasses
import importlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from hulu_jax.data import vision
from hulu_jax.data.examples import Builder
from hulu_jax.data.schema import Example
from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Media
from hulu_jax.media import Options
from hulu_jax.media import privacy
from hulu_jax.media import read
from hulu_jax.media import wire
from hulu_jax.media.worker import Reader
from tests.media import tiny

# Decoders as damaged files make them: which one a file meets is the first word in it.
FAKES = '''
"""Decoders that fail."""
import os, resource, sys, time
import numpy as np
from hulu_jax.media.types import Media

def _notes(*notes):
  return Media("image", np.zeros((1, 2, 2, 1), np.uint8), notes=tuple(notes))

def read(path, options, *, preset, limits, root, key):
  word = open(path).read().split()[0]
  if word == "abort":
    os.abort()
  if word == "sleep":
    time.sleep(600)
  if word == "spin":
    while True:
      pass
  if word == "exit":
    sys.exit(3)
  if word == "memory":
    np.ones(1 << 33, np.uint8)
  if word == "print":
    os.write(1, b"SMITH to standard output")
    os.write(2, b"SMITH to standard error")
  if word == "lie":
    os.write(3, b"\\0" * 400)
    os.abort()
  if word == "modules":
    return _notes(*sorted({name.split(".")[0] for name in sys.modules}))
  if word == "limits":
    return _notes(*(str(resource.getrlimit(what)[0])
                    for what in (resource.RLIMIT_AS, resource.RLIMIT_CORE)))
  return _notes(word, str(os.getpid()))
'''


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
  """The decoders above, in a module that the process must find by this one's search path."""
  folder = tmp_path_factory.mktemp("modules")
  (folder / "fake_decoders.py").write_text(FAKES)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(folder))
    yield importlib.import_module("fake_decoders")


@pytest.fixture
def file(tmp_path):
  """Makes a file that holds one word, and names it after the word and a number."""

  def make(word, number=0):
    path = tmp_path / f"SMITH_{word}_{number}"
    path.write_text(word)
    return path

  return make


@pytest.fixture(scope="module")
def reader():
  with Reader(timeout=30) as own:
    yield own


def children():
  """Process ids of this process's children, as the kernel knows them."""
  return set(open(f"/proc/self/task/{os.getpid()}/children").read().split())


def descriptors():
  return sorted(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", ["a.png", "a.nii", "plain.dcm", "enhanced.dcm", "a.mp4"])
@pytest.mark.parametrize("preset", ["radiology", "hulumed"])
def test_the_answer_is_that_of_read(reader, tmp_path, name, preset):
  path = tmp_path / name
  path.write_bytes(tiny.MADE[name]())
  options = Options(fps=5.0) if name == "a.mp4" else Options(modality="CT", window=(40, 400))
  if name == "a.png":
    options = Options(modality="XR", crop=(0, 0, 8, 9))
  here, there = (r(path, options, preset=preset, root=tmp_path) for r in (read, reader.read))
  for field in dataclasses.fields(Media):
    expected, found = getattr(here, field.name), getattr(there, field.name)
    assert type(expected) is type(found), field.name
    np.testing.assert_array_equal(found, expected, err_msg=field.name)
  there.frames[0] = 0  # as writable as any


@pytest.mark.parametrize("kills", [1, 4])
def test_a_process_killed_while_it_starts_is_started_again(tmp_path, monkeypatch, kills):
  """By the kernel or an operator, while its imports take seconds: no file is to blame."""
  started, popen = [], subprocess.Popen

  def start(*args, **options):
    started.append(popen(*args, **options))
    if len(started) <= kills:
      started[-1].kill()
    return started[-1]

  np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.uint8))
  monkeypatch.setattr(subprocess, "Popen", start)
  with Reader() as reader:
    if kills == 1:
      assert reader.read(tmp_path / "a.npy").frames.shape == (2, 4, 4, 1)
    else:
      with pytest.raises(RuntimeError, match=r"did not start \(SIGKILL\)"):
        reader.read(tmp_path / "a.npy")
  assert len(started) == min(kills + 1, 4)


def test_a_bad_record_comes_over_as_it_is(reader, tmp_path, monkeypatch):
  (tmp_path / "SMITH").write_bytes(tiny.MADE["plain.dcm"]()[:700])
  monkeypatch.chdir(tmp_path)  # the process may stand elsewhere
  cases = [("SMITH", {}), ("gone", {}), (".", {"root": "/etc"}), ("SMITH", {"key": b"k" * 20})]
  cases += [("SMITH", {"limits": Limits(max_bytes=10)})]
  for path, more in cases:
    found = []
    for r in (read, reader.read):
      with pytest.raises(BadRecord) as error:
        r(path, **more)
      found.append((error.value.kind, error.value.reason, error.value.file))
    assert found[0] == found[1] and len(found[0][2]) == 16


def test_wrong_arguments_are_the_caller_s(reader, tmp_path):
  with pytest.raises(ValueError, match="unknown preset 'radiolgy'"):
    reader.read(tmp_path, preset="radiolgy")
  with pytest.raises(ValueError, match="at least 16"):
    reader.read(tmp_path, key=b"short")
  with pytest.raises(ValueError, match="a function of a module"):
    Reader(target=lambda path, options, **more: None)


def test_a_crash_costs_one_record(fakes, file):
  before = children()
  with Reader(target=fakes.read) as reader:
    first = reader.read(file("fine")).notes
    assert reader.read(file("fine")).notes == first, "one process serves many files"
    with pytest.raises(BadRecord) as error:
      reader.read(file("abort"))
    expected = privacy.file_hash(file("abort"))
    assert (error.value.kind, error.value.file) == ("crash", expected)
    assert "SIGABRT" in str(error.value) and "SMITH" not in str(error.value)
    with pytest.raises(BadRecord, match="exit code"):
      reader.read(file("exit"))
    again = reader.read(file("fine")).notes
    assert again[0] == "fine" and again[1] != first[1]
  assert children() == before


@pytest.mark.parametrize("word", ["sleep", "spin"])
def test_a_hang_costs_its_time_out(fakes, file, word):
  with Reader(target=fakes.read, timeout=0.5) as reader:
    assert reader.read(file("fine")).kind == "image"
    begun = time.monotonic()
    with pytest.raises(BadRecord) as error:
      reader.read(file(word))
    assert error.value.kind == "timeout" and "0.5 s" in error.value.reason
    assert 0.5 <= time.monotonic() - begun < 5
    assert reader.read(file("fine")).kind == "image"


def test_a_file_that_struck_twice_is_not_tried_again(fakes, file):
  with Reader(target=fakes.read, timeout=0.5) as reader:
    for word in ("abort", "sleep"):
      for key in (None, b"k" * 16):  # whatever the key of the call
        with pytest.raises(BadRecord):
          reader.read(file(word), key=key)
    pid = reader.read(file("fine")).notes[1]
    for word in ("abort", "sleep"):
      with pytest.raises(BadRecord, match="refused") as error:
        reader.read(file(word))
      assert error.value.kind == "crash" and error.value.file == privacy.file_hash(file(word))
    with pytest.raises(BadRecord, match="SIGABRT"):
      reader.read(file("abort", 1))  # another file is another matter
    assert reader.read(file("fine")).notes[1] != pid


def test_the_process_is_small_quiet_and_knows_no_jax(fakes, file, capfd):
  with Reader(target=fakes.read, memory=2 << 30) as reader:
    modules = set(reader.read(file("modules")).notes)
    assert {"hulu_jax", "pydicom", "av"} <= modules
    assert not modules & {"jax", "jaxlib", "flax", "torch", "pytest"}
    assert reader.read(file("limits")).notes == (str(2 << 30), "0")
    assert reader.read(file("print")).notes[0] == "print"
    with pytest.raises(BadRecord) as error:
      reader.read(file("memory"))
    assert error.value.kind == "crash"
  assert "".join(capfd.readouterr()) == ""


def test_an_answer_that_is_none_is_a_crash(fakes, file):
  with Reader(target=fakes.read, timeout=5) as reader:
    with pytest.raises(BadRecord) as error:
      reader.read(file("lie"))
    assert error.value.kind == "crash"
    assert reader.read(file("fine")).kind == "image"


def taking(data):
  """As the pipe gives bytes: exactly so many, or none."""
  rest = bytearray(data)

  def take(count):
    if len(rest) < count:
      raise EOFError
    part = bytes(rest[:count])
    del rest[:count]
    return part

  return take


class Kept:
  """A stream that keeps what is written."""

  def __init__(self):
    self.data = b""

  def write(self, data):
    self.data += bytes(data)

  def flush(self):
    """Nothing waits."""


def answer_of(**changes):
  """The bytes of an answer, of which the header's fields are changed."""
  kept = Kept()
  media = Media("volume", np.zeros((2, 3, 4, 1), np.uint8), affine=np.eye(4), slices=(0, 2))
  wire.send_answer(kept, media)
  header = wire.receive(taking(kept.data))
  header["media"] |= changes.pop("media", {})
  sent = Kept()
  wire.send(sent, header | changes, b"\0" * 24)
  return sent.data


LIES = {
  "another type": {"media": {"slices": "SMITH"}},
  "a number in place of text": {"media": {"kind": 3}},
  "an unknown field": {"media": {"pickle": "gASVKAAA"}},
  "not an object": {"media": {"provenance": []}},
  "nested provenance": {"media": {"provenance": {"a": {}}}},
  "an affine of another size": {"media": {"affine": [[1.0, 0.0], [0.0, 1.0]]}},
  "a negative shape": {"shape": [-2, -3, 4, 1]},
  "four channels": {"shape": [2, 3, 1, 4]},
  "a shape beyond the limits": {"shape": [10**6, 10**6, 10**6, 1]},
  "a shape that is text": {"shape": "2341"},
  "an unknown kind of error": {"kind": "SMITH", "reason": "", "file": ""},
  "an error without a file": {"kind": "format", "reason": "", "file": None},
}


@pytest.mark.parametrize("name", LIES)
def test_every_field_of_an_answer_is_checked(name):
  assert wire.receive_answer(taking(answer_of()), Limits()).slices == (0, 2)
  with pytest.raises(wire.Garbled):
    wire.receive_answer(taking(answer_of(**LIES[name])), Limits())


@pytest.mark.parametrize("data", [b"\xff" * 8, b"\0" * 7 + b"\x04nope", b"\0" * 7 + b"\x02[]"])
def test_an_answer_without_a_header_is_none(data):
  with pytest.raises(wire.Garbled):
    wire.receive_answer(taking(data), Limits())


def test_nothing_is_left_behind(fakes, file):
  before, open_before = children(), descriptors()
  for _ in range(2):
    with Reader(target=fakes.read, timeout=0.3) as reader:
      reader.read(file("fine"))
      for word in ("sleep", "abort"):
        with pytest.raises(BadRecord):
          reader.read(file(word))
      reader.read(file("fine"))
      assert len(children() - before) == 1
    reader.close()  # twice is once
  assert children() == before and descriptors() == open_before


KILLED = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
import fake_decoders
from hulu_jax.media.worker import Reader
reader = Reader(target=fake_decoders.read, timeout=1.0)
reader.read(sys.argv[2])
print(open(f"/proc/self/task/{os.getpid()}/children").read(), flush=True)
reader.read(sys.argv[3])
"""


def test_a_hanging_decoder_outlives_no_killed_parent(fakes, file):
  folder = os.path.dirname(fakes.__file__)
  command = [sys.executable, "-c", KILLED, folder, str(file("fine")), str(file("spin"))]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
    (child,) = parent.stdout.readline().split()
    parent.kill()
  end = time.monotonic() + 10
  while os.path.exists(f"/proc/{child}") and time.monotonic() < end:
    if open(f"/proc/{child}/stat").read().split()[2] == "Z":  # ended, and nobody asks how
      break
    time.sleep(0.1)
  assert time.monotonic() < end


def test_a_closed_reader_starts_anew(fakes, file):
  reader = Reader(target=fakes.read)
  first = reader.read(file("fine")).notes[1]
  reader.close()
  assert reader.read(file("fine")).notes[1] != first
  reader.close()


def test_an_interrupt_leaves_no_half_answer(fakes, file, monkeypatch):
  with Reader(target=fakes.read) as reader:
    reader.read(file("fine"))

    def interrupted(take, limits):
      raise KeyboardInterrupt

    with monkeypatch.context() as patch:
      patch.setattr(wire, "receive_answer", interrupted)
      with pytest.raises(KeyboardInterrupt):
        reader.read(file("fine", 1))
    assert reader.read(file("fine", 2)).notes[0] == "fine"


def test_threads_take_turns(fakes, file):
  with Reader(target=fakes.read) as reader:
    found = []
    threads = [
      threading.Thread(target=lambda n=n: found.append(reader.read(file("fine", n)).notes))
      for n in range(6)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert len(found) == 6 and len(set(found)) == 1


def test_examples_are_built_through_a_reader(reader, tokenizer, tmp_path):
  (tmp_path / "a.png").write_bytes(tiny.picture("PNG"))
  builder = Builder(tokenizer=tokenizer, policy=vision.HULUMED, root=tmp_path, reader=reader.read)
  items = [{"type": "image", "path": "a.png"}, {"type": "text", "text": "Is it clear?"}]
  record = {"id": "a", "messages": [{"role": "user", "content": items}]}
  here = dataclasses.replace(builder, reader=read)(record)
  there = builder(record)
  assert isinstance(there, Example)
  np.testing.assert_array_equal(there.visuals[0].patches, here.visuals[0].patches)
