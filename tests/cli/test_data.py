"""`hulu data` as a user runs it: what it prints and writes, and what it refuses."""

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from experiments import quickstart
from hulu_jax.cli import main
from hulu_jax.core import params
from hulu_jax.data import lengths
from hulu_jax.data import settings
from hulu_jax.data import shapes as shapes_lib
from hulu_jax.models import hulu
from hulu_jax.models import presets
from tests.data import lengths_made

SMALL = [f"--config.data.mixture[{k}].size=400" for k in range(4)]
SMALL += [f"--config.data.mixture[{k}].pool=12" for k in range(1, 4)]
QUICKSTART = ["--config=experiments/quickstart.py", *SMALL]


@pytest.fixture(autouse=True)
def at_root(root, monkeypatch):
  monkeypatch.chdir(root)


def said(capsys, *args) -> str:
  assert main.main(["data", *map(str, args)]) == 0
  return capsys.readouterr().out


def refused(capsys, *args) -> str:
  assert main.main(["data", *map(str, args)]) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1, lines
  return lines[0]


@pytest.fixture(scope="module")
def counted(root, tmp_path_factory):
  """Ten steps of the quick start, counted with one thread and with three."""
  folder, before = tmp_path_factory.mktemp("stats"), os.getcwd()
  os.chdir(root)
  answers = []
  for more in ([f"--pictures={folder}"], ["--config.data.threads=3"]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      assert main.main(["data", "stats", *QUICKSTART, "--steps=10", "--json", *more]) == 0
    answers.append(json.loads(out.getvalue()))
  os.chdir(before)
  return answers


def test_stats_count_what_the_steps_hold(counted):
  one, _ = counted
  rows = {row["dataset"]: row for row in one["datasets"]}
  (shape,) = settings.step_shapes(quickstart.get_config().shapes, 20)
  tokens = sum(sum(row["tokens"].values()) for row in rows.values())
  patches = sum(row["patches"] for row in rows.values())
  (steps,) = one["shapes"]
  assert steps["steps"] == 10
  assert steps["fill"]["tokens"] == pytest.approx(tokens / (10 * 20 * shape.tokens))
  assert steps["fill"]["patches"] == pytest.approx(patches / (10 * 20 * 96))
  assert rows["2D"]["patches"] == 64 * rows["2D"]["samples"]
  assert rows["2D"]["tokens"]["image"] == 16 * rows["2D"]["samples"]
  assert rows["3D"]["tokens"]["volume"] == 24 * rows["3D"]["samples"]
  assert rows["3D"]["kept"]["volume"]["off"] == 1.0
  assert 0 < rows["3D"]["kept"]["volume"]["hulumed"] < 0.6
  assert rows["video"]["bad"] == {} and one["seconds_per_step"] > 0


def test_stats_say_how_long_an_epoch_is_and_what_a_step_costs(counted):
  one, _ = counted
  rows = {row["dataset"]: row for row in one["datasets"]}
  samples = sum(row["samples"] for row in rows.values())
  assert rows["2D"]["steps_per_epoch"] == pytest.approx(400 / (samples / 10 * 0.48))
  specs = hulu.specs(presets.TINY)
  decoder = params.count(specs["decoder"]["layers"])
  head, vision = params.count(specs["decoder"]["head"]), params.count(specs["vision"])
  projector = params.count(specs["projector"])
  row = 2 * (120 * decoder + 36 * head + 96 * vision + 24 * projector)
  assert one["shapes"][0]["flops"] == 20 * row == one["shapes"][0]["flops_per_rank"]
  assert 0.5 < one["useful_over_paid"] < 1


def test_stats_do_not_depend_on_threads(counted):
  one, other = counted
  for row in [*one["datasets"], *other["datasets"]]:
    del row["build_seconds"]
  for key in ("datasets", "shapes", "fill", "useful_over_paid"):
    assert one[key] == other[key]


def test_stats_draw_histograms(counted):
  names = [path.rsplit("/", 1)[1] for path in counted[0]["pictures"]]
  assert names == ["tokens_per_sample.png", "fill.png"]
  for path in counted[0]["pictures"]:
    assert min(Image.open(path).size) > 400


def test_stats_print_a_table_and_bad_records(capsys, tmp_path):
  good = {"id": "a", "messages": [{"role": "user", "content": "one ?"}]}
  good["messages"].append({"role": "assistant", "content": "two"})
  file = tmp_path / "train.jsonl"
  file.write_text("".join(json.dumps(good) + "\n" for _ in range(9)) + '{"id": 1}\n')
  config = ["--config=experiments/finetune_vqa.py:tiny", f"--config.train_file={file}"]
  shown = said(capsys, "stats", *config, "--steps=3", "--config.rows=2")
  assert re.search(r"^bad records of mine: [1-9]\d* format$", shown, re.MULTILINE), shown
  assert "useful over paid" in shown and "measured on this machine" in shown


def test_shapes_print_lines_that_an_experiment_takes(capsys, tmp_path):
  made = lengths.collect(lengths_made.mixed(400))
  made.save(tmp_path / "lengths.npz")
  arguments = ["--model=tiny", "--tokens=256", "--rows=2", "--lookahead=32", "--patience=800"]
  shown = said(
    capsys, "shapes", f"--lengths={tmp_path / 'lengths.npz'}", *arguments, "--sample=600"
  )
  cfg = quickstart.get_config()
  with cfg.unlocked():
    cfg.shapes = ast.literal_eval(shown.split("c.shapes = ")[1])
  found = settings.step_shapes(cfg.shapes, 2)
  assert "c.rows = 2" in shown and len(found) == 3
  specs = hulu.specs(presets.TINY)
  cost = params.count(specs["vision"]) / params.count(specs["decoder"]["layers"])
  use = shapes_lib.measure(made, found, cost, lookahead=32, patience=800, records=600)
  assert f"{use.flops:.3f} is used by FLOPs" in shown and use.refused == 0


@pytest.mark.parametrize("verb", ["stats", "shapes"])
def test_a_stage_that_there_is_not(verb, capsys):
  line = refused(capsys, verb, *QUICKSTART, "--stage=align")
  assert "no stage 'align'; there are: all" in line


def test_shapes_of_an_experiment(capsys):
  shown = said(capsys, "shapes", *QUICKSTART, "--records=60", "--sample=200")
  assert "c.rows = 20" in shown and '"tokens": 120' in shown
  assert "# Found on 60 records" in shown and not shown.startswith("lengths")


def picture(seed):
  coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
  return Image.fromarray(coarse).resize((90, 80), Image.Resampling.BICUBIC)


def line(name, text, *files):
  items = [{"type": "image", "path": file} for file in files]
  content = [*items, {"type": "text", "text": text}]
  messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Secret."}]
  return json.dumps({"id": name, "messages": messages})


@pytest.fixture
def folder(tmp_path):
  for k in range(4):
    picture(k).save(tmp_path / f"{k}.png")
  picture(1).save(tmp_path / "again.jpg", quality=60)
  rows = [
    line("Mueller", "Describe.", "0.png"),
    line("Meier", "Describe.", "1.png"),
    "not JSON",
    "",
    line("Schulz", "describe", "again.jpg"),
    line("Weber", "Describe.", "gone.png"),
    line("Wagner", "Is it left?"),
    line("Becker", "IS IT LEFT"),
  ]
  (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n")
  asked = [line("b", "Where is it?", "1.png"), line("c", "What is asthma?")]
  (tmp_path / "bench.jsonl").write_text("\n".join(asked) + "\n")
  return tmp_path


def test_dedup_reports_numbers_and_writes_what_stays(folder, capsys):
  report, kept = folder / "report.json", folder / "unique.jsonl"
  shown = said(
    capsys, "dedup", f"--input={folder / 'train.jsonl'}", f"--output={report}", f"--write={kept}"
  )
  assert "unread: 1 format, 1 missing" in shown and "duplicates 2" in shown
  found = json.loads(report.read_text())
  pairs = [(p["kept"]["record"], p["dropped"]["record"]) for p in found["pairs"]]
  assert pairs == [(1, 3), (5, 6)]
  assert found["pairs"][0]["media"] == "near" and found["pairs"][0]["text"] == "equal"
  assert "media" not in found["pairs"][1]
  lines = [text for text in (folder / "train.jsonl").read_text().splitlines() if text]
  assert kept.read_text().splitlines() == [lines[k] for k in (0, 1, 2, 4, 5)]
  assert found["bytes_per_record"] > 16


def test_reports_name_nobody_unless_asked(folder, capsys):
  report = folder / "report.json"
  arguments = ["dedup", f"--input={folder / 'train.jsonl'}", f"--output={report}"]
  shown = said(capsys, *arguments)
  first = report.read_text()
  for word in ("Meier", "Schulz", "Wagner", "left", "Describe", "Secret", "again.jpg"):
    assert word not in first + shown
  said(capsys, *arguments)
  ids = [json.loads(t)["pairs"][0]["kept"]["id"] for t in (first, report.read_text())]
  assert ids[0] != ids[1]  # under another key
  said(capsys, *arguments, "--show-text")
  assert json.loads(report.read_text())["pairs"][0]["kept"]["id"] == "Meier"
  assert "Is it left?" in report.read_text()


def test_two_files_are_one_set(folder, capsys):
  other = folder / "more.jsonl"
  other.write_text(line("x", "Describe!", "0.png") + "\n" + line("y", "New.", "0.png") + "\n")
  report, kept = folder / "report.json", folder / "unique.jsonl"
  inputs = [f"--input={folder / 'train.jsonl'}", f"--input={other}"]
  said(capsys, "dedup", *inputs, f"--output={report}", f"--write={kept}", "--threads=2")
  pair = json.loads(report.read_text())["pairs"][-1]
  assert pair["kept"]["set"].endswith("train.jsonl") and pair["kept"]["record"] == 0
  assert pair["dropped"]["set"].endswith("more.jsonl") and pair["dropped"]["record"] == 0
  assert len(kept.read_text().splitlines()) == 6


def test_decontaminate_takes_the_training_side_out(folder, capsys):
  report, kept = folder / "report.json", folder / "clean.jsonl"
  arguments = [f"--input={folder / 'train.jsonl'}", f"--against={folder / 'bench.jsonl'}"]
  shown = said(capsys, "decontaminate", *arguments, f"--output={report}", f"--write={kept}")
  assert "records that leak 2" in shown
  hits = json.loads(report.read_text())["hits"]
  assert [(h["record"]["record"], h["benchmark"]["record"], h["media"]) for h in hits] == [
    (1, 0, "equal"),
    (3, 0, "near"),
  ]
  lines = [text for text in (folder / "train.jsonl").read_text().splitlines() if text]
  assert kept.read_text().splitlines() == [lines[k] for k in (0, 2, 4, 5, 6)]
  assert "Meier" not in report.read_text()


def test_a_benchmark_is_a_dataset_in_its_test_split(capsys, tmp_path):
  """The questions of the quick start's test split, planted in a training file."""
  report = tmp_path / "report.json"
  fields = "kind=text,seed=5,size=6,pool=0,fade=0"
  training = f"synthetic_disc:{fields},split=test"
  arguments = [f"--input={training}", f"--output={report}", "--common=1"]
  said(capsys, "decontaminate", *arguments, f"--against=synthetic_disc:{fields}")
  assert json.loads(report.read_text())["counts"]["records that leak"] == 6


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["statz"], "no command 'statz'; there are: stats, shapes, dedup, decontaminate"),
    (["stats"], "needs --config"),
    (["stats", "--config=experiments/quickstart.py", "--stepz=3"], "--stepz=3"),
    (["stats", "--config=experiments/quickstart.py", "--config.row=3"], "rows"),
    (["shapes", "--tokens=64"], "without --config needs --rows"),
    (["dedup"], "--input"),
    (["dedup", "--input=/no/such.jsonl"], "/no/such.jsonl"),
    (["dedup", "--input=nothing:root=/"], "no 'nothing' in hulu_jax.data.datasets"),
    (["decontaminate", "--input=/no/such.jsonl"], "--against"),
  ],
)
def test_refusals(arguments, message, capsys):
  line = refused(capsys, *arguments)
  assert line.startswith("hulu data") and message in line


def test_lines_of_a_dataset_cannot_be_written(folder, capsys):
  inputs = ["--input=synthetic_disc:kind=text,split=train,seed=0,size=3,pool=0,fade=0"]
  assert "copies lines of .jsonl" in refused(
    capsys, "dedup", *inputs, f"--write={folder / 'x.jsonl'}"
  )
  assert not (folder / "x.jsonl").exists()


def test_looking_for_duplicates_starts_without_jax(root):
  code = "import sys; from hulu_jax.cli import main, data, _data_dedup, _data_leakage\n"
  code += "assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
