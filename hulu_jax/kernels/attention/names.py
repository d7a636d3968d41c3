"""What attention's implementations are called, where each runs, and what backward may keep."""

from collections.abc import Mapping

# Implementation -> platforms, as JAX calls them.  "_interpret" runs a kernel's program in Python.
RUNS_ON: Mapping[str, tuple[str, ...]] = {
  "reference": ("cpu", "tpu", "gpu"),
  "xla": ("cpu", "tpu", "gpu"),
  "splash": ("tpu",),
  "splash_interpret": ("cpu",),
  "mosaic": ("gpu",),
  "mosaic_interpret": ("cpu",),
}

# Output and softmax sums carry this name (`jax.ad_checkpoint.checkpoint_name`): a rematerialisation
# policy that saves it does not run attention twice.
SAVED = "attention"
