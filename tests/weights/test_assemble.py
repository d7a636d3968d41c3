"""Models put together from parts, .bin files, run folders of the trainer, names on the hub."""

import json
import subprocess
import sys
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import hulu_jax
from hulu_jax.cli import convert
from hulu_jax.data import vision
from hulu_jax.weights import checkpoint
from hulu_jax.weights import load
from hulu_jax.weights import sources
from tests.weights import written

SIZE = written.QWEN3


def run(*arguments) -> int:
  return convert.main([str(a) for a in arguments])


def part(path, names, config=None, prefix="") -> dict[str, np.ndarray]:
  """A folder that holds one part alone."""
  path.mkdir()
  arrays = written.filled({f"{prefix}{name}": shape for name, shape in names})
  written.save(path / "model.safetensors", arrays)
  if config is not None:
    (path / "config.json").write_text(json.dumps(config))
  return arrays


@pytest.fixture
def parts(tmp_path):
  """A Qwen decoder, a SigLIP-NaViT encoder and a projector, each as it is published."""
  whole = written.config(SIZE, "transformers")
  names = [*((f"model.{n}", s) for n, s in written.decoder(SIZE)),
           ("lm_head.weight", (SIZE.vocab, SIZE.hidden))]  # fmt: skip
  text = dict(whole["text_config"])
  theta = text.pop("rope_parameters")["rope_theta"]
  found = {
    "qwen": part(tmp_path / "qwen", names, text | {"rope_theta": theta, "model_type": "qwen3"}),
    "eye": part(tmp_path / "eye", written.encoder(SIZE), whole["vision_config"]),
  }
  found["mm"] = written.filled({f"model.mm_projector.{n}": s for n, s in written.readout(SIZE)})
  written.save(tmp_path / "mm_projector.safetensors", found["mm"])
  return tmp_path, found


def test_three_parts_are_one_model(parts):
  root, found = parts
  add = (f"--add={root / 'eye'}", f"--add={root / 'mm_projector.safetensors'}")
  assert run(root / "qwen", root / "b", "--to=hulu-med", *add) == 0
  want = {
    **found["qwen"],
    **{f"model.vision_encoder.{name}": array for name, array in found["eye"].items()},
    **found["mm"],
  }
  assert written.read(root / "b") == written.as_read(want)
  assert run(root / "qwen", root / "run", "--to=hulu_jax", *add) == 0
  assert hulu_jax.load(root / "run").config == load.read_config(root / "b")


def test_what_is_missing_is_said_and_may_be_drawn_anew(parts, capsys):
  root, found = parts
  assert run(root / "qwen", root / "b", "--to=hulu-med", f"--add={root / 'eye'}") == 2
  said = capsys.readouterr().err
  assert "no projector: " in said and "qwen holds decoder" in said and "eye holds vision" in said
  assert "--fresh=projector" in said
  assert run(root / "eye", root / "b", "--to=hulu-med") == 2
  assert "no projector and no decoder" in capsys.readouterr().err
  for target, seed in (("b", 0), ("c", 0), ("d", 1)):
    fresh = ("--fresh=projector", f"--seed={seed}", f"--add={root / 'eye'}")
    assert run(root / "qwen", root / target, "--to=hulu-med", *fresh) == 0
    assert f"projector drawn anew from seed {seed}" in capsys.readouterr().out
  b, c, d = (written.read(root / name) for name in "bcd")
  assert b == c and {n for n in b if b[n] != d[n]} == {
    "model.mm_projector.readout.0.weight",
    "model.mm_projector.readout.2.weight",
  }
  drawn = np.frombuffer(b["model.mm_projector.readout.0.weight"][2], np.float32)
  assert drawn.std() == pytest.approx(SIZE.vision_hidden**-0.5, rel=0.1)


def test_a_decoder_is_never_drawn_anew(parts, capsys):
  root, _ = parts
  assert run(root / "qwen", root / "b", "--to=hulu-med", "--fresh=decoder") == 2
  assert "--fresh=decoder; expected some of vision, projector" in capsys.readouterr().err


def test_a_projector_of_another_run_replaces_that_of_a_whole_model(parts):
  root, found = parts
  arrays = written.folder(root / "a", SIZE, "hulu-med", "F32")
  add = f"--add={root / 'mm_projector.safetensors'}"
  assert run(root / "a", root / "b", "--to=hulu-med", add) == 0
  assert written.read(root / "b") == written.as_read(arrays | found["mm"])


def test_a_model_in_parts_is_verified_where_it_is_whole(parts, monkeypatch, capsys):
  root, _ = parts
  add = (f"--add={root / 'eye'}", "--fresh=projector", "--verify")
  monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
  assert run(root / "qwen", root / "b", "--to=hulu_jax", *add) == 2
  assert "SRC is in parts" in capsys.readouterr().err
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  assert run(root / "qwen", root / "b", "--to=hulu-med", *add) == 2
  assert "--verify needs torch: pip install 'hulu_jax[verify]'" in capsys.readouterr().err
  assert not (root / "b").exists()


def test_a_part_alone_is_no_model_to_load(parts):
  root, _ = parts
  with pytest.raises(ValueError, match="those of decoder alone, without vision; hulu convert puts"):
    load.read_config(root / "qwen")


def torch():
  return pytest.importorskip("torch", reason="writes .bin files: install extra 'verify'")


def test_bin_files(parts, tmp_path):
  """As the original training code saves: sharded with an index; a projector alone."""
  arrays = written.folder(tmp_path / "a", SIZE, "hulu-med-local")
  (tmp_path / "a" / "model.safetensors").unlink()
  tensors = {name: torch().from_numpy(array).bfloat16() for name, array in arrays.items()}
  names = list(tensors)
  where = {}
  for i, own in enumerate((names[:50], names[50:])):
    file = f"pytorch_model-{i + 1:05d}-of-00002.bin"
    torch().save({name: tensors[name] for name in own}, tmp_path / "a" / file)
    where |= dict.fromkeys(own, file)
  (tmp_path / "a" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
  torch().save({"x": 1}, tmp_path / "a" / "training_args.bin")
  with pytest.raises(ValueError, match="hulu convert reads .bin files"):
    hulu_jax.load(tmp_path / "a")
  assert run(tmp_path / "a", tmp_path / "b", "--to=hulu-med-local") == 0
  want = {name: array.astype(written.TYPES["BF16"]) for name, array in arrays.items()}
  assert written.read(tmp_path / "b") == written.as_read(want)
  assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


class Evil:
  def __reduce__(self):
    return print, ("code ran",)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
  "content", ["code", pytest.param("list", marks=SLOW), pytest.param("numbers", marks=SLOW)]
)
def test_bin_files_that_are_no_tensors(tmp_path, capfd, content):
  written.folder(tmp_path / "a", SIZE, "hulu-med-local")
  (tmp_path / "a" / "model.safetensors").unlink()
  evil = {
    "code": {"x": Evil()},
    "list": [torch().zeros(2)],
    "numbers": {"x": torch().zeros(2, dtype=torch().int64)},
  }
  torch().save(evil[content], tmp_path / "a" / "pytorch_model.bin")
  assert run(tmp_path / "a", tmp_path / "b", "--to=hulu_jax") == 2
  found = capfd.readouterr()
  assert "torch with weights_only refuses" in found.err and "code ran" not in found.out + found.err
  assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_reading_a_bin_file_needs_no_jax():
  """The process that opens a pickle loads as little as can be."""
  code = (
    "import sys, hulu_jax.weights.unpickle; print('jax' in sys.modules, 'torch' in sys.modules)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("meshed", [False, pytest.param(True, marks=SLOW)])
def test_a_run_of_the_trainer(tmp_path, mesh_2x2x2, meshed):
  """Saved by Orbax as training does: compressed, in its own order, whole stacks in a chunk."""
  arrays = written.folder(tmp_path / "a", written.Size(vision_hidden=32, heads=4), "hulu-med")
  config = load.read_config(tmp_path / "a")
  params = load.load_params(tmp_path / "a", config, mesh_2x2x2 if meshed else None)
  run_folder = tmp_path / "run"
  run_folder.mkdir()
  checkpoint.write_description(run_folder, config, vision.HULUMED)
  with ocp.CheckpointManager(checkpoint.folder(run_folder)) as manager:
    for step in (3, 12):
      state = {"step": jax.numpy.int32(step), "params": params, "opt": {"m": params}}
      if step == 3:
        state["params"] = jax.tree.map(lambda x: x + 1, params)
      manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))
  assert run(run_folder, tmp_path / "b", "--to=hulu-med") == 0
  assert written.read(tmp_path / "b") == written.as_read(arrays)


def test_stacks_are_read_in_parts_that_fit(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, "_GROUP", 9000)
  test_a_run_of_the_trainer(tmp_path, None, False)


def test_a_lost_file_of_a_run_is_an_error(tmp_path, capsys):
  written.folder(tmp_path / "a", SIZE, "hulu-med")
  assert run(tmp_path / "a", tmp_path / "run", "--to=hulu_jax") == 0
  next((tmp_path / "run").rglob("params.decoder.layers.up/c.1.0.0")).unlink()
  assert run(tmp_path / "run", tmp_path / "b", "--to=hulu-med") == 2
  assert "params.decoder.layers.up" in capsys.readouterr().err


def test_a_name_on_the_hub(tmp_path, monkeypatch, capsys):
  """By a stand-in for the hub: which files are asked for, and that the commit is printed."""
  commit = "0123456789abcdef0123456789abcdef01234567"
  asked = {}
  written.folder(tmp_path / commit, SIZE, "hulu-med")

  def snapshot_download(name, revision, allow_patterns):
    asked.update(name=name, revision=revision, patterns=allow_patterns)
    return str(tmp_path / commit)

  class HfApi:
    def list_repo_files(self, name, revision):
      return ["model.safetensors", "modeling_hulumed.py"]

  hub = types.SimpleNamespace(snapshot_download=snapshot_download, HfApi=HfApi)
  monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
  monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
  assert run("someone/model", tmp_path / "b", "--to=transformers", "--revision=v1") == 0
  assert f"someone/model: revision {commit}" in capsys.readouterr().out
  assert (asked["name"], asked["revision"]) == ("someone/model", "v1")
  assert not [p for p in asked["patterns"] if "py" in p or "bin" in p]
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  assert run("someone/model", tmp_path / "c", "--to=transformers") == 2
  assert "names of the hub need the package huggingface_hub" in capsys.readouterr().err
