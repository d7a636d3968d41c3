"""What the experiments share: the sizes of a model with their meshes, and a config with every key.

An experiment starts from `base` and sets what makes it itself; `--config.KEY=VALUE` sets the rest.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections
from ml_collections import config_dict


class Size(NamedTuple):
  """A preset of `models.presets` and what suits it.

  mesh: of a 256-chip pod, one device for the small ones.  vision_pass: most patches of a row in one
  pass of the encoder, None: all of them; 16 GB of a TPU v5e do not hold what backward needs of
  131,072 patches at once, 95 GB of a v5p do.
  """

  model: str
  mesh: Mapping[str, int]
  vision_pass: int | None


_ONE_DEVICE = {"data": 1, "fsdp": 1, "context": 1, "tensor": 1}
_POD = {"data": 2, "fsdp": 128, "context": 1, "tensor": 1}
SIZES: Mapping[str, Size] = {
  "4b": Size("hulu-4b", _POD, 16384),
  "7b": Size("hulu-7b", _POD, 16384),
  "14b": Size("hulu-14b", _POD, 16384),
  "32b": Size("hulu-32b", _POD, None),
  # Your own data on a CPU: starts from nothing and trains its own tokenizer.
  "tiny": Size("tiny", _ONE_DEVICE, None),
  # The same on pictures that ship inside installed packages: runs anywhere in a minute.
  "smoke": Size("tiny", _ONE_DEVICE, None),
}
_SMALL = ("tiny", "smoke")

# Groups are (slots, patches a slot, channels, merge).  Found by `hulu data shapes` on the list of
# benchmarks/packing.py (40,000 assumed lengths), then rounded: by FLOPs 0.981 of 64 rows is used,
# with lookahead 256 and patience 40000.  No slot is larger than the largest picture, 4,096 patches:
# splash (TPU) is dense inside a slot, while xla leaves out the blocks that no frame shares.
_SHAPES = {
  "pictures": {
    "tokens": 16384,
    "supervised": 4096,
    "visual": 16384,
    "groups": ((1, 4096, 1, 1), (1, 4096, 3, 1), (1, 1536, 3, 1)),
  },
  # Each stack may come with one small picture, grey or colour.
  "grey_stacks": {
    "tokens": 16384,
    "supervised": 4096,
    "visual": 16384,
    "groups": ((1, 1024, 3, 1), (26, 4096, 1, 2)),
  },
  "colour_stacks": {
    "tokens": 16384,
    "supervised": 4096,
    "visual": 16384,
    "groups": ((1, 1024, 3, 1), (32, 4096, 3, 2)),
  },
}
# All four kinds in one small row.
_SMALL_SHAPES = {
  "all": {
    "tokens": 512,
    "supervised": 128,
    "visual": 160,
    "groups": ((2, 64, 3, 1), (2, 64, 1, 1), (8, 64, 1, 2), (2, 64, 3, 2)),
  },
}


def base(size: str) -> ml_collections.ConfigDict:
  """Every key of a run of `size` over a JSONL file, all of the model training at rates for tuning.

  Raises:
    ValueError: no such size; the message lists those there are.
  """
  if size not in SIZES:
    raise ValueError(f"no size {size!r}; there are: {', '.join(SIZES)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.model = SIZES[size].model
  # How long: epochs of the mixture where that is not None, else steps.
  c.steps = config_dict.placeholder(int)
  c.epochs = config_dict.placeholder(int)
  c.steps = 1000
  c.report_every = 10
  _tell(c)
  c.stages = ()
  c.init_from = config_dict.placeholder(str)
  c.tokenizer = config_dict.placeholder(str)
  c.mesh = dict(SIZES[size].mesh)
  c.compute = {"dtype": "bfloat16", "vision_remat": "full", "decoder_remat": "full"}
  c.compute.vision_pass = config_dict.placeholder(int)
  c.compute.vision_pass = SIZES[size].vision_pass
  # Supervised positions of a row whose logits exist at one time; None: all of them.
  c.compute.loss_chunk = config_dict.placeholder(int)
  c.compute.loss_chunk = 1024
  # "auto" is the best of the platform; or a name that `hulu_jax/kernels/<op>/api.py` knows.
  c.compute.kernels = {
    "visual_tokenizer": "auto",
    "token_compaction": "auto",
    "encoder_attention": "auto",
    "decoder_attention": "auto",
  }
  c.trainable = ".*"
  c.z_loss = 0.0
  c.accumulate = 1
  # "token", "sample" or "dataset": what counts alike in the loss.
  c.loss_weighting = "token"
  # Decay of an average of the parameters; None keeps none.
  c.ema = config_dict.placeholder(float)
  # What is kept between steps; "bfloat16" of params and moments is rounded by chance.
  c.dtypes = {"params": "float32", "frozen": "float32", "moments": "float32"}
  c.peft = config_dict.placeholder(ml_collections.ConfigDict)
  c.optimizer = _optimizer()
  c.policy = _policy()
  c.train_file = "train.jsonl"
  # What `hulu prepare --lengths-only` wrote: several shapes on several data shards need a plan.
  c.lengths = config_dict.placeholder(str)
  c.data = _data(c)
  c.rows = 256
  c.shapes = _SHAPES
  c.checkpoint = {"every": 200, "keep": 3, "strict": False}
  # Of the older steps those that this divides stay too.
  c.checkpoint.keep_every = config_dict.placeholder(int)
  if size in _SMALL:
    _shrink(c)
  if size == "smoke":
    _smoke(c)
  return c


def _tell(c: ml_collections.ConfigDict) -> None:
  """What a run tells of itself on the way; docs/metrics.md."""
  # None, or {"every": steps, "limit": records, "new_tokens": of an answer, "mixture": (...)}.
  c.evaluation = config_dict.placeholder(ml_collections.ConfigDict)
  c.trackers = ("tensorboard",)
  # Operations a second of one device, where `hulu_jax/core/chips.py` does not have it.
  c.peak_flops = config_dict.placeholder(float)
  # None, or {"first": step, "steps": how many}.
  c.profile = config_dict.placeholder(ml_collections.ConfigDict)


def _optimizer() -> dict[str, Any]:
  """AdamW with a cosine after 3 % of warm-up, at VideoLLaMA3's published rates for its stages from
  the second on; clipping at 1 is what its trainer's default says."""
  return {
    "learning_rates": {"vision": 2e-6, "projector": 1e-5, "decoder": 1e-5},
    "warmup": 0.03,
    "decay_start": 0.0,
    "final": 0.0,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "clip": 1.0,
  }


def _policy() -> dict[str, Any]:
  """Pictures token by token, volumes and clips merged 2 x 2, as released."""
  return {
    "patch": 14,
    "min_tokens": 16,
    # Hulu-Med's is 10240; a picture of more than 4,096 patches (896 x 896) would fit no slot.
    "max_tokens": 4096,
    "merge": {"image": 1, "volume": 2, "video": 2},
    "preset": "radiology",
    "compression": {"mode": "off"},
  }


def _data(c: ml_collections.ConfigDict) -> dict[str, Any]:
  """One JSONL file, whose path and lengths are keys of their own."""
  mine = {
    "name": "jsonl",
    "label": "mine",
    "weight": 1.0,
    "shuffle": True,
    "path": c.get_ref("train_file"),
    "lengths": c.get_ref("lengths"),
  }
  return {
    "root": ".",
    "mixture": (ml_collections.ConfigDict(mine),),
    "lookahead": 256,
    "patience": 40000,
    "threads": 8,
    "prefetch": 4,
    "max_bad": 0.01,
    "cut": True,
    "cache": config_dict.placeholder(str),
    "cache_bytes": 100_000_000_000,
    "timeout": config_dict.placeholder(float),
  }


def _shrink(c: ml_collections.ConfigDict) -> None:
  """To two CPU cores and a model that knows nothing yet."""
  c.compute.update(dtype="float32", vision_remat="none", decoder_remat="none")
  c.compute.loss_chunk = None
  c.policy.update(min_tokens=1, max_tokens=64)
  c.data.update(lookahead=16, patience=1000)
  c.rows = 2
  c.shapes = _SMALL_SHAPES


def _smoke(c: ml_collections.ConfigDict) -> None:
  """To a minute over text, pictures, volumes and clips that need no files of the user's."""
  c.steps, c.checkpoint.every = 40, 20
  c.optimizer.warmup = 0.1
  c.data.threads = 1
  c.data.mixture = tuple(
    ml_collections.ConfigDict(
      {
        "name": "synthetic_disc",
        "label": kind,
        "weight": weight,
        "shuffle": False,
        "kind": kind,
        "split": "train",
        "seed": c.get_ref("seed"),
        "size": 1000,
        "pool": 0 if kind == "text" else 50,
        "fade": 0.5,
      }
    )
    for kind, weight in {"text": 0.25, "2D": 0.25, "3D": 0.25, "video": 0.25}.items()
  )


def rates(
  c: ml_collections.ConfigDict, size: str, vision: float, projector: float, decoder: float
) -> None:
  """Sets the peak learning rate of each module; the small sizes, which begin with nothing, take
  1e-3 for every module that has one."""
  published = {"vision": vision, "projector": projector, "decoder": decoder}
  learns = {module: 1e-3 if rate else 0.0 for module, rate in published.items()}
  c.optimizer.learning_rates = learns if size in _SMALL else published
