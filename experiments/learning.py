"""A tiny model learns from real pictures, volumes, clips and texts at once, on a CPU, from nothing.

  hulu train --config=experiments/learning.py --workdir=runs/learning --config.data.root=DATA
  hulu evaluate --workdir=runs/learning --benchmark=bccd_mednist

DATA holds BCCD, MedNIST, MedMCQA, TotalSegmentator and POCUS as their plugins read them, in the
folders named below.  The argument is the compression of volumes and clips, off or fixed, and after
a comma `short`, for 800 steps in place of 3,000.  A check of the pipeline, not of medicine.

Seed 0, 3,000 steps, about 20 minutes of CPU time.  Pictures it did not see, n, accuracy (95 %
interval), majority, blank picture:

  MedNIST, modality                   152  0.98 (0.94 to 0.99)  0.49  0.49
  MedNIST, kind of picture            152  0.95 (0.91 to 0.98)  0.19  0.16
  BCCD, platelet or red cell          300  0.93 (0.90 to 0.95)  0.50  0.50
  BCCD, platelet in a whole smear      87  0.77 (0.67 to 0.85)  0.52  0.48
  BCCD, number of platelets            87  0.53 (0.42 to 0.63)  0.48  0.48

Platelets are seen and not counted.  Losses of training, at step 20 and on average over the last 200
steps: text 5.18 and 0.13, volumes 1.64 and 0.001, clips 3.63 and 0.06.  After 800 steps MedNIST is
learned and BCCD is not (benchmarks/RESULTS.md).  `fixed` tells nothing here: each frame of a volume
or a clip is one visual token, and one of every frame always stays.
"""

import ml_collections

from hulu_jax.data.datasets.totalsegmentator import ORGANS

# Grey levels of mean change, for CT the same in HU; a choice for this check, not for a clinic.
_COMPRESSION = {
  "off": {"mode": "off"},
  "fixed": {"mode": "fixed", "grey": 4.0, "hu": 8.0, "prune": "before"},
}


# Steps, and of BCCD's fields their number and the share of them over which they grow.
_LENGTHS = {"": (3000, 52000, 0.8), "short": (800, 15500, 0.84)}


def get_config(argument="off"):
  compression, _, length = argument.partition(",")
  steps, fields, fade = _LENGTHS[length]
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.model = "tiny"
  # How long: epochs of the mixture where that is not None, else steps.
  c.steps = ml_collections.config_dict.placeholder(int)
  c.epochs = ml_collections.config_dict.placeholder(int)
  c.steps = steps
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
  c.compute = {"dtype": "float32", "vision_remat": "none", "decoder_remat": "none"}
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
    "warmup": 0.05,
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
    # A smear of 640 x 480 is shown at 308 x 224.
    "max_tokens": 88,
    "merge": {"image": 2, "volume": 2, "video": 2},
    "preset": "radiology",
    "compression": _COMPRESSION[compression],
  }
  c.data = {
    "root": ".",
    "lookahead": 16,
    "patience": 1000,
    "threads": 1,
    "prefetch": 4,
    # A few questions of MedMCQA are longer than a row.
    "max_bad": 0.01,
    # Clips of 32 frames lose some.
    "cut": True,
    # Clips are decoded once.
    "cache": "runs/learning_cache",
    "cache_bytes": 1_000_000_000,
    "timeout": ml_collections.config_dict.placeholder(float),
  }
  root = c.data.get_ref("root")

  def source(name, label, weight, folder, fields):
    entry = {"name": name, "label": label, "weight": weight, "shuffle": True, "split": "all"}
    return ml_collections.ConfigDict({**entry, "root": root + f"/{folder}/public", **fields})

  c.data.mixture = (
    source(
      "bccd_fields",
      "BCCD",
      0.68,
      "img_bccd",
      {
        "split": "train",
        "shuffle": False,  # the fields grow from first to last
        "seed": c.get_ref("seed"),
        "size": fields,
        "fade": fade,
      },
    ),
    # Neighbours are slices of one scan: the highest quarter of the file numbers is the test.
    source(
      "mednist", "MedNIST", 0.17, "img_mednist", {"ask": ("mod", "kind"), "numbers": (0.0, 0.525)}
    ),
    source("medmcqa", "text", 0.06, "text_medmcqa", {"explain": False}),
    source("totalsegmentator", "volume", 0.05, "vol_totalsegmentator", {"organs": ORGANS}),
    source("pocus_lung", "clip", 0.04, "vid_pocus_lung", {}),
  )
  c.rows = 8
  # A row holds a smear, a volume or a clip, or many small pictures, and a text where it fits.
  c.shapes = {
    "all": {"tokens": 288, "supervised": 80, "visual": 88, "groups": ((1, 352, 3, 2),)},
  }
  c.checkpoint = {"every": 200, "keep": 2, "strict": False}
  # Of the older steps those that this divides stay too.
  c.checkpoint.keep_every = ml_collections.config_dict.placeholder(int)
  return c
