"""The bundled pictures load, carry no shared content across the split, and show no text."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import samples


@pytest.mark.parametrize("name", samples.names())
def test_every_sample_is_what_the_table_says(name):
  sample = samples.get(name)
  try:
    media = samples.load(name)
  except BadRecord as error:
    assert sample.package in ("skimage", "nilearn") and "quickstart" in str(error)
    pytest.skip(f"{name} needs the extra quickstart")
  assert (media.kind, media.modality) == (sample.kind, sample.modality)
  assert media.frames.std() > 5
  assert sample.licence and sample.split in ("train", "test")


def test_no_frame_is_in_two_samples():
  seen: dict[str, str] = {}
  for name in samples.names():
    if samples.get(name).package in ("skimage", "nilearn"):
      pytest.importorskip(samples.get(name).package, reason="needs the extra quickstart")
    for frame in samples.load(name).frames:
      if frame.max() > frame.min():
        digest = hashlib.sha256(frame.tobytes()).hexdigest()
        assert seen.setdefault(digest, name) == name
  assert set(samples.names("train")).isdisjoint(samples.names("test"))


def test_the_cine_is_whole_and_timed():
  media = samples.load("cine")
  assert media.frames.shape == (30, 160, 170, 3)
  np.testing.assert_allclose(np.diff(media.timestamps), 0.033333, atol=2e-6)


def test_unknown_and_absent_samples(monkeypatch):
  with pytest.raises(ValueError, match="there are: ct, mr, doppler"):
    samples.load("ctt")
  monkeypatch.setattr(samples.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(BadRecord, match=r"hulu_jax\[quickstart\]"):
    samples.load("fundus")


def test_media_imports_no_jax():
  code = (
    "import sys, hulu_jax.media.samples; print(*[m for m in ('jax', 'torch') if m in sys.modules])"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == ""
