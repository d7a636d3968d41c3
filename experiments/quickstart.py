"""A tiny Hulu-Med learns to find a synthetic disc in real pictures, volumes and clips, and to read.

  hulu train --config=experiments/quickstart.py --workdir=runs/quickstart
  hulu evaluate --workdir=runs/quickstart --benchmark=synthetic_disc

Seed 0, two CPU cores: text 0.85, presence 0.88, quadrant 0.90, third of a volume
0.87, third of a cine 0.82 (300 questions each, held-out files); see benchmarks/RESULTS.md.
"""

import ml_collections


def get_config():
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.model = "tiny"
  # How long: epochs of the mixture where that is not None, else steps.
  c.steps = ml_collections.config_dict.placeholder(int)
  c.epochs = ml_collections.config_dict.placeholder(int)
  c.steps = 2500
  c.report_every = 20
  # None, or {"every": steps, "limit": records, "new_tokens": of an answer, "mixture": (...)}.
  c.evaluation = ml_collections.config_dict.placeholder(ml_collections.ConfigDict)
  c.trackers = ("tensorboard",)
  # Operations a second of one device, where `hulu_jax/core/chips.py` does not have it.
  c.peak_flops = ml_collections.config_dict.placeholder(float)
  # None, or {"first": step, "steps": how many}.
  c.profile = ml_collections.config_dict.placeholder(ml_collections.ConfigDict)
  c.stages = ()
  c.init_from = ml_collections.config_dict.placeholder(str)
  c.tokenizer = ml_collections.config_dict.placeholder(str)
  c.mesh = {"data": 1, "fsdp": 1, "context": 1, "tensor": 1}
  c.compute = {"dtype": "float32", "vision_remat": "full", "decoder_remat": "full"}
  # All patches, and all logits, at once.
  c.compute.vision_pass = ml_collections.config_dict.placeholder(int)
  c.compute.loss_chunk = ml_collections.config_dict.placeholder(int)
  # "auto" is the best of the platform; or a name that `hulu_jax/kernels/<op>/api.py` knows.
  c.compute.kernels = {
    "visual_tokenizer": "auto",
    "token_compaction": "auto",
    "encoder_attention": "auto",
    "decoder_attention": "auto",
  }
  c.trainable = ".*"
  c.peft = ml_collections.config_dict.placeholder(ml_collections.ConfigDict)
  c.z_loss = 0.0
  c.accumulate = 1
  # "token", "sample" or "dataset": what counts alike in the loss.
  c.loss_weighting = "token"
  # Decay of an average of the parameters; None keeps none.
  c.ema = ml_collections.config_dict.placeholder(float)
  # What is kept between steps; "bfloat16" of params and moments is rounded by chance.
  c.dtypes = {"params": "float32", "frozen": "float32", "moments": "float32"}
  c.optimizer = {
    "learning_rates": {"vision": 3e-3, "projector": 3e-3, "decoder": 3e-3},
    "warmup": 0.016,
    "decay_start": 0.3,
    "final": 0.01,
    "b1": 0.9,
    "b2": 0.98,
    "eps": 1e-8,
    "weight_decay": 0.02,
    "clip": 1.0,
  }
  c.policy = {
    "patch": 14,
    "min_tokens": 1,
    "max_tokens": 1024,
    "merge": {"image": 2, "volume": 2, "video": 2},
    "preset": "radiology",
    "compression": {"mode": "off"},
  }

  def disc(kind, weight, size, pool, fade):
    return ml_collections.ConfigDict(
      {
        "name": "synthetic_disc",
        "label": kind,
        "weight": weight,
        "shuffle": False,  # the records grow harder from first to last
        "kind": kind,
        "split": "train",
        "seed": c.get_ref("seed"),
        "size": size,
        "pool": pool,
        "fade": fade,
      }
    )

  c.data = {
    "root": ".",
    "mixture": (
      disc("text", 0.28, size=19500, pool=0, fade=0.15),
      disc("2D", 0.48, size=33000, pool=3000, fade=0.45),
      disc("3D", 0.12, size=8300, pool=1000, fade=0.45),
      disc("video", 0.12, size=8300, pool=1000, fade=0.45),
    ),
    "lookahead": 16,
    "patience": 1000,
    "threads": 1,
    "prefetch": 4,
    "max_bad": 0.0,
    "cut": False,
    "cache": ml_collections.config_dict.placeholder(str),
    "cache_bytes": 100_000_000_000,
    "timeout": ml_collections.config_dict.placeholder(float),
  }
  # A row holds one picture (64 patches) or one clip (6 frames of 16), and a text where it fits.
  c.rows = 20
  c.shapes = {
    "all": {"tokens": 120, "supervised": 36, "visual": 24, "groups": ((1, 96, 1, 2),)},
  }
  c.checkpoint = {"every": 500, "keep": 2, "strict": False}
  # Of the older steps those that this divides stay too.
  c.checkpoint.keep_every = ml_collections.config_dict.placeholder(int)
  return c
