"""`hulu plan` as a user types it: what it prints, what it refuses, and what it says then."""

import importlib.util
from pathlib import Path
import re

import pytest

from hulu_jax.cli import _compilers
from hulu_jax.cli import main

QUICKSTART = "--config=experiments/quickstart.py"
# Four shards of a machine whose chips hold it many times.
FITS = ("--topology=v5e:2x2", "--mesh=data=2,fsdp=2", "--config.rows=8", "--estimate")


@pytest.fixture(autouse=True)
def at_root(root, monkeypatch):
  monkeypatch.chdir(root)


def plan(capsys, *args):
  """(exit code, what was printed, errors)."""
  code = main.main(["plan", *args])
  told = capsys.readouterr()
  return code, told.out, told.err


def row(shown, shape):
  """The numbers of a step shape, of both tables."""
  lines = [line.split()[1:] for line in shown.splitlines() if line.strip().startswith(f"{shape} ")]
  return [cell for line in lines for cell in line]


def test_an_estimate(capsys):
  code, shown, _ = plan(capsys, QUICKSTART, *FITS, "--utilisation=0.5")
  assert code == 0
  assert "tiny, stage all: 2500 steps of 8 rows on v5e:2x2 (4 chips), mesh data 2 x fsdp 2" in shown
  assert "parameters 0.334 M, of which 0.334 M train (100.0%)" in shown
  state, batch, saved, working, total, compiled, *work = row(shown, "all")
  parts = [float(n) for n in (state, batch, saved, working)]
  assert float(total) == pytest.approx(sum(parts), rel=0.05) and compiled == "-"
  # 12 bytes for a parameter, over the two ways of fsdp, and what is too small to spread.
  assert parts[0] * 1e9 == pytest.approx(12 * 0.334e6 / 2, rel=0.1)
  encoder, decoder, head, everything, again, seconds = work
  assert float(everything) == pytest.approx(float(encoder) + float(decoder) + float(head), rel=0.01)
  assert 10 < int(again.rstrip("%")) < 40  # both stacks are made again
  assert float(seconds) < 0.01
  assert "at 50% of 197 TFLOP/s" in shown and "fits: a chip needs" in shown
  assert "advice: --config.compute.vision_remat=none --config.compute.decoder_remat=none" in shown


def test_what_does_not_fit_says_what_to_turn(capsys):
  argument = "--config=experiments/finetune_vqa.py:7b,full"
  shape = ("--config.shapes.pictures.tokens=16384", "--config.rows=1")
  code, shown, _ = plan(
    capsys, argument, "--topology=h100:1", "--mesh=fsdp=1", *shape, "--estimate"
  )
  assert code == 2
  assert re.search(r"does not fit: a chip would need \d+\.\d+ of 80 GB \(1\d\d%\)", shown)
  assert "advice: weights, moments and gradients alone take 128.7" in shown
  assert "config.peft" in shown.splitlines()[-1]


def test_all_stages_or_one(capsys, tmp_path):
  experiment = tmp_path / "staged.py"
  experiment.write_text(
    "from experiments import quickstart\n\n\n"
    "def get_config():\n"
    "  c = quickstart.get_config()\n"
    "  align = {'name': 'align', 'steps': 100, 'trainable': 'projector/.*'}\n"
    "  c.stages = (align, {'name': 'tune', 'steps': 200})\n"
    "  return c\n"
  )
  config = f"--config={experiment}"
  code, shown, _ = plan(capsys, config, *FITS)
  assert code == 0
  assert "stage align: 100 steps" in shown and "stage tune: 200 steps" in shown
  assert "(2.5%)" in shown and "(100.0%)" in shown
  code, shown, _ = plan(capsys, config, *FITS, "--stage=tune")
  assert "stage align" not in shown and "stage tune" in shown
  code, _, err = plan(capsys, config, *FITS, "--stage=tone")
  assert code == 2 and "no stage 'tone'; there are: align, tune" in err


@pytest.mark.parametrize(
  ("args", "message"),
  (
    ((), "needs --config=EXPERIMENT.py"),
    ((QUICKSTART, "--topology=v9:2x2"), "no chip 'v9'; there are: v5e, v5p"),
    ((QUICKSTART, "--topology=v5p:2x2"), "v5p has 3 numbers, like v5p:4x4x4"),
    (
      (QUICKSTART, "--topology=v5e:2x2"),
      "(data, fsdp, context, tensor) has 1 devices, v5e:2x2 has 4; say for example --mesh=fsdp=4",
    ),
    ((QUICKSTART, "--mesh=fdsp=4"), "--mesh=fdsp=4; expected data=N,fsdp=N,context=N,tensor=N"),
    ((QUICKSTART, "--mesh=fsdp=3", "--config.rows=9"), "64 does not divide over mesh axes fsdp (3"),
    ((QUICKSTART, "--mesh=fsdp=8"), "rows = 20; this mesh needs a multiple of 8"),
    ((QUICKSTART, "--utilisation=40"), "--utilisation=40.0; expected a fraction of the peak"),
    ((QUICKSTART, "--config.stepz=3"), 'Did you mean "steps"'),
    ((QUICKSTART, "--compilers=/nowhere"), "--compilers: no folder /nowhere"),
    ((QUICKSTART, "--topologie=v5e:2x2"), "unrecognized arguments: --topologie=v5e:2x2"),
  ),
)
def test_bad_input_is_one_line(args, message, capsys):
  if not args:
    args = ("--estimate",)
  code, shown, err = plan(capsys, *args)
  assert code == 2 and not shown
  assert len(err.splitlines()) == 1 and message in err


def test_emulated_devices_compile_where_no_compiler_is(capsys):
  """And their memory, which is that of no chip, does not decide."""
  if importlib.util.find_spec("libtpu"):
    pytest.skip("libtpu is installed: it would compile")
  args = [a for a in FITS if a != "--estimate"]
  code, shown, err = plan(capsys, QUICKSTART, *args)
  assert code == 0, err
  assert "no compiler for v5e here: emulated CPU devices stand in" in shown
  estimate, compiled = (float(n) for n in row(shown, "all")[4:6])
  assert 0.2 * estimate < compiled < 5 * estimate


def test_compilers_are_found_in_their_folder(tmp_path):
  assert not _compilers.there("cuda", tmp_path) or importlib.util.find_spec("jax_cuda13_plugin")
  (tmp_path / "libtpu").mkdir()
  assert _compilers.there("tpu", tmp_path)
  own = _compilers.environment("cpu", 16, [tmp_path, Path("/b")])
  assert own["JAX_NUM_CPU_DEVICES"] == "16" and own["PYTHONPATH"] == f"{tmp_path}:/b"


@pytest.mark.slow
@pytest.mark.repository
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
  ("argument", "topology", "mesh", "rows"),
  (
    ("7b,full", "v5e:16x16", "data=2,fsdp=128", 256),
    ("32b,full", "v5p:4x4x8", "fsdp=128", 128),
  ),
)
def test_the_estimate_is_within_15_percent_of_the_compiler(
  argument, topology, mesh, rows, capsys, root
):
  """Of whole steps on both pods: minutes each."""
  folders = sorted((root / "build" / "aot").glob("libtpu-*"))
  if not folders and not importlib.util.find_spec("libtpu"):
    pytest.skip("no libtpu: `python benchmarks/aot.py --only=steps` installs it into build/aot")
  compilers = [f"--compilers={folders[-1]}"] if folders else []
  config = (f"--config=experiments/finetune_vqa.py:{argument}", f"--config.rows={rows}")
  where = (f"--topology={topology}", f"--mesh={mesh}")
  code, shown, err = plan(capsys, *config, *where, *compilers)
  assert code == 0, err
  for shape in ("pictures", "grey_stacks", "colour_stacks"):
    estimate, compiled = (float(n) for n in row(shown, shape)[4:6])
    assert estimate == pytest.approx(compiled, rel=0.15), shown
