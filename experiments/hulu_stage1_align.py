"""Stage 1, alignment: a decoder that can read and an encoder that can see learn one language.

  hulu prepare --lengths-only --input=/data/captions.jsonl --output=/data/lengths --root=/data \
    --config=experiments/hulu_stage1_align.py:7b --tokenizer=/models/Qwen2.5-7B-Instruct
  hulu train --config=experiments/hulu_stage1_align.py:7b --workdir=runs/stage1 \
    --config.data.root=/data --config.train_file=/data/captions.jsonl \
    --config.lengths=/data/lengths \
    --config.init_from=/models/Qwen2.5-7B-Instruct,/models/SigLIP-NaViT \
    --config.tokenizer=/models/Qwen2.5-7B-Instruct

Sizes: 4b, 7b, 14b, 32b, and smoke, which needs no files:

  hulu train --config=experiments/hulu_stage1_align.py:smoke --workdir=runs/smoke

The encoder and the projector train, the decoder is frozen; the projector is drawn anew.  Rates and
merge sizes are those of VideoLLaMA3's published stage 1; Hulu-Med's own settings are not published.
Not yet run at full size: the tests trace every step shape on abstract meshes of 256 chips.
"""

from hulu_jax.training import recipe


def get_config(size="7b"):
  c = recipe.base(size)
  c.trainable = "(vision|projector)/.*"
  recipe.rates(c, size, vision=1e-5, projector=1e-3, decoder=0.0)
  return c
