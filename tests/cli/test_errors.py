"""What a user sees for bad input: one line that says what was found and expected, exit code 2."""

import json
from pathlib import Path

import pytest

from hulu_jax.cli import main

EXPERIMENT = "--config=experiments/quickstart.py"


def refused(capsys, *args) -> str:
  """Runs a command that must fail; returns its one line."""
  assert main.main([str(a) for a in args]) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1, lines
  return lines[0]


@pytest.fixture(autouse=True)
def at_root(root, monkeypatch):
  monkeypatch.chdir(root)


def test_unknown_command(capsys):
  assert "no command 'trian'; there are: checkpoint, convert, data, evaluate" in refused(
    capsys, "trian"
  )


def test_help_lists_the_commands_and_the_notice(capsys):
  assert main.main(["--help"]) == 0
  shown = capsys.readouterr().out
  assert "inspect" in shown and "not a medical device" in shown


@pytest.mark.parametrize("command", main.commands())
def test_every_command_has_help_with_an_example(command, capsys):
  try:
    assert main.main([command, "--help"]) == 0
  except SystemExit as done:
    assert done.code == 0
  assert f"hulu {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--config.stepz=3", 'Did you mean "steps"'),
    ("--config.steps=three", "steps"),
    ("--config.model=hulu-8b", "no preset 'hulu-8b'; there are: tiny, hulu-4b"),
    ("--config.mesh.data=3", "needs 3 devices, found 8"),
    ("--config.mesh.tensor=8", "decoder/layers/k: kv_heads = 2 does not divide over mesh axes te"),
    ("--config.mesh.context=8", "a shape of tokens = 120 on mesh axis context = 8; expected a mul"),
    ("--config.trainable=encoder/.*", "pattern 'encoder/.*' matches no parameter"),
    ("--config.tokenizer=/nowhere", "no tokenizer in /nowhere"),
    ("--config.compute.decoder_remat=some", "decoder_remat: unknown remat 'some'; there are: none"),
  ],
)
def test_train(flag, message, capsys, tmp_path):
  run = tmp_path / "run"
  devices = [] if "mesh" in flag else ["--config.mesh.data=8", "--config.rows=8"]
  line = refused(capsys, "train", EXPERIMENT, f"--workdir={run}", *devices, flag)
  assert line.startswith("hulu train: ") and message in line
  assert {p.name for p in run.glob("*")} <= {"traceback.txt"}


def test_train_needs_both_flags(capsys):
  assert "needs --config and --workdir" in refused(capsys, "train", EXPERIMENT)


def test_a_missing_experiment_file(capsys, tmp_path):
  line = refused(capsys, "train", "--config=experiments/none.py", f"--workdir={tmp_path}")
  assert "experiments/none.py" in line


def test_an_unknown_size(capsys, tmp_path):
  line = refused(
    capsys, "train", "--config=experiments/finetune_vqa.py:9b", f"--workdir={tmp_path}"
  )
  assert "no size '9b'; there are: 4b, 7b" in line


def test_a_large_model_needs_its_own_tokenizer(capsys, tmp_path):
  devices = ["--config.mesh.data=8", "--config.rows=8", "--config.model=hulu-7b"]
  line = refused(capsys, "train", EXPERIMENT, f"--workdir={tmp_path / 'run'}", *devices)
  assert "hulu-7b needs --config.tokenizer=PATH" in line and not (tmp_path / "run").exists()


def test_records_that_cannot_be_read(capsys, tmp_path):
  file = tmp_path / "train.jsonl"
  record = {
    "id": 1,
    "messages": [{"role": "user", "content": [{"type": "image", "path": "../x.png"}]}],
  }
  file.write_text(json.dumps(record) + "\n")
  arguments = [
    "train",
    "--config=experiments/finetune_vqa.py:tiny,full",
    f"--workdir={tmp_path / 'run'}",
    f"--config.train_file={file}",
    f"--config.data.root={tmp_path}",
    "--config.mesh.data=2",
    "--config.mesh.fsdp=4",
    "--config.rows=8",
    "--config.data.max_bad=0",
  ]
  line = refused(capsys, *arguments)
  assert "a path that leaves its root" in line
  file.write_text("{not json\n")
  assert "line 1: not JSON" in refused(capsys, *arguments)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--model=hulu-8b", "--prompt=x"], "and no preset; presets are tiny, hulu-4b"),
    (["--model=tiny", "--prompt=x", "--image=/no/such.png"], "no such file"),
    (["--model=tiny", "--prompt=what is in <image> ?"], "no --image, --volume or --video"),
  ],
)
def test_generate(arguments, message, capsys):
  line = refused(capsys, "generate", *arguments)
  assert line.startswith("hulu generate: ") and message in line


def test_generate_refuses_what_is_no_picture(capsys, tmp_path):
  for name, data in (("empty.png", b""), ("notes.txt", b"patient notes")):
    file = Path(tmp_path / name)
    file.write_bytes(data)
    line = refused(capsys, "generate", "--model=tiny", "--prompt=x", f"--image={file}")
    assert "patient notes" not in line


def test_evaluate(capsys, tmp_path):
  line = refused(capsys, "evaluate", f"--workdir={tmp_path}", "--benchmark=nothing")
  assert "no 'nothing' in hulu_jax.eval.benchmarks; there are: bccd_mednist, synthetic_disc" in line
  line = refused(capsys, "evaluate", f"--workdir={tmp_path}", "--benchmark=synthetic_disc")
  assert "no run folder" in line
