"""`hulu prepare` as a user calls it: shards, lengths, verification, and what it refuses."""

import json

import pytest

from hulu_jax.cli import _dataset_spec
from hulu_jax.cli import main
from hulu_jax.data import pipeline
from hulu_jax.data import stored_lengths
from hulu_jax.data.datasets import jsonl
from hulu_jax.data.datasets import prepared
from hulu_jax.data.prepare import Input
from tests.data import records_made


def prepare(*args):
  return main.main(["prepare", *map(str, args)])


def refused(capsys, *args):
  assert prepare(*args) == 2
  (line,) = capsys.readouterr().err.splitlines()
  return line


@pytest.fixture
def plain(root, tokenizer, tmp_path, monkeypatch):
  """The arguments that say what to prepare, from a folder of records."""
  monkeypatch.chdir(root)
  folder = tmp_path / "plain"
  folder.mkdir()
  tokenizer.save(folder)
  return [
    f"--input={records_made.write(folder)}",
    f"--root={folder}",
    f"--tokenizer={folder}",
    "--config=experiments/finetune_vqa.py:tiny",
    "--config.policy.max_tokens=200",
    "--config.data.cut=False",  # the test that trains has other shapes
  ]


def test_shards_then_verified_then_read(plain, tmp_path, capsys):
  output = tmp_path / "out"
  for shard in (1, 0):
    assert prepare(*plain, f"--output={output}", f"--shard={shard}/2") == 0
  shown = capsys.readouterr().out
  assert "shard 1 of 2 made: 6 records" in shown and "bad: 1 format" in shown
  assert "shard 0 of 2 made: 5 records" in shown and "bad: 1 missing" in shown
  assert prepare(*plain, f"--output={output}", "--shard=0/2") == 0
  assert "shard 0 of 2 is there, verified" in capsys.readouterr().out
  assert prepare(f"--verify={output}") == 0
  assert "2 shards as they were written: 11 records, bad: 1 format, 1 missing" in (
    capsys.readouterr().out
  )
  assert len(prepared.Source(path=str(output))) == 11
  manifest = json.loads((output / "shard-00000-of-00002.json").read_text())
  assert manifest["made"]["policy"]["max_tokens"] == 200
  assert manifest["made"]["input"]["fields"] == {"path": "train.jsonl"}


def test_lengths_only(plain, tmp_path):
  output = tmp_path / "lengths"
  assert prepare(*plain, f"--output={output}", "--lengths-only") == 0
  assert sorted(p.name for p in output.iterdir()) == [
    "shard-00000-of-00001.bad.jsonl",
    "shard-00000-of-00001.json",
    "shard-00000-of-00001.lengths.npz",
  ]
  path = plain[0].removeprefix("--input=")
  source = jsonl.Source(path=path, lengths=str(output))
  assert isinstance(source.lengths, stored_lengths.Stored)
  with pytest.raises(ValueError, match="holds lengths only"):
    prepared.Source(path=str(output))


def test_a_damaged_shard_fails_verification(plain, tmp_path, capsys):
  output = tmp_path / "out"
  assert prepare(*plain, f"--output={output}") == 0
  path = output / "shard-00000-of-00001.lengths.npz"
  path.write_bytes(path.read_bytes()[:-1] + b"?")
  line = refused(capsys, f"--verify={output}")
  assert "shard-00000-of-00001.lengths.npz is damaged" in line and "--force" in line


def test_a_dataset_of_the_package_without_an_experiment(plain, tmp_path):
  fields = "kind=text,split=train,seed=0,size=20,pool=0,fade=0.5"
  arguments = [f"--input=synthetic_disc:{fields}", plain[2], f"--output={tmp_path / 'out'}"]
  assert prepare(*arguments, "--threads=2") == 0
  assert prepared.Source(path=str(tmp_path / "out"))[3]["id"] == "disc-text-train-3"


EXPERIMENT = """
import ml_collections
from experiments import finetune_vqa

def get_config(folder):
  c = finetune_vqa.get_config("tiny,full")
  c.data.mixture = (
    ml_collections.ConfigDict(
      {"name": "prepared", "label": "mine", "weight": 1.0, "shuffle": True, "path": folder}
    ),
  )
  c.policy.max_tokens, c.optimizer.warmup = 200, 0.5
  c.data.cut = False  # prepared without an experiment, so without shapes to cut to
  c.mesh.data, c.steps, c.rows, c.report_every = 8, 2, 8, 1
  groups = ((2, 64, 3, 1), (2, 64, 1, 1), (8, 64, 1, 2), (2, 64, 3, 2))
  c.shapes = {
    "light": {"tokens": 96, "supervised": 48, "visual": 4, "groups": ()},
    "heavy": {"tokens": 400, "supervised": 64, "visual": 300, "groups": groups},
  }
  return c
"""


def test_training_plans_by_the_stored_lengths(plain, tmp_path, capsys, monkeypatch):
  """Up to the iterator: two step shapes on several data shards are refused without a plan."""
  made = []
  train_iterator = pipeline.train_iterator

  def begin(data, *rest):
    made.append((data, train_iterator(data, *rest)))
    raise ValueError("enough")

  monkeypatch.setattr(pipeline, "train_iterator", begin)
  output, experiment = tmp_path / "out", tmp_path / "mine.py"
  assert prepare(*plain, f"--output={output}") == 0
  experiment.write_text(EXPERIMENT)
  train = ["train", f"--config={experiment}:{output}", f"--workdir={tmp_path / 'run'}", plain[2]]
  train[-1] = train[-1].replace("--tokenizer", "--config.tokenizer")
  assert main.main([*train, "--config.policy.max_tokens=100"]) == 2
  assert "policy.max_tokens was 200, is 100" in capsys.readouterr().err
  assert not made
  assert main.main(train) == 2
  assert "enough" in capsys.readouterr().err
  ((data, iterator),) = made
  iterator.close()
  assert [len(known) for known in data.lengths] == [11]


@pytest.mark.parametrize(
  ("drop", "add", "message"),
  [
    ("--tokenizer", [], "needs --tokenizer=FOLDER"),
    ("--input", [], "needs --input and --output, or --verify"),
    ("--none", ["--shard=2/2"], "--shard=2/2; expected I/N with I from 0 to N-1"),
    ("--none", ["--shard=two"], "--shard=two; expected I/N"),
    ("--none", ["--shards=2"], "Unknown command line flag 'shards'"),
    ("--none", ["--config.policy.max_token=2"], 'Did you mean "max_tokens"'),
    ("--input", ["--input=jsonll:path=x"], "no 'jsonll' in hulu_jax.data.datasets; there are"),
    ("--input", ["--input=jsonl:file=x"], "its fields are path: str"),
    ("--input", ["--input=jsonl:x"], "'x'; expected FIELD=VALUE"),
    ("--input", ["--input=/nowhere/a.jsonl"], "No such file or directory: '/nowhere/a.jsonl'"),
  ],
)
def test_what_is_refused(plain, drop, add, message, tmp_path, capsys):
  arguments = [a for a in plain if not a.startswith(drop)]
  line = refused(capsys, *arguments, f"--output={tmp_path / 'out'}", *add)
  assert line.startswith("hulu prepare: ") and message in line
  assert not (tmp_path / "out").exists()


def test_other_inputs_are_refused(plain, tmp_path, capsys):
  assert prepare(*plain, f"--output={tmp_path / 'out'}") == 0
  line = refused(capsys, *plain, f"--output={tmp_path / 'out'}", "--config.policy.merge.image=2")
  assert "policy.merge.image was 1, is 2" in line


@pytest.mark.parametrize(
  ("text", "want"),
  [
    ("/a/b.jsonl", Input("jsonl", {"path": "/a/b.jsonl"})),
    ("/a/b.parquet", Input("parquet", {"path": "/a/b.parquet"})),
    ("jsonl:path=/a/b.jsonl", Input("jsonl", {"path": "/a/b.jsonl"})),
    (
      "synthetic_disc:kind=2D,size=3,fade=0.5,held=false",
      Input("synthetic_disc", {"kind": "2D", "size": 3, "fade": 0.5, "held": False}),
    ),
    ("pubmedqa", Input("pubmedqa", {})),
  ],
)
def test_a_dataset_on_the_command_line(text, want):
  assert _dataset_spec.parse(text) == want
