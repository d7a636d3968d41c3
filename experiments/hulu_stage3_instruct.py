"""Stage 3, instruction tuning: the whole model learns to answer, volumes and clips compressed.

  hulu train --config=experiments/hulu_stage3_instruct.py:7b --workdir=runs/stage3 \
    --config.data.root=/data --config.train_file=/data/instruct.jsonl \
    --config.lengths=/data/instruct_lengths --config.init_from=runs/stage2

Lengths are made as experiments/hulu_stage1_align.py shows, with this experiment's policy: what the
compression drops takes no place in a row.  `init_from` is a run, as here, or any Hulu-Med folder.
Sizes: 4b, 7b, 14b, 32b, and smoke, which needs no files:

  hulu train --config=experiments/hulu_stage3_instruct.py:smoke --workdir=runs/smoke

Rates and merge sizes are those of VideoLLaMA3's published stage 3, and so is that tokens which
change little from frame to frame are dropped; here by Hulu-Med's rule, docs/compression.md has the
others.  VideoLLaMA3 adds a stage 4 that merges pictures too: --config.policy.merge.image=2, with
shapes to match.  Hulu-Med's own settings are not published.  Not yet run at full size: the tests
trace every step shape on abstract meshes of 256 chips.
"""

from hulu_jax.training import recipe


def get_config(size="7b"):
  c = recipe.base(size)
  recipe.rates(c, size, vision=2e-6, projector=1e-5, decoder=1e-5)
  c.policy.compression = {"mode": "hulumed"}
  return c
