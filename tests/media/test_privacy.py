"""Keyed hashes of paths and UIDs: what they are, who can join them, where the key comes from."""

import hashlib
import hmac
import logging
import os
import re
import stat
import subprocess
import sys
import textwrap
import threading
import traceback
import warnings

from PIL import Image
import pytest

from hulu_jax.media import KINDS
from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import Options
from hulu_jax.media import from_json
from hulu_jax.media import options
from hulu_jax.media import privacy
from hulu_jax.media import read
from hulu_jax.media.quiet import quiet
from tests.media import tiny

KEY = b"0123456789abcdef"


def test_a_digest_is_hmac_sha256_of_the_text():
  expected = hmac.new(KEY, b"1.2.840.1", hashlib.sha256).hexdigest()[:16]
  assert privacy.digest("1.2.840.1", key=KEY) == expected
  with privacy.keyed(KEY):
    assert privacy.digest("1.2.840.1") == expected
    assert privacy.current_key() == KEY
  assert privacy.digest("1.2.840.1") != expected
  assert re.fullmatch("[0-9a-f]{16}", privacy.digest("\udcff, a name that is no UTF-8"))


def test_the_key_of_a_read_is_that_of_its_thread():
  seen = []
  with privacy.keyed(KEY):
    other = threading.Thread(target=lambda: seen.append(privacy.digest("a")))
    other.start()
    other.join()
  assert seen == [privacy.digest("a")] and seen != [privacy.digest("a", key=KEY)]


def test_two_processes_cannot_join_their_hashes():
  code = "from hulu_jax.media import privacy; print(privacy.digest('a'))"
  found = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)}
  assert len(found) == 2


def test_a_path_is_named_by_its_hash_alone(tmp_path, monkeypatch):
  path = tmp_path / "SMITH_JOHN.png"
  expected = hmac.new(KEY, os.fsencode(path), hashlib.sha256).hexdigest()[:16]
  with pytest.raises(BadRecord) as error:
    read(path, key=KEY)
  assert error.value.file == expected and error.value.kind == "missing"
  assert str(error.value) == f"missing: no such file or folder (file {expected})"
  path.write_bytes(tiny.picture("PNG"))
  monkeypatch.chdir(tmp_path)
  media = read("SMITH_JOHN.png", Options(crop=(0, 0, 8, 8)), key=KEY)
  assert media.provenance["file"] == expected  # of the absolute path
  assert media.provenance["format"] == "png" and media.provenance["preset"] == "radiology"
  assert str(media.provenance["reader"]).startswith("Pillow ")
  assert media.provenance["options.crop"] == "0, 0, 8, 8"
  assert not [k for k in media.provenance if k.startswith("options.") and k != "options.crop"]


def test_no_library_error_hangs_on_a_bad_record(tmp_path, monkeypatch):
  picture = tiny.picture("PNG")
  for error in (MemoryError("SMITH"), RecursionError("SMITH"), TypeError("SMITH")):

    def fail(file, error=error, **more):
      raise error

    monkeypatch.setattr(Image, "open", fail)
    path = tmp_path / "SMITH.png"
    path.write_bytes(picture)
    with pytest.raises(BadRecord) as found:
      read(path)
    assert found.value.__cause__ is None and found.value.__context__ is None
    assert type(error).__name__ in str(found.value)
    assert "SMITH" not in "".join(traceback.format_exception(found.value))


def test_an_interrupt_is_not_a_bad_record(tmp_path, monkeypatch):
  def fail(file, **more):
    raise KeyboardInterrupt

  (tmp_path / "a").write_bytes(tiny.picture("PNG"))
  monkeypatch.setattr(Image, "open", fail)
  with pytest.raises(KeyboardInterrupt):
    read(tmp_path / "a")


def test_a_bad_record_keeps_the_file_it_names_first():
  bad = BadRecord("format", "damaged")
  assert str(bad) == "format: damaged" and bad.file is None
  assert str(bad.at("12ab")) == "format: damaged (file 12ab)"
  assert bad.at("12ab").at("34cd").file == "12ab"
  assert len(set(KINDS)) == len(KINDS) == 10


def test_a_key_file_is_made_once_and_kept_from_others(tmp_path):
  path = tmp_path / "key"
  key = privacy.read_key(path)
  assert len(key) == 32 and privacy.read_key(path) == key
  assert stat.S_IMODE(path.stat().st_mode) == 0o600
  path.chmod(0o644)
  with pytest.raises(ValueError, match="chmod 600"):
    privacy.read_key(path)
  path.write_bytes(b"short")
  path.chmod(0o600)
  with pytest.raises(ValueError, match="5 bytes; expected at least 16"):
    privacy.read_key(path)
  with pytest.raises(ValueError, match="5 bytes; expected at least 16"):
    read(tmp_path / "a", key=b"short")


def test_libraries_are_quiet_in_the_thread_that_reads(caplog):
  """Another thread is heard meanwhile, and what it does to the filters breaks no silence."""
  caplog.set_level(logging.DEBUG)
  logger = logging.getLogger("pydicom")
  entered, leave = threading.Event(), threading.Event()

  def other():
    with quiet():
      entered.set()
      leave.wait(10)
      logger.warning("SMITH")
      warnings.warn("SMITH", stacklevel=1)

  thread = threading.Thread(target=other)
  with warnings.catch_warnings(record=True) as outer:
    warnings.simplefilter("always")
    with quiet():  # as any read before: a new filter of the caller's goes behind
      pass
    with warnings.catch_warnings():
      thread.start()
      assert entered.wait(10)
      logger.warning("heard")
    warnings.warn("heard", stacklevel=1)
    leave.set()
    thread.join()
    with quiet():
      warnings.warn("SMITH", stacklevel=1)
    warnings.warn("heard again", stacklevel=1)
  assert [str(w.message) for w in outer] == ["heard", "heard again"]
  assert "SMITH" not in caplog.text and "heard" in caplog.text


def test_filters_do_not_pile_up():
  with warnings.catch_warnings():
    for _ in range(3):
      with quiet():
        warnings.warn("SMITH", stacklevel=1)
      warnings.simplefilter("error")
      with quiet():  # a caller's own filter comes after
        warnings.warn("SMITH", stacklevel=1)
    found = warnings.filters
    assert len([f for f in found if f is found[0]]) == 1
    with pytest.raises(UserWarning):
      warnings.warn("heard", stacklevel=1)
  for _ in range(3):
    with quiet():
      pass
  assert len(logging.getLogger("pydicom").filters) == 1


def test_options_from_json():
  given = {"window": [40, 400], "crop": [1, 2, 3, 4], "spacing_mm": [1, 2.5, 3], "phase": "venous"}
  assert options(given) == Options(
    window=(40.0, 400.0), crop=(1, 2, 3, 4), spacing_mm=(1.0, 2.5, 3.0), phase="venous"
  )
  assert options({}) == options({"window": None, "repeat_slices": False}) == Options()
  assert options({"window": "lung", "crop": "ultrasound_region"}).window == "lung"
  assert set(from_json.NAMES) == set(Options.__dataclass_fields__)


REFUSED = {
  "modalty": ("CT", "unknown key 'modalty'; did you mean 'modality'?"),
  "colour": (1, "unknown key 'colour'; there are: crop, fps"),
  "window": ([40], "window is a list of 1; expected text or a list of 2 numbers"),
  "crop": ([1, 2, 3, 4.5], "crop is a list of 4; expected text or a list of 4 whole numbers"),
  "time_index": ("0", "time_index is text; expected a whole number"),
  "frames": (True, "frames is true or false; expected a whole number"),
  "fps": (float("nan"), "fps is not a finite number; expected a number"),
  "slice_mm": (10**400, "slice_mm is a whole number; expected a number"),
  "repeat_slices": (1, "repeat_slices is a whole number; expected true or false"),
  "modality": ({"SMITH": 1}, "modality is a dict; expected text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_of_another_type_are_refused_without_quoting_them(name):
  value, reason = REFUSED[name]
  with pytest.raises(BadRecord) as error:
    options({name: value})
  assert error.value.kind == "options" and error.value.reason.startswith(reason)
  with pytest.raises(BadRecord, match="expected an object"):
    options(["window"])


def test_limits_start_from_the_defaults():
  tight = Limits(max_seconds=10)
  tight.check_seconds(10)
  for seconds in (10.5, float("nan"), float("inf"), -1):
    with pytest.raises(BadRecord, match="the limit is 10 s"):
      tight.check_seconds(seconds)


def test_the_snippets_of_the_security_page_run(tmp_path, root):
  page = (root / "SECURITY.md").read_text()
  snippets = [textwrap.dedent(s) for s in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
  assert len(snippets) == 2
  (tmp_path / "ct.nii.gz").write_bytes(b"no gzip")
  (tmp_path / "uploads").mkdir()
  (tmp_path / "uploads" / "scan.dcm").write_bytes(tiny.MADE["plain.dcm"]())
  said = []
  for snippet in snippets:
    # As a script without a guard: the reader's process must not run it again.
    (tmp_path / "snippet.py").write_text(snippet)
    done = subprocess.run(
      [sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said.append(done.stdout)
  assert said == ["format True\n", ""]
  assert (tmp_path / "hashes.key").stat().st_size == 32
