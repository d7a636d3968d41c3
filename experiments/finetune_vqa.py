"""Fine-tunes a Hulu-Med of any size on your own conversations: one JSONL line each, media by path.

  hulu prepare --lengths-only --input=/data/mine/train.jsonl --output=/data/mine/lengths \
    --root=/data/mine --config=experiments/finetune_vqa.py:7b,lora --tokenizer=/models/Hulu-Med-7B
  hulu train --config=experiments/finetune_vqa.py:7b,lora --workdir=runs/mine \
    --config.data.root=/data/mine --config.train_file=/data/mine/train.jsonl \
    --config.lengths=/data/mine/lengths \
    --config.init_from=/models/Hulu-Med-7B --config.tokenizer=/models/Hulu-Med-7B

The argument is SIZE or SIZE,METHOD.  Sizes: 4b, 7b, 14b, 32b; tiny, which starts from nothing,
trains its own tokenizer and needs no lengths; smoke, which needs no files at all:

  hulu train --config=experiments/finetune_vqa.py:smoke --workdir=runs/smoke

Methods: lora (the usual one, rank and alpha as VideoLLaMA3's scripts have them, on every matrix of
the decoder, the projector training in full), frozen (the projector and the decoder train, the
encoder does not) and full.  On one GPU say --config.mesh.data=1 --config.mesh.fsdp=1
--config.rows=1; batches get their size back by --config.rows=8 --config.accumulate=8.

Rates of frozen and full: VideoLLaMA3's published ones for its later stages; Hulu-Med's own are not
published.  Of lora: 2e-4, as LoRA's authors used on GPT-3.  Not yet run at full size: the tests
trace every step shape on abstract meshes of 256 chips.
"""

import ml_collections

from hulu_jax.training import recipe

_LORA = {
  "method": "lora",
  "rank": 64,
  "alpha": 16.0,
  "rslora": False,
  "targets": "decoder/layers/(q|k|v|o|gate|up|down)",
}
# What trains in full, by pattern of paths; beside LoRA's adapters.
_TRAINABLE = {"lora": "projector/.*", "frozen": "(projector|decoder)/.*", "full": ".*"}


def get_config(size_and_method="7b,lora"):
  size, _, method = size_and_method.partition(",")
  method = method or "lora"
  if method not in _TRAINABLE:
    raise ValueError(f"no method {method!r}; there are: {', '.join(_TRAINABLE)}")
  c = recipe.base(size)
  c.trainable = _TRAINABLE[method]
  if method == "lora":
    c.peft = ml_collections.ConfigDict(_LORA)
    # As the weights were released: nothing is lost, and one GPU of 80 GB holds 7B with room.
    c.dtypes.frozen = "bfloat16"
    recipe.rates(c, size, vision=0.0, projector=1e-5, decoder=2e-4)
  elif method == "frozen":
    recipe.rates(c, size, vision=0.0, projector=1e-5, decoder=1e-5)
  else:
    recipe.rates(c, size, vision=2e-6, projector=1e-5, decoder=1e-5)
  return c
