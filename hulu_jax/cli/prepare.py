"""`hulu prepare`: decodes, resizes and measures a dataset once, shard by shard, before training."""

from collections import Counter
import dataclasses
from pathlib import Path
import sys
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict
from ml_collections import config_flags

from hulu_jax.cli import _dataset_spec
from hulu_jax.cli import _progress
from hulu_jax.data import manifest as manifest_lib
from hulu_jax.data import prepare
from hulu_jax.data import settings
from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data import vision
from hulu_jax.data.examples import Builder
from hulu_jax.data.readers import Readers
from hulu_jax.data.vision import Policy
from hulu_jax.training import build
from hulu_jax.training import stages

_EXAMPLE = """\
usage: hulu prepare --input=SET --output=FOLDER --shard=I/N --config=EXPERIMENT.py [--config.KEY=V]
       hulu prepare --verify=FOLDER

SET is a .jsonl or .parquet file, or NAME:FIELD=VALUE,FIELD=VALUE of a dataset.  Shards are numbered
from 0; each is made by itself, in any order, on any machine, so a job array makes all of them:

  hulu prepare --input=/data/train.jsonl --output=/data/prepared --root=/data \\
    --config=experiments/finetune_vqa.py --tokenizer=/models/Hulu-Med-7B \\
    --shard=$SLURM_ARRAY_TASK_ID/100

The same command again verifies a shard that is there and makes one that is not.  An experiment
then reads {"name": "prepared", "path": "/data/prepared"}.

  --config        whose policy (and tokenizer, data.root, and shapes, if data.cut) to prepare for;
                  without it Hulu-Med's
  --stage         which, where the experiment has several
  --tokenizer     folder with a tokenizer, instead of the experiment's
  --root          where media paths start, instead of the experiment's data.root
  --lengths-only  only measure: the folder is the field `lengths` of a jsonl dataset
  --threads       that decode, each with a process of its own (default 1)
  --timeout       seconds a file may take before it is a bad record (default 120)
  --force         make the shard again, whatever is there"""


class _Arguments(NamedTuple):
  values: Any  # flags by name
  config: ConfigDict | None


def main(argv: list[str]) -> int:
  """Makes or verifies; bad input is one line on stderr and exit code 2."""
  if not argv or {"-h", "--help"} & set(argv):
    print(_EXAMPLE)
    return 0
  try:
    args = _parse(argv)
    if args.values.verify:
      _verify(Path(args.values.verify))
    else:
      _prepare(args)
  # An experiment is Python and its keys are flags: a typo in either surfaces as one of these.
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    print(f"hulu prepare: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  return 0


def _parse(argv: list[str]) -> _Arguments:
  values = flags.FlagValues()
  line = ["hulu prepare", *["--lengths_only" if a == "--lengths-only" else a for a in argv]]
  config = config_flags.DEFINE_config_file(
    "config", None, "Experiment file.", flag_values=values, sys_argv=line
  )
  for name in ("input", "output", "tokenizer", "root", "verify", "stage"):
    flags.DEFINE_string(name, None, "", flag_values=values)
  flags.DEFINE_string("shard", "0/1", "", flag_values=values)
  flags.DEFINE_float("timeout", 120.0, "", lower_bound=0.1, flag_values=values)
  flags.DEFINE_integer("threads", 1, "", lower_bound=1, flag_values=values)
  for name in ("lengths_only", "force"):
    flags.DEFINE_bool(name, False, "", flag_values=values)
  if rest := values(line)[1:]:
    raise flags.Error(f"unknown arguments {rest}; see hulu prepare --help")
  if not values.verify and not (values.input and values.output):
    raise flags.Error(f"needs --input and --output, or --verify; found {argv}")
  cfg = None if config.value is None else stages.select(config.value, values.stage)
  return _Arguments(values, cfg)


def _prepare(args: _Arguments) -> None:
  values = args.values
  shard = _shard(values.shard)
  source = _dataset_spec.parse(values.input)
  with Readers(values.threads, values.timeout) as readers:
    job = prepare.job(
      source,
      dataclasses.replace(_builder(args), reader=readers.read),
      shard,
      Path(values.output),
      frames=not values.lengths_only,
      threads=values.threads,
      force=values.force,
    )
    with _progress.Line("prepare", max(job.last - job.first, 1)) as line:
      manifest, made = prepare.run(job, lambda done, bad: line.update(done, {"bad": bad}))
  size = sum(file["bytes"] for file in manifest.files.values())
  print(
    f"shard {shard[0]} of {shard[1]} {'made' if made else 'is there, verified'}: "
    f"{manifest.records} records, {size / 1e6:.1f} MB, bad: {_counts(manifest.bad)}"
  )


def _builder(args: _Arguments) -> Builder:
  cfg, values = args.config, args.values
  policy: Policy = vision.HULUMED if cfg is None else build.policy(cfg.policy)
  folder = values.tokenizer or (cfg and cfg.tokenizer)
  if not folder:
    raise ValueError("needs --tokenizer=FOLDER: lengths are counted in its tokens")
  root = values.root or (cfg.data.root if cfg else ".")
  return Builder(
    tokenizer=tokenizer_lib.load(Path(folder)),
    policy=policy,
    root=Path(root).absolute(),
    budget=settings.budget(cfg) if cfg else None,
  )


def _shard(text: str) -> tuple[int, int]:
  number, _, count = text.partition("/")
  if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
    raise ValueError(f"--shard={text}; expected I/N with I from 0 to N-1, as in 3/100")
  return int(number), int(count)


def _verify(folder: Path) -> None:
  manifests = manifest_lib.read_all(folder)
  with _progress.Line("verify", len(manifests)) as line:
    for done, manifest in enumerate(manifests, start=1):
      manifest_lib.verify(manifest, folder)
      line.update(done, {})
  bad: Counter[str] = Counter()
  for manifest in manifests:
    bad.update(manifest.bad)
  print(
    f"{len(manifests)} shards as they were written: {sum(m.records for m in manifests)} records, "
    f"bad: {_counts(bad)}"
  )


def _counts(bad: Any) -> str:
  return ", ".join(f"{count} {kind}" for kind, count in sorted(bad.items())) or "none"
