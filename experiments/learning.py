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
from hulu_jax.training import recipe

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
  c = recipe.base("tiny")
  # No file of the user's.
  del c.train_file, c.lengths
  c.steps = steps
  c.report_every = 20
  c.optimizer.update(warmup=0.05, decay_start=0.3, final=0.01, b2=0.98, weight_decay=0.02)
  c.optimizer.learning_rates = {"vision": 3e-3, "projector": 3e-3, "decoder": 3e-3}
  # A smear of 640 x 480 is shown at 308 x 224.
  c.policy.max_tokens = 88
  c.policy.merge.image = 2
  c.policy.compression = _COMPRESSION[compression]
  c.data.threads = 1
  # A few questions of MedMCQA are longer than a row; clips of 32 frames lose some, and are decoded
  # once.
  c.data.cache = "runs/learning_cache"
  c.data.cache_bytes = 1_000_000_000
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
  c.checkpoint.keep = 2
  return c
