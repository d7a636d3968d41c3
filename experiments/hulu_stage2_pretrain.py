"""Stage 2, pretraining: the whole model learns what pictures, volumes, clips and texts say.

  hulu train --config=experiments/hulu_stage2_pretrain.py:7b --workdir=runs/stage2 \
    --config.data.root=/data --config.train_file=/data/pretrain.jsonl \
    --config.lengths=/data/pretrain_lengths --config.init_from=runs/stage1

Lengths are made as experiments/hulu_stage1_align.py shows.  `init_from` is a run, as here, whose
tokenizer is then this run's too, or any Hulu-Med folder.  Sizes: 4b, 7b, 14b, 32b, and smoke, which
needs no files:

  hulu train --config=experiments/hulu_stage2_pretrain.py:smoke --workdir=runs/smoke

Rates and merge sizes are those of VideoLLaMA3's published stage 2; Hulu-Med's own settings are not
published.  Not yet run at full size: the tests trace every step shape on abstract meshes of 256
chips.
"""

from hulu_jax.training import recipe


def get_config(size="7b"):
  c = recipe.base(size)
  recipe.rates(c, size, vision=2e-6, projector=1e-5, decoder=1e-5)
  return c
