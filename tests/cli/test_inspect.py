"""`hulu inspect` as a user meets it: a table, one JSON object, an overlay, one-line errors."""

import json
import subprocess
import sys

import nibabel
import numpy as np
from PIL import Image
import pytest

from hulu_jax.cli import inspect
from hulu_jax.data import overlay
from hulu_jax.data import schema
from hulu_jax.media import Media
from hulu_jax.media import samples

KEYS = {"kind", "frames", "size", "spacing_mm", "grid", "tokens", "tokens_kept"}


@pytest.fixture
def ct(tmp_path):
  hu = np.random.default_rng(0).integers(-200, 200, (64, 56, 6)).astype(np.int16)
  hu[:32] = 0
  path = tmp_path / "ct.nii.gz"
  nibabel.Nifti1Image(hu, np.diag([1.0, 1.0, 3.0, 1.0])).to_filename(path)
  return path


def run(capsys, *argv):
  code = inspect.main([str(a) for a in argv])
  return code, *capsys.readouterr()


def test_json_is_one_object(capsys, ct):
  code, out, err = run(capsys, ct, "--modality", "CT", "--window", "abdomen", "--json")
  answer = json.loads(out)
  assert code == 0 and err == "" and KEYS <= set(answer)
  assert answer["kind"] == "volume" and answer["frames"] == 6 and answer["size"] == [56, 64]
  assert answer["spacing_mm"] == [3.0, 1.0, 1.0] and answer["window"] == [40.0, 400.0]
  rows, columns = answer["grid"]
  assert answer["tokens"] == answer["tokens_kept"] == 6 * rows * columns // 4


def test_compression_drops_what_does_not_change(capsys, ct):
  _, out, _ = run(
    capsys, ct, "--modality", "CT", "--compression", "fixed", "--threshold", "12.75", "--json"
  )
  answer = json.loads(out)
  assert 0 < answer["tokens_kept"] < answer["tokens"]
  # The constant half goes, in all frames but the first; the noisy half stays.
  assert answer["tokens_kept"] == pytest.approx(answer["tokens"] * 7 / 12, abs=20)


def test_table_and_overlay(capsys, tmp_path):
  target = tmp_path / "sheet.png"
  path = samples.locate("cine")
  code, out, _ = run(
    capsys, path, "--crop", "45,75,205,245", "--compression", "hulumed", "--overlay", target
  )
  assert code == 0 and "video" in out and "tokens_kept" in out
  picture = np.asarray(Image.open(target))
  assert picture.shape[2] == 3 and picture.std() > 5
  assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_overlay_shades_dropped_tokens_only():
  frames = np.full((2, 56, 84, 1), 100, np.uint8)
  keep = np.array([[True] * 6, [True, False, False, False, False, True]])
  visual = schema.Visual(
    kind="video", patches=np.zeros((2, 24, 196), np.uint8), grid=(4, 6), merge=2, keep=keep
  )
  sheet = overlay.contact_sheet(Media("video", frames), visual)
  clear = (sheet == 100).all(axis=-1)
  assert clear.sum() == 6 * 28 * 28 + 2 * 28 * 28
  np.testing.assert_array_equal(
    overlay.token_mask(visual, 1), [[True, False, False], [False, False, True]]
  )


@pytest.mark.parametrize(
  "argv",
  (
    ["{ct}", "--window", "lung"],
    ["{ct}", "--window", "lungs", "--modality", "CT"],
    ["{ct}", "--crop", "1,2,3"],
    ["{ct}", "--frames", "0"],
    ["{empty}"],
    ["{text}"],
    ["{missing}"],
    ["{ct}", "--preset", "radiolgy"],
    ["{ct}", "--overlay", "{missing}/a.png"],
    [],
  ),
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, tmp_path, ct, argv):
  (tmp_path / "empty").touch()
  (tmp_path / "text").write_text("hello")
  names = {n: tmp_path / n for n in ("empty", "text", "missing")} | {"ct": ct}
  before = sorted(tmp_path.iterdir())
  code, out, err = run(capsys, *(a.format(**names) for a in argv), "--json")
  assert code == 2 and out == ""
  assert err.startswith("hulu inspect: ") and err.count("\n") == 1
  assert sorted(tmp_path.iterdir()) == before


def test_help_has_an_example(capsys):
  code, out, _ = run(capsys, "--help")
  assert code == 0 and "hulu inspect ct_folder --window lung" in out


def test_it_starts_without_jax(ct):
  code = (
    "import sys; from hulu_jax.cli import inspect; "
    f"code = inspect.main([{str(ct)!r}, '--json']); "
    "sys.exit(code or ('jax' in sys.modules) or ('torch' in sys.modules))"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert KEYS <= set(json.loads(done.stdout))
