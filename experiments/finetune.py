"""Fine-tunes a Hulu-Med of any size on your own conversations: one JSONL line each, media by path.

  hulu prepare --lengths-only --input=/data/mine/train.jsonl --output=/data/mine/lengths \
    --root=/data/mine --config=experiments/finetune.py:hulu-7b --tokenizer=/models/Hulu-Med-7B
  hulu train --config=experiments/finetune.py:hulu-7b --workdir=runs/mine \
    --config.data.root=/data/mine --config.train_file=/data/mine/train.jsonl \
    --config.lengths=/data/mine/lengths \
    --config.init_from=/models/Hulu-Med-7B --config.tokenizer=/models/Hulu-Med-7B

The argument is a preset: tiny, hulu-4b, hulu-7b, hulu-14b or hulu-32b; `tiny` starts from nothing,
trains its own tokenizer and needs no lengths.  Mixtures of several datasets: docs/data.md.  Not yet
run at full size: the tests trace every step shape on abstract meshes of 256 chips.

LoRA (r and alpha as VideoLLaMA3's scripts have them) instead of training every weight; `trainable`
then names what trains in full beside the adapters, by its pattern of paths, and '' is nothing:

  --config.trainable= --config.peft='{"method": "lora", "rank": 64, "alpha": 16.0,
    "rslora": False, "targets": "decoder/layers/(q|k|v|o|gate|up|down)"}'

The rates below are for training every weight; LoRA's authors used 2e-4 on GPT-3.
"""

import ml_collections

# (data, fsdp, tensor) of a 256-chip pod per size; `tiny` runs on one device.
_MESHES = {
  "tiny": {"data": 1, "fsdp": 1, "tensor": 1},
  "hulu-4b": {"data": 2, "fsdp": 128, "tensor": 1},
  "hulu-7b": {"data": 2, "fsdp": 128, "tensor": 1},
  "hulu-14b": {"data": 2, "fsdp": 128, "tensor": 1},
  "hulu-32b": {"data": 2, "fsdp": 32, "tensor": 4},
}

# Most patches of a row in one pass of the encoder, by size; None: all of them.  16 GB of a TPU v5e
# do not hold what backward needs of 131,072 patches at once; 95 GB of a v5p do.
_PASSES = {"tiny": None, "hulu-4b": 16384, "hulu-7b": 16384, "hulu-14b": 16384, "hulu-32b": None}

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
_TINY = {
  "all": {
    "tokens": 512,
    "supervised": 128,
    "visual": 160,
    "groups": ((2, 64, 3, 1), (2, 64, 1, 1), (8, 64, 1, 2), (2, 64, 3, 2)),
  },
}


def get_config(size="hulu-7b"):
  if size not in _MESHES:
    raise ValueError(f"no size {size!r}; there are: {', '.join(_MESHES)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.model = size
  # How long: steps, or epochs of the mixture; the other is None.
  c.steps = ml_collections.config_dict.placeholder(int)
  c.epochs = ml_collections.config_dict.placeholder(int)
  c.steps = 1000
  c.report_every = 10
  c.stages = ()
  c.init_from = ml_collections.config_dict.placeholder(str)
  c.tokenizer = ml_collections.config_dict.placeholder(str)
  c.mesh = _MESHES[size]
  c.compute = {"dtype": "bfloat16", "vision_remat": "full", "decoder_remat": "full"}
  c.compute.vision_pass = ml_collections.config_dict.placeholder(int)
  c.compute.vision_pass = _PASSES[size]
  # Supervised positions of a row whose logits exist at one time; None: all of them.
  c.compute.loss_chunk = ml_collections.config_dict.placeholder(int)
  c.compute.loss_chunk = None if size == "tiny" else 1024
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
  c.ema = ml_collections.config_dict.placeholder(float)
  # What is kept between steps; "bfloat16" of params and moments is rounded by chance.
  c.dtypes = {"params": "float32", "frozen": "float32", "moments": "float32"}
  c.peft = ml_collections.config_dict.placeholder(ml_collections.ConfigDict)
  # VideoLLaMA3's published rates for its later stages; Hulu-Med's own are not published.
  c.optimizer = {
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
  c.policy = {
    "patch": 14,
    "min_tokens": 16,
    # Hulu-Med's is 10240; a picture of more than 4,096 patches (896 x 896) would fit no slot.
    "max_tokens": 4096,
    "merge": {"image": 1, "volume": 2, "video": 2},
    "preset": "radiology",
    "compression": {"mode": "off"},
  }
  c.train_file = "train.jsonl"
  # What `hulu prepare --lengths-only` wrote: several shapes on several data shards need a plan.
  c.lengths = ml_collections.config_dict.placeholder(str)
  c.data = {
    "root": ".",
    "mixture": (
      ml_collections.ConfigDict(
        {
          "name": "jsonl",
          "label": "mine",
          "weight": 1.0,
          "shuffle": True,
          "path": c.get_ref("train_file"),
          "lengths": c.get_ref("lengths"),
        }
      ),
    ),
    "lookahead": 256,
    "patience": 40000,
    "threads": 8,
    "prefetch": 4,
    "max_bad": 0.01,
    "cut": True,
    "cache": ml_collections.config_dict.placeholder(str),
    "cache_bytes": 100_000_000_000,
    "timeout": ml_collections.config_dict.placeholder(float),
  }
  c.rows = 256
  c.shapes = _TINY if size == "tiny" else _SHAPES
  c.checkpoint = {"every": 200, "keep": 3}
  if size == "tiny":
    c.compute.update(dtype="float32", vision_remat="none", decoder_remat="none")
    c.optimizer.learning_rates = {"vision": 1e-3, "projector": 1e-3, "decoder": 1e-3}
    c.policy.max_tokens = 64
    c.policy.min_tokens = 1
    c.rows = 2
    c.data.lookahead, c.data.patience = 16, 1000
  return c
