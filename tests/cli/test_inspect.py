"""`hulu inspect` as a user meets it: tables, one JSON object, overlays, one-line errors."""

import json
import re
import subprocess
import sys

import nibabel
import numpy as np
from PIL import Image
import pytest

from hulu_jax.cli import inspect
from hulu_jax.media import samples
from tests.media import made

KEYS = {
  "kind", "format", "bytes", "frames", "frames_available", "size", "channels", "modality",
  "units", "window", "rgb_windows", "value_range", "plane", "oblique_degrees", "orientation",
  "orientation_words", "spacing_mm", "affine", "slices", "fps", "timestamps", "preset",
  "resized", "grid", "merge", "swap_sides", "patch_bytes", "compression", "threshold_grey",
  "threshold_hu", "max_tokens", "tokens_per_frame", "tokens", "tokens_kept", "decoder_tokens",
  "provenance", "notes",
}  # fmt: skip


@pytest.fixture
def ct(tmp_path):
  """HU [64, 56, 6], RAS, 1 x 1 x 3 mm: noise in the front half in x, constant in the other."""
  hu = np.random.default_rng(0).integers(-200, 200, (64, 56, 6)).astype(np.int16)
  hu[:32] = 0
  path = tmp_path / "ct.nii.gz"
  nibabel.Nifti1Image(hu, np.diag([1.0, 1.0, 3.0, 1.0])).to_filename(path)
  return path


def run(capsys, *argv):
  code = inspect.main([str(a) for a in argv])
  return code, *capsys.readouterr()


def answer(capsys, *argv):
  """The object of a run that must succeed."""
  code, out, err = run(capsys, *argv, "--json")
  assert code == 0 and err == "" and out.count("\n") == 1, err
  return json.loads(out, parse_constant=pytest.fail)


def test_json_is_one_object(capsys, ct):
  found = answer(capsys, ct, "--modality", "CT", "--window", "abdomen")
  assert set(found) == KEYS
  assert found["kind"] == "volume" and found["frames"] == 6 and found["size"] == [56, 64]
  assert found["spacing_mm"] == [3.0, 1.0, 1.0] and found["window"] == [40.0, 400.0]
  assert found["units"] == "HU" and found["bytes"] == ct.stat().st_size
  rows, columns = found["grid"]
  assert found["resized"] == [14 * rows, 14 * columns]
  assert found["tokens"] == found["tokens_kept"] == 6 * rows * columns // 4
  assert found["patch_bytes"] == 6 * rows * columns * 14 * 14
  assert found["notes"] == [n for n in found["notes"] if isinstance(n, str)]


def test_orientation_in_plain_words(capsys, ct):
  words = {p: answer(capsys, ct, "--plane", p)["orientation_words"] for p in
           ("axial", "coronal", "sagittal")}  # fmt: skip
  assert words == {
    "axial": "axial, head to feet; front of the patient up, right on the viewer's left",
    "coronal": "coronal, front to back; head of the patient up, right on the viewer's left",
    "sagittal": "sagittal, right to left; head of the patient up, front on the viewer's left",
  }


def test_unknown_sides_are_not_named(capsys, tmp_path):
  np.save(tmp_path / "a.npy", np.arange(4 * 30 * 20, dtype=np.int16).reshape(4, 30, 20))
  found = answer(capsys, tmp_path / "a.npy", "--spacing-mm", "5,1,2", "--preset", "hulumed")
  assert found["orientation"] is None and found["spacing_mm"] == [5.0, 1.0, 2.0]
  assert "not known" in found["orientation_words"] and "left" not in found["orientation_words"]


def test_compression_drops_what_does_not_change(capsys, ct):
  found = answer(capsys, ct, "--modality", "CT", "--compression", "fixed", "--threshold", "12.75")
  assert 0 < found["tokens_kept"] < found["tokens"] and found["threshold_grey"] == 12.75
  # The constant half goes, in all frames but the first; the noisy half stays.
  assert found["tokens_kept"] == pytest.approx(found["tokens"] * 7 / 12, abs=20)


def test_windows_that_start_with_a_minus(capsys, ct):
  found = answer(capsys, ct, "--modality", "CT", "--window", "-600/1500")
  assert found["window"] == [-600.0, 1500.0]
  found = answer(capsys, ct, "--modality", "MR", "--value-range", "-100,100")
  assert found["value_range"] == [-100.0, 100.0]


def test_three_windows_are_shown_as_colours(capsys, ct):
  found = answer(capsys, ct, "--modality", "CT", "--window", "lung+abdomen+300/600")
  assert found["channels"] == 3 and found["window"] is None
  assert found["rgb_windows"] == [[-600.0, 1500.0], [40.0, 400.0], [300.0, 600.0]]
  code, out, _ = run(capsys, ct, "--modality", "CT", "--window", "lung+abdomen+300/600")
  assert code == 0 and "red, green, blue" in out


@pytest.mark.parametrize("form", ("", "--json"))
def test_a_pipe_that_nobody_reads(ct, form):
  # `true` has ended long before the first line is printed.
  command = f"set -o pipefail; {sys.executable} -m hulu_jax.cli.main inspect {ct} {form} | true"
  done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
  assert done.returncode == 0 and done.stderr == ""


def test_both_presets_side_by_side(capsys, ct, tmp_path):
  found = answer(capsys, ct, "--modality", "CT", "--preset", "both")
  assert list(found) == ["radiology", "hulumed"]
  assert all(set(a) == KEYS and a["preset"] == name for name, a in found.items())
  assert found["radiology"]["size"] == [56, 64] and found["hulumed"]["size"] == [64, 56]
  code, out, _ = run(capsys, ct, "--modality", "CT", "--preset", "both", "--overlay",
                     tmp_path / "both.png")  # fmt: skip
  assert code == 0 and "preset radiology" in out and "preset hulumed" in out
  assert re.search(r"^ *size \*", out, re.MULTILINE)  # marked: the presets differ
  assert re.search(r"^ *modality +CT +CT", out, re.MULTILINE)
  whole = Image.open(tmp_path / "both.png").size
  run(capsys, ct, "--modality", "CT", "--overlay", tmp_path / "one.png")
  assert whole[0] > 1.8 * Image.open(tmp_path / "one.png").size[0]


def test_several_files_the_others_are_still_shown(capsys, ct, tmp_path):
  (tmp_path / "DOE^JANE.dcm").write_bytes(b"hello")
  Image.new("L", (40, 30)).save(tmp_path / "b.png")
  paths = [ct, tmp_path / "DOE^JANE.dcm", tmp_path / "b.png"]
  code, out, err = run(capsys, *paths)
  assert code == 2 and err.startswith("hulu inspect: file 2 of 3: format: ")
  assert err.count("\n") == 1 and "DOE" not in out + err
  numbers = [line.split()[0] for line in out.splitlines() if line.strip()[:1].isdigit()]
  assert numbers == ["1", "2", "3"] and "volume" in out and "image" in out
  code, out, _ = run(capsys, *paths, "--json")
  found = json.loads(out)
  assert code == 2 and found["failed"] == 1 and len(found["files"]) == 3
  assert found["files"][0]["kind"] == "volume" and found["files"][2]["size"] == [30, 40]
  assert set(found["files"][1]["error"]) == {"kind", "reason", "file"}
  assert run(capsys, paths[0], paths[2])[0] == 0


def test_the_budget_and_the_merge_of_the_policy(capsys, ct, tmp_path):
  by_two = answer(capsys, ct)
  by_one = answer(capsys, ct, "--merge", "1")
  # A frame has at least 16 tokens, of 28 or 14 pixels a side: 56 x 64 becomes 4 x 5 tokens.
  assert (by_two["resized"], by_one["resized"]) == ([4 * 28, 5 * 28], [4 * 14, 5 * 14])
  assert by_two["tokens"] == by_one["tokens"] == 6 * 4 * 5
  assert (by_two["merge"], by_one["merge"]) == (2, 1)
  Image.new("L", (300, 300)).save(tmp_path / "square.png")
  assert answer(capsys, tmp_path / "square.png")["tokens"] == 21 * 21
  small = answer(capsys, tmp_path / "square.png", "--max-tokens", "100")
  assert small["max_tokens"] == 100 and small["tokens"] == 10 * 10


def test_swapped_sides(capsys, tmp_path):
  Image.new("L", (280, 140)).save(tmp_path / "wide.png")
  straight = answer(capsys, tmp_path / "wide.png", "--swap-sides", "volume")
  swapped = answer(capsys, tmp_path / "wide.png", "--swap-sides", "image,volume")
  assert (straight["resized"], straight["swap_sides"]) == ([140, 280], False)
  assert (swapped["resized"], swapped["swap_sides"]) == ([280, 140], True)


def test_limits_can_be_moved(capsys, ct):
  code, _, err = run(capsys, ct, "--limit", "max_frames=5")
  assert code == 2 and "limit" in err
  code, _, err = run(capsys, ct, "--limit", "frames=5")
  assert code == 2 and "max_frames" in err


def test_decoder_tokens_are_those_of_the_real_prompt(capsys, shared_data, ct):
  from hulu_jax.data import examples
  from hulu_jax.data import tokenizer
  from hulu_jax.data import vision

  cine = samples.locate("cine")
  for name in ("tokenizer_qwen2_5", "tokenizer_qwen3"):
    real = tokenizer.load(shared_data / name / "public")
    build = examples.Builder(tokenizer=real, policy=vision.HULUMED, root=None)
    for kind, path in (("volume", ct), ("video", cine)):
      message = {"role": "user", "content": [{"type": kind, "path": str(path)}]}
      tokens = build.build([message], "x", generate=False).tokens
      assert answer(capsys, path)["decoder_tokens"] == len(tokens)


def test_table_and_overlay(capsys, tmp_path):
  target = tmp_path / "sheet.png"
  path = samples.locate("cine")
  code, out, _ = run(
    capsys, path, "--crop", "45,75,205,245", "--compression", "hulumed", "--overlay", target
  )
  assert code == 0 and "video" in out and "decoder tokens" in out and "frame" in out
  picture = np.asarray(Image.open(target))
  assert picture.shape[2] == 3 and picture.std() > 5
  assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]
  assert "\x1b" not in out  # no colours where no terminal is


@pytest.mark.parametrize("width", ("50", "80", "200"))
def test_long_notes_wrap_inside_the_terminal(capsys, ct, monkeypatch, width):
  monkeypatch.setenv("COLUMNS", width)
  _, out, _ = run(capsys, ct, "--preset", "both")
  # A pipe is taken to be at least 80 wide.
  assert max(map(len, out.splitlines())) <= max(80, int(width))


def test_colours_in_a_terminal(capsys, ct, monkeypatch):
  monkeypatch.setenv("FORCE_COLOR", "1")
  monkeypatch.setenv("TERM", "xterm-256color")
  assert "\x1b[33m" in run(capsys, ct)[1]  # a note, in yellow


@pytest.mark.parametrize(
  "argv",
  (
    ["{ct}", "--window", "lung"],
    ["{ct}", "--window", "lungs", "--modality", "CT"],
    ["{ct}", "--crop", "1,2,3"],
    ["{ct}", "--crop", "left"],
    ["{ct}", "--spacing-mm", "1,2"],
    ["{ct}", "--value-range", "low"],
    ["{ct}", "--max-tokens", "0"],
    ["{ct}", "--frames", "0"],
    ["{ct}", "--compression", "fixed"],
    ["{ct}", "--threshold", "3"],
    ["{ct}", "--compression", "fixed", "--threshold", "nan"],
    ["{ct}", "--swap-sides", "volumes"],
    ["{empty}"],
    ["{text}"],
    ["{missing}"],
    ["{ct}", "--preset", "radiolgy"],
    ["{ct}", "--overlay", "{missing}/a.png"],
    ["{ct}", "{ct}", "--overlay", "{missing}.png"],
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
  assert str(tmp_path) not in err
  assert sorted(tmp_path.iterdir()) == before


def test_nothing_about_the_patient_is_written(capsys, tmp_path):
  folder = tmp_path / "CANARY^JANE"
  folder.mkdir()
  for k in range(3):
    slice_ = made.dicom_dataset(
      np.arange(64 * 48, dtype=np.int16).reshape(64, 48) * (k + 1) % 700,
      Modality="CT",
      RescaleSlope=1,
      RescaleIntercept=-1024,
      PixelSpacing=[1, 1],
      ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
      ImagePositionPatient=[0, 0, 5 * k],
      SeriesDescription="CANARY CHEST",
      ReferringPhysicianName="CANARY^DOCTOR",
      InstitutionName="CANARY HOSPITAL",
      PatientComments="CANARY COMMENT",
    )
    slice_.save_as(folder / f"CANARY_{k}.dcm", enforce_file_format=True)
  broken = tmp_path / "CANARY.dcm"
  broken.write_bytes((folder / "CANARY_0.dcm").read_bytes()[:900])
  sheet = tmp_path / "sheet.png"
  for argv in (
    [folder, "--preset", "both", "--overlay", sheet],
    [folder, "--json"],
    [folder, folder / "CANARY_0.dcm", broken],
    [folder, broken, "--json"],
    [broken],
    [folder, "--plane", "oblique"],
    [folder, "--phase", "late"],
  ):
    code, out, err = run(capsys, *argv)
    assert "CANARY" not in out + err and str(tmp_path) not in out + err
    assert (code == 0) == (err == "")
  assert "CANARY" not in sheet.read_bytes().decode("latin1")


def test_help_has_groups_and_examples(capsys):
  code, out, _ = run(capsys, "--help")
  assert code == 0 and "hulu inspect ct_folder --window lung" in out
  assert "visual tokens:" in out and "values to grey levels:" in out


def test_it_starts_without_jax_and_draws_no_table_for_json(ct):
  code = (
    "import sys; from hulu_jax.cli import inspect; "
    f"code = inspect.main([{str(ct)!r}, '--json']); "
    "sys.exit(code or any(m in sys.modules for m in ('jax', 'torch', 'rich', 'matplotlib')))"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert set(json.loads(done.stdout)) == KEYS


def test_a_terminal_without_unicode(ct):
  code = f"import sys; from hulu_jax.cli import inspect; sys.exit(inspect.main([{str(ct)!r}]))"
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
  )
  assert done.returncode == 0, done.stderr
  done.stdout.decode("ascii")


def test_a_key_makes_hashes_the_same_in_every_run(tmp_path, capsys):
  """Two runs agree under one key file, which nobody else may read."""
  picture = tmp_path / "Jane_Doe.png"
  picture.write_bytes(b"no picture")
  key = tmp_path / "key"

  def hashed(*flags):
    assert inspect.main([str(picture), "--json", *flags]) == 2
    return capsys.readouterr().err.rsplit("(file ", 1)[1]

  assert hashed("--hash-key", str(key)) == hashed("--hash-key", str(key))
  assert key.stat().st_mode & 0o077 == 0
  key.chmod(0o644)
  assert inspect.main([str(picture), "--hash-key", str(key)]) == 2
  assert "chmod 600" in capsys.readouterr().err


def test_a_root_may_not_be_left(tmp_path, capsys):
  inside = tmp_path / "inside"
  inside.mkdir()
  picture = tmp_path / "outside.png"
  Image.fromarray(np.zeros((28, 28), np.uint8)).save(picture)
  (inside / "link.png").symlink_to(picture)
  assert inspect.main([str(inside / "link.png"), "--root", str(inside)]) == 2
  assert "path: " in capsys.readouterr().err
  assert inspect.main([str(inside / "link.png"), "--root", str(tmp_path)]) == 0


def test_decoding_in_another_process_shows_the_same(tmp_path, capsys):
  picture = tmp_path / "a.png"
  Image.fromarray(np.arange(56 * 56, dtype=np.uint8).reshape(56, 56)).save(picture)
  key = ["--hash-key", str(tmp_path / "key"), "--json"]
  assert inspect.main([str(picture), *key]) == 0
  here = capsys.readouterr().out
  assert inspect.main([str(picture), *key, "--timeout", "60"]) == 0
  assert capsys.readouterr().out == here
  assert inspect.main([str(picture), "--timeout", "0"]) == 2
  assert "more than 0" in capsys.readouterr().err
