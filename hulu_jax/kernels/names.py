"""What implementations in Pallas are called, and where each runs."""

from collections.abc import Mapping

# Implementation -> platforms, as JAX calls them.  "_interpret" runs a kernel's program in Python.
PALLAS: Mapping[str, tuple[str, ...]] = {
  "reference": ("cpu", "tpu", "gpu"),
  "pallas_tpu": ("tpu",),
  "pallas_tpu_interpret": ("cpu",),
  "pallas_gpu": ("gpu",),
  "pallas_gpu_interpret": ("cpu",),
}
