"""A run of seconds over text, pictures and volumes in files, and how to start it in processes.

As an experiment file: `--config=tests/training/small_run.py:KIND@FOLDER`, after `write(FOLDER)`.
"""

import dataclasses
import json
import os
from pathlib import Path
import socket
import subprocess
import sys

import ml_collections
import numpy as np
from PIL import Image

from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data.examples import Builder
from hulu_jax.models import presets
from hulu_jax.training import build

ROOT = Path(__file__).parents[2]
STEPS = 6
# Rows: (tokens, supervised, visual, groups).  Texts fit the first, pictures the second.
TEXT = (80, 24, 8, ())
# Four devices of context may share a row: its slots, and its tokens in eight chunks.
PICTURE = (104, 24, 36, ((4, 12, 1, 1),))
VOLUME = (120, 24, 48, ((4, 12, 1, 1), (4, 16, 1, 2)))
# Kind of run -> its step shapes.  `plain` has no lengths: each shard packs its own records; `asked`
# is `planned` with an evaluation.
SHAPES = {
  "planned": {"picture": PICTURE, "volume": VOLUME},
  "asked": {"picture": PICTURE, "volume": VOLUME},
  "three": {"text": TEXT, "picture": PICTURE, "volume": VOLUME},
  "plain": {"volume": VOLUME},
}
# Heads for a tensor axis over all of eight devices, under a name that --config.model understands.
_TINY = presets.TINY
presets.PRESETS["eight-heads"] = dataclasses.replace(
  _TINY,
  vision=dataclasses.replace(_TINY.vision, heads=8),
  decoder=dataclasses.replace(_TINY.decoder, heads=8, kv_heads=8),
)
# Compiles in half the time, the same on any number of processes.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def get_config(kind_and_folder: str) -> ml_collections.ConfigDict:
  """A kind of SHAPES over the data in a folder, on one device."""
  kind, folder = kind_and_folder.split("@")
  c = ml_collections.ConfigDict()
  c.evaluation = c.profile = c.peak_flops = None
  c.trackers = ("tensorboard",)
  c.seed, c.model, c.report_every = 3, "tiny", 1
  c.steps = ml_collections.config_dict.placeholder(int)
  c.epochs = ml_collections.config_dict.placeholder(int)
  c.steps = STEPS
  c.stages = ()
  c.init_from = ml_collections.config_dict.placeholder(str)
  c.tokenizer = folder
  c.mesh = {"data": 1, "fsdp": 1, "context": 1, "tensor": 1}
  c.compute = {"dtype": "float32", "vision_remat": "none", "decoder_remat": "none"}
  c.compute.vision_pass = ml_collections.config_dict.placeholder(int)
  c.compute.loss_chunk = ml_collections.config_dict.placeholder(int)
  c.compute.kernels = {
    "visual_tokenizer": "auto",
    "token_compaction": "auto",
    "encoder_attention": "auto",
    "decoder_attention": "auto",
  }
  c.trainable, c.peft = ".*", None
  c.z_loss = 0.0
  c.accumulate = 1
  c.loss_weighting = "token"
  c.ema = ml_collections.config_dict.placeholder(float)
  c.dtypes = {"params": "float32", "frozen": "float32", "moments": "float32"}
  c.optimizer = {
    "learning_rates": {"vision": 1e-3, "projector": 1e-3, "decoder": 1e-3},
    "warmup": 0.34,
    "decay_start": 0.5,
    "final": 0.1,
    "b1": 0.9,
    "b2": 0.99,
    "eps": 1e-6,
    "weight_decay": 0.01,
    "clip": 1.0,
  }
  c.policy = {
    "patch": 14,
    "min_tokens": 1,
    "max_tokens": 48,
    "merge": {"image": 1, "volume": 2, "video": 2},
    "preset": "radiology",
    "compression": {"mode": "off"},
  }
  lengths = None if kind == "plain" else f"{folder}/lengths"
  entry = {
    "name": "jsonl",
    "label": "mine",
    "weight": 1.0,
    "shuffle": True,
    "path": f"{folder}/train.jsonl",
    "lengths": lengths,
  }
  c.data = {
    "root": folder,
    "mixture": (ml_collections.ConfigDict(entry),),
    "lookahead": 8,
    "patience": 60,
    "threads": 2,
    "prefetch": 2,
    "max_bad": 0.0,
    "cut": False,
    "cache": None,
    "cache_bytes": 1_000_000,
    "timeout": None,
  }
  c.rows = 4
  names = ("tokens", "supervised", "visual", "groups")
  c.shapes = {name: dict(zip(names, sizes, strict=True)) for name, sizes in SHAPES[kind].items()}
  if kind == "asked":
    asked = ml_collections.ConfigDict(entry | {"lengths": None, "shuffle": False})
    c.evaluation = {"every": 3, "limit": 15, "new_tokens": 4, "mixture": (asked,)}
  c.checkpoint = {"every": 3, "keep": 4, "keep_every": None, "strict": False}
  return c


def write(folder: Path, tokenizer: tokenizer_lib.Tokenizer) -> None:
  """The data, their lengths, and the tokenizer, into an empty folder."""
  rng = np.random.default_rng(0)
  lines = []
  for number in range(60):
    question = {"type": "text", "text": f"case {number} ; " + "and " * (7 * number % 11)}
    content = [question]
    if number % 3 == 1:
      pixels = rng.integers(0, 256, (28 + 14 * (number % 2), 56), np.uint8)
      Image.fromarray(pixels).save(folder / f"{number}.png")
      content.insert(0, {"type": "image", "path": f"{number}.png"})
    if number % 6 == 2:
      np.save(folder / f"{number}.npy", rng.normal(size=(3, 56, 56)).astype(np.float32))
      content.insert(0, {"type": "volume", "path": f"{number}.npy", "spacing_mm": [3.0, 1.0, 1.0]})
    answer = ("yes", "no", "the left one")[number % 3]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    lines.append(json.dumps({"id": f"r{number}", "messages": messages}) + "\n")
  (folder / "train.jsonl").write_text("".join(lines))
  tokenizer.save(folder)
  measure(folder)


def measure(folder: Path) -> None:
  """The lengths of the data as they are now."""
  subprocess.run(
    [
      *(sys.executable, "-m", "hulu_jax", "prepare", "--lengths-only", "--force"),
      f"--input={folder}/train.jsonl",
      f"--output={folder}/lengths",
      f"--config=tests/training/small_run.py:plain@{folder}",
    ],
    cwd=ROOT,
    check=True,
    capture_output=True,
  )


def builder(folder: Path) -> Builder:
  """Records to examples as the run makes them."""
  policy = build.policy(get_config(f"plain@{folder}").policy)
  return Builder(tokenizer=tokenizer_lib.load(folder), policy=policy, root=folder)


class Run:
  """One run in processes of its own: `hulu train` in each, with flags as a user writes them.

  {process} in a flag is the process's number; log: whether errors list what is compiled.
  """

  def __init__(
    self,
    kind: str,
    folder: Path,
    workdir: Path,
    *flags: str,
    processes: int = 1,
    devices: int = 1,
    log: bool = False,
  ):
    self.workdir = workdir
    port = _free_port()
    self.processes = []
    for number in range(processes):
      own = [flag.replace("{process}", str(number)) for flag in flags]
      if processes > 1:
        own += [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}"]
        own += [f"--process={number}"]
      config = f"--config=tests/training/small_run.py:{kind}@{folder}"
      command = [sys.executable, "-m", "hulu_jax", "train", "--records", config, *own]
      self.processes.append(
        subprocess.Popen(
          [*command, f"--workdir={workdir}"],
          cwd=ROOT,
          env=_environment(folder, devices, log),
          stdout=subprocess.DEVNULL,
          stderr=subprocess.PIPE,
          text=True,
        )
      )

  def finish(self) -> list[tuple[int, str]]:
    """(exit code, errors) of each process."""
    ended = [p.communicate(timeout=240) for p in self.processes]
    return [(p.returncode, err) for p, (_, err) in zip(self.processes, ended, strict=True)]

  def succeed(self) -> "Run":
    """Waits; every process must have ended well."""
    for code, errors in self.finish():
      assert code == 0, errors[-3000:]
    return self

  def lines(self) -> dict[int, dict[str, float]]:
    """What metrics.jsonl says, by step."""
    lines = (self.workdir / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line for line in map(json.loads, lines)}

  def losses(self) -> dict[int, float]:
    """By step, the last time it ran."""
    return {step: line["loss"] for step, line in self.lines().items()}


def records(workdir: Path, process: int = 0) -> list[dict]:
  """What a process of the run listed, a line a step."""
  path = workdir / (f"records-{process}.jsonl" if process else "records.jsonl")
  return [json.loads(line) for line in path.read_text().splitlines()]


def by_step(lines: list[dict]) -> dict[int, tuple]:
  """Step -> (shape, rows of ids); a step that ran twice must have had the same both times."""
  found: dict[int, tuple] = {}
  for line in lines:
    here = (line["shape"], line["rows"])
    assert found.setdefault(line["step"], here) == here
  return found


def _environment(folder: Path, devices: int, log: bool) -> dict[str, str]:
  """Emulated devices, and compiled steps kept from run to run: most of a run's seconds."""
  env = {k: v for k, v in os.environ.items() if k != "NPROC"}
  return env | {
    "XLA_FLAGS": XLA_FLAGS,
    "JAX_NUM_CPU_DEVICES": str(devices),
    "JAX_PLATFORMS": "cpu",
    "JAX_LOG_COMPILES": str(int(log)),
    "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }


def _free_port() -> int:
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]
