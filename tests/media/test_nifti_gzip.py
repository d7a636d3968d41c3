"""Inflating a .nii.gz agrees with Python's own gzip: what is whole, what is damaged."""

import gzip

import nibabel
import numpy as np
import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Options
from hulu_jax.media import read

CT = Options(modality="CT")


def gzips():
  """A NIfTI file, and by what is odd about them, gzip files of it."""
  rng = np.random.default_rng(5)
  raw = nibabel.Nifti1Image(
    rng.integers(-99, 99, (30, 20, 10)).astype(np.int16), np.eye(4)
  ).to_bytes()
  whole, half = gzip.compress(raw), gzip.compress(raw[:7000])
  wrong, short = bytearray(whole), bytearray(whole)
  wrong[-8] ^= 1  # of the checksum
  short[-1] ^= 1  # of the length
  return raw, {
    "two members": half + gzip.compress(raw[7000:]),
    "an empty member": whole + gzip.compress(b""),
    "zeros behind": whole + bytes(700),
    "a little behind": gzip.compress(raw + b"x" * 5000),
    "rubbish behind": whole + b"rubbish",
    "zeros and rubbish": whole + bytes(5) + b"rubbish",
    "half a member": half + gzip.compress(raw[7000:])[:500],
    "no trailer": whole[:-8],
    "half a trailer": whole[:-4],
    "wrong checksum": bytes(wrong),
    "wrong length": bytes(short),
  }


@pytest.mark.parametrize("name", gzips()[1])
def test_inflating_agrees_with_pythons_gzip(tmp_path, name):
  raw, files = gzips()
  (tmp_path / "a.nii").write_bytes(raw)
  (tmp_path / "a.nii.gz").write_bytes(files[name])
  try:
    same = gzip.decompress(files[name])[: len(raw)] == raw
  except (OSError, EOFError):
    with pytest.raises(BadRecord, match="format: a damaged NIfTI file"):
      read(tmp_path / "a.nii.gz", CT)
  else:
    assert same
    want = read(tmp_path / "a.nii", CT).frames
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz", CT).frames, want)
