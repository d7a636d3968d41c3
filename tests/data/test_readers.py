"""Decoder processes during training: one killed from outside does not change the data."""

import dataclasses
import os
import signal
import threading
import time

import numpy as np
import pytest

from hulu_jax.data.readers import Readers
from hulu_jax.media import worker
from hulu_jax.media.errors import BadRecord
from tests.data import records_made


def children():
  """Ids of the processes that this one started and that still run."""
  found = []
  for name in filter(str.isdigit, os.listdir("/proc")):
    try:
      with open(f"/proc/{name}/stat") as file:
        state, parent = file.read().rsplit(")", 1)[1].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
      continue
    if int(parent) == os.getpid() and state != "Z":
      found.append(int(name))
  return set(found)


def kill_while_reading(path, read, before, times):
  """Opens a pipe's other end only after the decoder was killed `times` times; what was read."""
  killed = []

  def watch():
    while len(killed) < times:
      for pid in children() - before - set(killed):
        if path in open_files(pid):
          killed.append(pid)
          os.kill(pid, signal.SIGKILL)
      time.sleep(0.01)

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    return read(), len(killed)
  finally:
    thread.join(30)


def open_files(pid):
  found = []
  try:
    for fd in os.listdir(f"/proc/{pid}/fd"):
      found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
  except (FileNotFoundError, ProcessLookupError):
    return []
  return found


@pytest.fixture
def own(builder, tmp_path):
  records_made.write(tmp_path)
  # Large enough that the file is open for a while.
  np.save(tmp_path / "big.npy", np.random.default_rng(0).normal(size=(100, 300, 300)))
  return dataclasses.replace(builder, root=tmp_path)


BIG = {
  "id": "big",
  "messages": [
    {
      "role": "user",
      "content": [{"type": "volume", "path": "big.npy", "spacing_mm": [1.0, 1.0, 1.0]}],
    }
  ],
}


def test_the_same_examples_in_processes(own):
  before = children()
  with Readers(2, 60.0) as readers:
    apart = dataclasses.replace(own, reader=readers.read)
    for record in records_made.records():
      one, other = own(record), apart(record)
      if isinstance(one, BadRecord):
        assert (one.kind, one.reason) == (other.kind, other.reason)
        continue
      np.testing.assert_array_equal(one.tokens, other.tokens)
      for mine, theirs in zip(one.visuals, other.visuals, strict=True):
        np.testing.assert_array_equal(mine.patches, theirs.patches)
    assert children() - before
  assert not children() - before, "closed with them"


def test_a_killed_decoder_does_not_change_the_data(own):
  whole = own(BIG)
  before = children()
  path = str(own.root / "big.npy")
  with Readers(1, 60.0) as readers:
    apart = dataclasses.replace(own, reader=readers.read)
    for _ in range(3):  # a file is not remembered for what was done to its decoder
      built, killed = kill_while_reading(path, lambda: apart(BIG), before, 1)
      assert killed == 1
      np.testing.assert_array_equal(built.visuals[0].patches, whole.visuals[0].patches)
      np.testing.assert_array_equal(built.tokens, whole.tokens)


def test_a_file_that_crashes_its_decoder_is_tried_in_four(own, monkeypatch):
  tried = []

  def crash(self, path, options, **more):
    tried.append(self)
    raise BadRecord("crash", "its decoder crashed (SIGSEGV)")

  monkeypatch.setattr(worker.Reader, "read", crash)
  with Readers(1, 60.0) as readers:
    bad = dataclasses.replace(own, reader=readers.read)(BIG)
  assert isinstance(bad, BadRecord) and bad.kind == "crash"
  assert len(tried) == len(set(map(id, tried))) == 4


@pytest.mark.parametrize("kind", ["timeout", "format"])
def test_nothing_else_is_tried_again(own, monkeypatch, kind):
  tried = []

  def fail(self, path, options, **more):
    tried.append(self)
    raise BadRecord(kind, "so")

  monkeypatch.setattr(worker.Reader, "read", fail)
  with Readers(1, 60.0) as readers:
    assert dataclasses.replace(own, reader=readers.read)(BIG).kind == kind
  assert len(tried) == 1
