"""Fine-tunes a Hulu-Med of any size on your own conversations: one JSONL line each, media by path.

  hulu train --config=experiments/finetune.py:hulu-7b --workdir=runs/mine \
    --config.data.root=/data/mine --config.train_file=/data/mine/train.jsonl \
    --config.init_from=/models/Hulu-Med-7B --config.tokenizer=/models/Hulu-Med-7B

The argument is a preset: tiny, hulu-4b, hulu-7b, hulu-14b or hulu-32b; `tiny` starts from
nothing and trains its own tokenizer.  The step shape holds pictures, volumes and clips of up to
1,024 patches a frame.  Not yet run at full size: the tests trace it on an abstract mesh of 256
chips.
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


def get_config(size="hulu-7b"):
  if size not in _MESHES:
    raise ValueError(f"no size {size!r}; there are: {', '.join(_MESHES)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.model = size
  c.steps = 1000
  c.report_every = 10
  c.init_from = ml_collections.config_dict.placeholder(str)
  c.tokenizer = ml_collections.config_dict.placeholder(str)
  c.mesh = _MESHES[size]
  c.compute = {"dtype": "bfloat16", "vision_remat": "full", "decoder_remat": "full"}
  c.trainable = ".*"
  # VideoLLaMA3's published rates for its later stages; Hulu-Med's own are not published.
  c.optimizer = {
    "learning_rates": {"vision": 2e-6, "projector": 1e-5, "decoder": 1e-5},
    "warmup": 30,
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
    "max_tokens": 10240,
    "merge": {"image": 1, "volume": 2, "video": 2},
    "preset": "radiology",
    "compression": {"mode": "off"},
  }
  c.train_file = "train.jsonl"
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
        }
      ),
    ),
    "lookahead": 16,
    "patience": 1000,
    "threads": 8,
    "prefetch": 4,
    "max_bad": 0.01,
  }
  # Groups are (slots, patches a slot, channels, merge): colour pictures, grey pictures, grey
  # volumes, colour clips.
  c.rows = 256
  c.shapes = {
    "all": {
      "tokens": 8192,
      "supervised": 1024,
      "visual": 6144,
      "groups": ((4, 1024, 3, 1), (4, 1024, 1, 1), (12, 1024, 1, 2), (4, 1024, 3, 2)),
    },
  }
  c.checkpoint = {"every": 200, "keep": 3}
  if size == "tiny":
    c.compute = {"dtype": "float32", "vision_remat": "none", "decoder_remat": "none"}
    c.optimizer.learning_rates = {"vision": 1e-3, "projector": 1e-3, "decoder": 1e-3}
    c.policy.max_tokens = 64
    c.policy.min_tokens = 1
    c.rows = 2
    c.shapes.all.update(tokens=512, supervised=128, visual=160)
    c.shapes.all.groups = ((2, 64, 3, 1), (2, 64, 1, 1), (8, 64, 1, 2), (2, 64, 3, 2))
  return c
