"""The model as a `flax.linen` module, for programs that expect `init` and `apply`.

The parameters are the project's own tree, so checkpoints, shardings and weight names serve both.
nnx users go through Flax's bridge: `nnx.bridge.ToNNX(HuluMed(...), rngs=nnx.Rngs(0))`, then
`nnx.bridge.lazy_init(model, batch)`.
"""

import flax.linen as nn
import jax

from hulu_jax.core import params as P
from hulu_jax.models import hulu
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.hulu import Batch
from hulu_jax.models.scan import FLOAT32
from hulu_jax.models.scan import Compute


class HuluMed(nn.Module):
  """`models.hulu` with its parameters held by Flax.

  merges: merge size of each patch group of the batches to come, none for text alone; compute: dtype
  and remat, float32 without remat unless told.
  `init(key, batch)` gives {"params": the tree of `hulu.specs(config)`}; under `jax.set_mesh` every
  leaf is born sharded.
  """

  config: HuluConfig
  merges: tuple[int, ...] = ()
  compute: Compute = FLOAT32

  def setup(self) -> None:
    """Declares one Flax parameter per component; its value is the component's whole subtree."""
    self.weights = {
      name: self.param(name, _initializer(name, spec))
      for name, spec in hulu.specs(self.config).items()
    }

  def __call__(self, batch: Batch) -> jax.Array:
    """A `data.schema.Batch` to float32 logits [batch, L, vocab]."""
    return hulu.logits(self.weights, batch, self.merges, self.config, self.compute)

  def supervised_logits(self, batch: Batch) -> jax.Array:
    """float32 [batch, K, vocab] at `batch.loss_index`: what a training loss needs, and no more."""
    return hulu.supervised_logits(self.weights, batch, self.merges, self.config, self.compute)


def _initializer(name: str, specs: P.Specs) -> nn.initializers.Initializer:
  # Drawn under its full path, so that a leaf depends on the key as `params.initialize` says.
  return lambda key: P.initialize(key, {name: specs})[name]
